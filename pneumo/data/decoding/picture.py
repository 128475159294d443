"""Encoded pictures, and arrays, to 8-bit grey squares.

JPEG and PNG of any mode and size can be read. Each size is made in two steps. First the JPEG decoder itself scales down by 2, 4
or 8, as long as the picture stays at least twice as large as the square (Pillow's draft mode, and the factor that its
`thumbnail` uses). This saves most of the decoding time for originals of 1,300 x 1,000. Then a triangle filter as wide as the
step down (Pillow's BILINEAR) makes the square. It is antialiased, and unlike bicubic or Lanczos it cannot overshoot: a bright
halo along ribs and heart would be structure that is not in the picture.

A square does not depend on the other sizes that are made with it, so caches that were filled in any order are equal.
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
from .unreadable import UnreadableError

RECIPE = 1
"""Version of the pixels that `decode` returns. Increase it when they change; then all pictures are decoded again."""

MOST_PIXELS = 89_478_485
"""Largest number of pixels that is decoded: Pillow's own bound against decompression bombs."""

_FORMATS = ("JPEG", "PNG")


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded picture.

    Attributes:
        width: The picture's own width in pixels; `height` likewise.
        mode: The picture's mode, as Pillow names it.
        squares: An array uint8 (size, size) for each requested size.
    """

    width: int
    height: int
    mode: str
    squares: list[NDArray[np.uint8]]


def decode(encoded: bytes, sizes: Sequence[int], name: str | None = None) -> Decoded:
    """Decode a picture to grey squares.

    The picture is stretched to the square, as the tutorial does. 16-bit greys are scaled by 1/257, and transparent pixels
    are put on black.

    Args:
        encoded: The bytes of a JPEG, PNG or DICOM file.
        sizes: Sides of the squares in pixels.
        name: The file's name, if it has one. The content must have the format that its suffix claims.

    Raises:
        UnreadableError: The content is broken, or not what the name claims.
        ImportError: The file is a DICOM, and pydicom is not installed.
    """
    try:
        if _format(encoded, name) == "DICOM":
            pixels, mode = grey_of(encoded, MOST_PIXELS)
            displayed = Image.fromarray(pixels)
            return Decoded(displayed.width, displayed.height, mode, [_square(displayed, size) for size in sizes])
        image = _open_image(encoded)
        width, height = image.size
        mode = image.mode
        scales = _scales(image, sizes)
        grey: dict[int, Image.Image] = {}
        for scale in scales:
            if scale not in grey:
                # An opened image can be decoded at one scale only.
                grey[scale] = _grey(_open_image(encoded) if grey else image, scale)
        squares = [_square(grey[scale], size) for scale, size in zip(scales, sizes, strict=True)]
        return Decoded(width, height, mode, squares)
    except (UnreadableError, ImportError, MemoryError):
        raise  # missing memory or a missing package is not the picture's fault, and an UnreadableError would be cached
    # For a broken file a decoder may raise anything: OSError, SyntaxError, struct.error, ValueError.
    except Exception as error:
        raise UnreadableError(str(error) or type(error).__name__) from error


def square_of(pixels: NDArray[Any], size: int) -> NDArray[np.uint8]:
    """Return an array as a grey square, as `decode` does with a PNG of the same pixels.

    Args:
        pixels: (height, width) or (height, width, channels) with 1, 3 or 4 channels; uint8, uint16, or another integer type
            with values from 0 to 255.
        size: Side of the square in pixels.

    Returns:
        uint8 (size, size).

    Raises:
        UnreadableError: The array has another shape, type or range.
    """
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
    if not is_image or not pixels.size:
        raise UnreadableError(
            f"an array of shape {pixels.shape}; expected (height, width) or (height, width, channels)"
        )
    if pixels.shape[0] * pixels.shape[1] > MOST_PIXELS:
        raise UnreadableError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels are too many; at most {MOST_PIXELS:,}")
    if pixels.dtype.kind not in "ui":
        raise UnreadableError(f"an array of {pixels.dtype}; expected uint8 or uint16")
    if pixels.dtype not in (np.uint8, np.uint16):
        if pixels.min() < 0 or pixels.max() > 255:
            raise UnreadableError(f"an array of {pixels.dtype} with values beyond 0 to 255; expected uint8 or uint16")
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    return _square(_grey(Image.fromarray(pixels), 1), size)


def _format(encoded: bytes, name: str | None) -> str:
    """Return the format of the content, and check that it is the one that the file's suffix claims."""
    if encoded[:2] == b"\xff\xd8":
        actual = "JPEG"
    elif encoded[:8] == b"\x89PNG\r\n\x1a\n":
        actual = "PNG"
    elif encoded[128:132] == PREAMBLE:
        actual = "DICOM"
    else:
        raise UnreadableError("neither a JPEG nor a PNG nor a DICOM")
    if name is None:
        return actual
    suffix = PurePosixPath(name).suffix.lower()
    claimed = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}.get(suffix, "DICOM")
    if actual != claimed:
        raise UnreadableError(f"is a {actual}, though its name says {claimed}")
    return actual


def _scales(image: Image.Image, sizes: Sequence[int]) -> list[int]:
    """Return the factor by which the decoder may scale down for each size."""
    if image.format != "JPEG":
        return [1] * len(sizes)
    return [max(scale for scale in (1, 2, 4, 8) if scale == 1 or min(image.size) >= 2 * size * scale) for size in sizes]


def _open_image(encoded: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except UnidentifiedImageError:
        raise UnreadableError("neither a JPEG nor a PNG") from None
    if image.width * image.height > MOST_PIXELS:
        raise UnreadableError(f"{image.width} x {image.height} pixels are too many; at most {MOST_PIXELS:,}")
    return image


def _grey(image: Image.Image, scale: int) -> Image.Image:
    """Return the image as 8-bit grey, scaled down by `scale` if it is a JPEG."""
    image.draft("L", (image.width // scale, image.height // scale))
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        transparent = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", transparent.size, "black"), transparent).convert("L")
    return image.convert("L")


def _square(grey: Image.Image, size: int) -> NDArray[np.uint8]:
    return np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR))
