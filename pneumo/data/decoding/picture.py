"""Encoded pictures, and arrays, to 8-bit grey squares.

Pictures of 8 bits, of any mode and size, are read; of more bits, greys are (see `greys`). Each size is made in two steps. First
the JPEG decoder itself scales down by 2, 4 or 8, as long as the picture stays at least twice as large as the square (Pillow's
draft mode, and the factor that its `thumbnail` uses). This saves most of the decoding time for originals of 1,300 x 1,000. Then
a triangle filter as wide as the step down (Pillow's BILINEAR) makes the square. It is antialiased, and unlike bicubic or
Lanczos it cannot overshoot: a bright halo along ribs and heart would be structure that is not in the picture.

A square does not depend on the other sizes that are made with it, so caches that were filled in any order are equal.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from .dicom import PREAMBLE, grey_of
from .greys import WIDTHS, grey_range, to_8_bit
from .unreadable import UnreadableError

RECIPE = 2
"""Version of the pixels that `decode` returns. Increase it when they change; then all pictures are decoded again."""

MOST_PIXELS = 89_478_485
"""Largest number of pixels that is decoded: Pillow's own bound against decompression bombs."""

FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".dcm": "DICOM",
    ".dicom": "DICOM",
}
"""The format that a file's suffix claims. A file with another suffix, or without one, can only be a DICOM."""

