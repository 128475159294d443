"""Which value is black and which is white in greys of more than 8 bits.

A cell of 16 bits often holds fewer: detectors deliver 10, 12 or 14. The file may state how many (sBIT, BitsStored). If it does
not, the values decide: the range is that of the smallest common width that holds the brightest one.

Stretching each picture from its darkest to its brightest value would be simpler. But then the contrast of a picture would
depend on its one brightest pixel, and two pictures of a set could not be compared. A width is the same for most pictures of a
set, and the brightest value of a picture never falls below a quarter of the range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .unreadable import UnreadableError

WIDTHS = (8, 10, 12, 14, 16)
"""Bits of a grey value that detectors and file formats use."""


def grey_range(lowest: int, highest: int, bits: int | None = None, *, signed: bool = False) -> tuple[int, int]:
    """Return the values that are black and white.

    Args:
        lowest: The darkest value of the picture; `highest` is the brightest one.
        bits: The width that the file states, or None. A width that does not hold the values counts as none.
        signed: Whether the values are in two's complement, so that black is negative.

    Raises:
        UnreadableError: The values need more than 16 bits, or are negative and not signed.
    """
    for width in WIDTHS if bits is None else (bits, *WIDTHS):
        black = -(2 ** (width - 1)) if signed else 0
        white = black + 2**width - 1
        if black <= lowest and highest <= white:
            return black, white
    raise UnreadableError(f"greys from {lowest} to {highest}; expected 0 to 65535, which is 16 bits")


def to_8_bit(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    """Return the values as uint8, with black as 0 and white as 255. What lies beyond is clipped."""
    return np.clip(np.rint((values.astype(np.float64) - black) * (255 / (white - black))), 0, 255).astype(np.uint8)
