"""Encoded pictures, and arrays, to grey squares.

JPEG and PNG of any mode and size become 8-bit grey squares. Each size is made in two steps. First the JPEG decoder itself
scales down by 2, 4 or 8, as far as the picture stays at least twice as large as wanted (Pillow's draft mode, and the
factor that its `thumbnail` uses): the saved decoding is most of the time for originals of 1,300 x 1,000. Then a
triangle filter as wide as the step down (Pillow's BILINEAR) makes the rest. It is antialiased, and unlike bicubic or
Lanczos it cannot overshoot: a bright halo along ribs and heart would be structure that is not there.

What a size looks like does not depend on the other sizes that are made with it, so caches made in any order are equal.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .dicom import PREAMBLE, grey_of
from .errors import UnreadableError

RECIPE = 1
"""Version of what `decode` does to a picture; a change of pixels wants a new one, which makes every cache anew."""

MOST_PIXELS = 89_478_485
"""The largest picture that is decoded: Pillow's own bound against decompression bombs."""

_FORMATS = ("JPEG", "PNG")


@dataclass(frozen=True, eq=False)
class Decoded:
    """A picture's own `width` and `height` in pixels, its `mode` as Pillow names it, and the squares that were asked for.

    `squares`: for each size an array uint8 (size, size).
    """

    width: int
    height: int
    mode: str
    squares: list[NDArray[np.uint8]]


def decode(encoded: bytes, sizes: Sequence[int], name: str | None = None) -> Decoded:
    """The picture as grey squares of `sizes` (pixels).

    The picture is stretched to the square, as the tutorial does. 16-bit greys are scaled by 1/257, transparent parts lie
    on black. `name` is the file's, where there is one: content of another format than its suffix claims is refused. Raises
    `UnreadableError`, and `ImportError` for a DICOM where pydicom is missing.
    """
    try:
        kind = _kind(encoded, name)
        if kind == "DICOM":
            pixels, mode = grey_of(encoded, MOST_PIXELS)
            shown = Image.fromarray(pixels)
            return Decoded(shown.width, shown.height, mode, [_square(shown, size) for size in sizes])
        image = _opened(encoded)
        width, height = image.size
        mode = image.mode
        scales = _scales(image, sizes)
        grey: dict[int, Image.Image] = {}
        for scale in scales:
            if scale not in grey:
                grey[scale] = _grey(_opened(encoded) if grey else image, scale)
        squares = [_square(grey[scale], size) for scale, size in zip(scales, sizes, strict=True)]
        return Decoded(width, height, mode, squares)
    except (UnreadableError, ImportError, MemoryError):
        raise  # a lack of memory, or of pydicom, is no fault of the picture's, and the fault would be remembered
    # A broken file makes a decoder raise anything: OSError, SyntaxError, struct.error, ValueError.
    except Exception as error:
        raise UnreadableError(str(error) or type(error).__name__) from error


def square_of(pixels: NDArray[Any], size: int) -> NDArray[np.uint8]:
    """An array (h, w), or (h, w, c) of 1, 3 or 4 channels, as a grey square (size, size), as `decode` makes it of a PNG.

    uint8, or uint16, or other whole numbers from 0 to 255. Raises `UnreadableError` for anything else.
    """
    shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
    if not shaped or not pixels.size:
        raise UnreadableError(f"an array of shape {pixels.shape}; wants (height, width) or (height, width, channels)")
    if pixels.shape[0] * pixels.shape[1] > MOST_PIXELS:
        raise UnreadableError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels are too many; at most {MOST_PIXELS:,}")
    if pixels.dtype.kind not in "ui":
        raise UnreadableError(f"an array of {pixels.dtype}; wants uint8 or uint16")
    if pixels.dtype not in (np.uint8, np.uint16):
        if pixels.min() < 0 or pixels.max() > 255:
            raise UnreadableError(f"an array of {pixels.dtype} with values beyond 0 to 255; wants uint8 or uint16")
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    return _square(_grey(Image.fromarray(pixels), 1), size)


def _kind(encoded: bytes, name: str | None) -> str:
    """The format by the content, which has to be the one that the file's suffix claims."""
    starts = {"JPEG": encoded[:2] == b"\xff\xd8", "PNG": encoded[:8] == b"\x89PNG\r\n\x1a\n"}
    starts["DICOM"] = encoded[128:132] == PREAMBLE
    found = next((kind for kind, starts_so in starts.items() if starts_so), None)
    if found is None:
        raise UnreadableError("neither a JPEG nor a PNG nor a DICOM")
    if name is None:
        return found
    suffix = PurePosixPath(name).suffix.lower()
    claimed = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}.get(suffix, "DICOM")
    if found != claimed:
        raise UnreadableError(f"is a {found}, though its name says {claimed}")
    return found


def _scales(image: Image.Image, sizes: Sequence[int]) -> list[int]:
    """How far the decoder may scale down for each size."""
    if image.format != "JPEG":
        return [1] * len(sizes)
    return [max(scale for scale in (1, 2, 4, 8) if scale == 1 or min(image.size) >= 2 * size * scale) for size in sizes]


def _opened(encoded: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except UnidentifiedImageError:
        raise UnreadableError("neither a JPEG nor a PNG") from None
    if image.width * image.height > MOST_PIXELS:
        raise UnreadableError(f"{image.width} x {image.height} pixels are too many; at most {MOST_PIXELS:,}")
    return image


def _grey(image: Image.Image, scale: int) -> Image.Image:
    image.draft("L", (image.width // scale, image.height // scale))
    if image.mode.startswith(("I", "F")):
        deep = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.clip(np.rint(deep / 257), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "black"), clear).convert("L")
    return image.convert("L")


def _square(grey: Image.Image, size: int) -> NDArray[np.uint8]:
    return np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR))