_SIGNATURES = (
    (0, b"\xff\xd8", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    # A DICOM may begin as a TIFF does, so that it can be read as both.
    (128, PREAMBLE, "DICOM"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WEBP"),
)
"""The bytes that tell a format: offset, bytes, format."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How a picture is turned upright, by its EXIF orientation."""

_SIDEWAYS = (5, 6, 7, 8)
"""The EXIF orientations that exchange width and height."""

_WHITE_IS_ZERO = 0
"""The TIFF photometric interpretation in which 0 is white."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded picture.

    Attributes:
        width: The picture's own width in pixels, upright; `height` likewise.
        mode: The picture's mode, as Pillow names it.
        squares: An array uint8 (size, size) for each requested size.
    """

    width: int
    height: int
    mode: str
    squares: list[NDArray[np.uint8]]


def decode(encoded: bytes, sizes: Sequence[int], name: str | None = None) -> Decoded:
    """Decode a picture to grey squares.

    The picture is turned upright by its EXIF orientation and stretched to the square, as the tutorial does. Greys of more
    than 8 bits are scaled from the range of `greys.grey_range`, and transparent pixels are put on black.

    Args:
        encoded: The bytes of a file in one of `FORMATS`.
        sizes: Sides of the squares in pixels.
        name: The file's name, if it has one. The content must have the format that its suffix claims.

    Raises:
        UnreadableError: The content is broken, not what the name claims, several pictures, or greys of unknown range.
        ImportError: The file is a DICOM, and pydicom is not installed.
    """
    try:
        format_ = _format(encoded, name)
        if format_ == "DICOM":
            pixels, mode = grey_of(encoded, MOST_PIXELS)
            displayed = Image.fromarray(pixels)
            return Decoded(displayed.width, displayed.height, mode, [_square(displayed, size) for size in sizes])
        image = _open_image(encoded, format_)
        orientation = _orientation(image)
        width, height = image.size[::-1] if orientation in _SIDEWAYS else image.size
        mode = image.mode
        scales = _scales(image, sizes)
        grey: dict[int, Image.Image] = {}
        for scale in scales:
            if scale not in grey:
                # An opened image can be decoded at one scale only.
                plain = _grey(_open_image(encoded, format_) if grey else image, scale, encoded)
                grey[scale] = plain.transpose(_TURNS[orientation]) if orientation in _TURNS else plain
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
        pixels: (height, width) or (height, width, channels) with 1, 3 or 4 channels; whole numbers from 0 to 65535 of any
            type. Beyond 255, their range is that of a picture of 16 bits.
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
        raise UnreadableError(
            f"an array of {pixels.dtype}; expected whole numbers from 0 to 65535, such as uint8 or uint16"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype != np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = np.concatenate([_scaled(pixels[..., :3]), _scaled(pixels[..., 3:])], axis=-1)
    elif pixels.dtype != np.uint8:
        pixels = _scaled(pixels)
    return _square(_8_bit_grey(Image.fromarray(pixels)), size)


def _scaled(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values of up to 16 bits as 8 bits."""
    return to_8_bit(values, *grey_range(int(values.min()), int(values.max())))


def _format(encoded: bytes, name: str | None) -> str:
    """Return the format of the content, and check that it is the one that the file's suffix claims."""
    formats = [format_ for at, signature, format_ in _SIGNATURES if encoded[at : at + len(signature)] == signature]
    if not formats:
        raise UnreadableError("neither a JPEG nor a PNG, TIFF, BMP, GIF, WebP or DICOM")
    actual = formats[0]
    if name is None:
        return actual
    claimed = FORMATS.get(PurePosixPath(name).suffix.lower(), "DICOM")
    if actual != claimed:
        raise UnreadableError(f"is a {actual}, though its name says {claimed}")
    return actual


def _scales(image: Image.Image, sizes: Sequence[int]) -> list[int]:
    """Return the factor by which the decoder may scale down for each size."""
    if image.format != "JPEG":
        return [1] * len(sizes)
    return [max(scale for scale in (1, 2, 4, 8) if scale == 1 or min(image.size) >= 2 * size * scale) for size in sizes]


def _open_image(encoded: bytes, format_: str) -> Image.Image:
    """Open a picture. All but a JPEG, which can be decoded at several scales, is loaded too.

    Raises:
        UnreadableError: The picture is too large, one of several in the file, or has colours of which Pillow loses bits.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=[format_])
    except UnidentifiedImageError:
        raise UnreadableError(f"not a {format_} that can be read") from None
    if image.width * image.height > MOST_PIXELS:
        raise UnreadableError(f"{image.width} x {image.height} pixels are too many; at most {MOST_PIXELS:,}")
    # The further pictures of a multi-picture JPEG are previews of its first one.
    if format_ != "JPEG" and getattr(image, "is_animated", False):
        raise UnreadableError(f"a {format_} of several pictures; expected one picture")
    if format_ != "JPEG":
        deep_colours = ";16" in str(image.tile[:1]) and image.mode in ("RGB", "RGBA")
        image.load()
        if deep_colours:
            _check_colours(image, encoded)
    return image


def _check_colours(image: Image.Image, encoded: bytes) -> None:
    """Raise `UnreadableError` if colours of 16 bits use fewer. Pillow keeps the upper 8 bits only, and they would be dark."""
    brightest = 256 * int(np.asarray(image)[..., :3].max()) + 255
    bits = _stated_bits(image, encoded, brightest)
    if grey_range(0, brightest, bits)[1] < 2 ** WIDTHS[-1] - 1:
        raise UnreadableError(
            f"colours of 16 bits with values up to {brightest} only, which cannot be read exactly; "
            f"expected greys of 16 bits, or colours of 8"
        )


def _stated_bits(image: Image.Image, encoded: bytes, brightest: int) -> int | None:
    """Return how many bits of a picture of 16 bits are used, if the file says so: a PNG's sBIT, a TIFF's BitsPerSample.

    16 says nothing: programs write the width of the cell, whatever is in it.
    The values of a PNG with sBIT should be scaled up to 16 bits. Many programs leave them as they are. If all of them are
    within the stated bits, they were not scaled up, or the picture would be black.
    """
    if image.format == "TIFF":
        bits = int(_tiff_tag(image, ExifTags.Base.BitsPerSample, (16,))[0])
        return bits if bits < WIDTHS[-1] else None
    at = 8
    while at + 12 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, at)
        if kind == b"sBIT" and length and 0 < (bits := encoded[at + 8]) < WIDTHS[-1]:
            return bits if brightest < 2**bits else WIDTHS[-1]
        if kind == b"IDAT":
            break
        at += 12 + length
    return None


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    return getattr(image, "tag_v2", {}).get(tag, default)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8. Loading a TIFF has turned it already."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    # For broken EXIF Pillow may raise anything. Without an orientation, the picture is as it is stored.
    except Exception:
        return 1


def _grey(image: Image.Image, scale: int, encoded: bytes) -> Image.Image:
    """Return the image as 8-bit grey, scaled down by `scale` if it is a JPEG."""
    image.draft("L", (image.width // scale, image.height // scale))
    if image.mode.startswith("F"):
        raise UnreadableError("greys as floating-point numbers, whose range is not known; expected 8 or 16 bits")
    return _deep_grey(image, encoded) if image.mode.startswith("I") else _8_bit_grey(image)


def _deep_grey(image: Image.Image, encoded: bytes) -> Image.Image:
    """Return an image of greys of more than 8 bits as 8-bit grey."""
    values = np.asarray(image)
    transparent = (
        np.equal(values, image.info["transparency"]) if "transparency" in image.info else np.zeros_like(values, bool)
    )
    opaque = values[~transparent] if not transparent.all() else values
    lowest, brightest = int(opaque.min()), int(opaque.max())
    grey = to_8_bit(values, *grey_range(lowest, brightest, _stated_bits(image, encoded, brightest)))
    if _tiff_tag(image, ExifTags.Base.PhotometricInterpretation, None) == _WHITE_IS_ZERO:
        grey = 255 - grey  # Pillow inverts those of 8 bits only
    grey[transparent] = 0
    return Image.fromarray(grey)


def _8_bit_grey(image: Image.Image) -> Image.Image:
    """Return an image of at most 8 bits for each channel as 8-bit grey, with black behind what is transparent."""
    if image.has_transparency_data:
        transparent = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", transparent.size, "black"), transparent).convert("L")
    return image.convert("L")


def _square(grey: Image.Image, size: int) -> NDArray[np.uint8]:
    return np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR))
