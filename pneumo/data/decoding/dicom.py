"""The pixels of a DICOM file, as a viewer displays them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, MutableSequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .greys import WIDTHS, grey_range, to_8_bit
from .unreadable import UnreadableError

if TYPE_CHECKING:
    from pydicom import Dataset

PREAMBLE = b"DICM"
"""The bytes at offset 128 of every DICOM file (PS3.10, 7.1)."""

_REQUIRED = (
    "Rows",
    "Columns",
    "PhotometricInterpretation",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "PixelData",
)
_OPTIONAL = (
    "NumberOfFrames",
    "HighBit",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
)


def grey_of(encoded: bytes, most_pixels: int) -> tuple[NDArray[np.uint8], str]:
    """Decode a DICOM file to what a viewer displays.

    The modality's table or rescale and then the first VOI table or window are applied. Without either of the latter, BitsStored
    is the range if it is less than BitsAllocated. Otherwise it says nothing, and the values decide (`grey_range`). MONOCHROME1
    is inverted, so that air is dark (PS3.3, C.7.6.3.1.2). Padding does not count for the range, and is black. An element that
    is present and empty counts as absent.

    Returns:
        The pixels, uint8 (rows, columns), and the mode, for example `MONOCHROME1 12 bit`.

    Raises:
        UnreadableError: The file has no single grey picture, one of more than `most_pixels` pixels, or an element that cannot
            be applied.
        ImportError: pydicom is not installed.
    """
    pydicom = pydicom_package()
    header = pydicom.dcmread(io.BytesIO(encoded))
    _drop_empty(header, (*_REQUIRED, *_OPTIONAL))
    _check(header, most_pixels)
    mode = str(header.PhotometricInterpretation)
    stored = _stored_values(header)
    padding = _padding(stored, header)
    values, black, white = _modality_values(stored, stored[~padding], header)
    if table := _table(header, "VOILUTSequence"):
        grey = to_8_bit(*_look_up(values, table))
    elif window := _window(header):
        grey = _windowed(values, *window, str(header.get("VOILUTFunction", "LINEAR")))
    else:
        grey = to_8_bit(values, black, white)
    if mode == "MONOCHROME1":
        grey = 255 - grey
    grey[padding] = 0
    return grey, f"{mode} {header.BitsStored} bit"


def _drop_empty(data: Dataset, keywords: Iterable[str]) -> None:
    """Delete the named elements that have no value. Raises `UnreadableError` for one whose value cannot be read."""
    for keyword in keywords:
        try:
            if keyword in data and is_empty(data[keyword].value):
                del data[keyword]
        except Exception as error:  # pydicom converts a value when it is asked for, and may raise anything
            raise UnreadableError(f"{keyword} cannot be read: {error}") from None


def is_empty(value: Any) -> bool:
    """Return whether an element of this value is present without one: nothing, blanks, or only such components."""
    if isinstance(value, MutableSequence):  # the values of a multi-valued element, or the items of a sequence
        return all(is_empty(each) for each in value)
    return value is None or value == b"" or (isinstance(value, str) and not value.strip(" \0"))


def _check(header: Dataset, most_pixels: int) -> None:
    missing = [keyword for keyword in _REQUIRED if keyword not in header]
    if missing:
        raise UnreadableError(f"a DICOM without a picture: {missing[0]} is missing")
    if int(header.get("NumberOfFrames", 1)) != 1:
        raise UnreadableError(f"a DICOM of {header.NumberOfFrames} frames; expected one picture")
    if header.Rows * header.Columns > most_pixels:
        raise UnreadableError(f"{header.Columns} x {header.Rows} pixels are too many; at most {most_pixels:,}")
    if header.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableError(f"a DICOM of {header.PhotometricInterpretation}; expected MONOCHROME1 or MONOCHROME2")


def _stored_values(header: Dataset) -> NDArray[Any]:
    """Return the stored values without the other bits of their cells, which belong to overlays or to nothing."""
    from pydicom.pixels.utils import pixel_array

    # pydicom would drop those bits too, but in silence, and from the wrong side if HighBit puts the value elsewhere.
    cells: NDArray[Any] = pixel_array(header, correct_unused_bits=False)
    bits, cell = int(header.BitsStored), 8 * cells.dtype.itemsize
    high_bit = bits - 1
    if not header.file_meta.TransferSyntaxUID.is_encapsulated:
        high_bit = int(header.get("HighBit", high_bit))
    if not bits <= high_bit + 1 <= cell:
        raise UnreadableError(f"HighBit is {high_bit}; expected {bits - 1} to {cell - 1}, with {bits} bits stored")
    # The first shift drops the bits above the value. The second one drops those below, and keeps the sign.
    stored: NDArray[Any] = (cells << (cell - 1 - high_bit)) >> (cell - bits)
    in_use = any(
        header.get((group, 0x0102), None) and header[group, 0x0102].value for group in range(0x6000, 0x6020, 2)
    )
    if high_bit == bits - 1 and not in_use:
        beyond = (stored != cells) & ((cells < 0) | (cells >= 2**bits))
        if beyond.any():
            raise UnreadableError(f"a stored value of {cells[beyond].flat[0]} in {bits} bits; BitsStored is wrong")
    return stored


def _padding(stored: NDArray[Any], header: Dataset) -> NDArray[np.bool_]:
    """Return which values only fill up the rectangle: none of the picture itself is equal to them (PS3.3, C.7.5.1.1.2)."""
    if "PixelPaddingValue" not in header:
        return np.zeros(stored.shape, np.bool_)
    value = int(header.PixelPaddingValue)
    low, high = sorted((value, int(header.get("PixelPaddingRangeLimit", value))))
    padding: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return padding & (not padding.all())


def _modality_values(stored: NDArray[Any], picture: NDArray[Any], header: Dataset) -> tuple[NDArray[Any], float, float]:
    """Return the values after the modality's table or rescale, and the ones that are black and white without a window.

    Args:
        stored: The stored values.
        picture: Those that are not padding.
        header: The file's elements.
    """
    if table := _table(header, "ModalityLUTSequence"):
        return _look_up(stored, table)
    slope, intercept = _number(header, "RescaleSlope", 1.0), _number(header, "RescaleIntercept", 0.0)
    if not slope:
        raise UnreadableError("RescaleSlope is 0, which makes all values equal; expected another number")
    bits, lowest, highest = int(header.BitsStored), int(picture.min()), int(picture.max())
    stated = bits < header.BitsAllocated or bits <= WIDTHS[0]
    black, white = grey_range(
        lowest, highest, bits if stated else None, signed=bool(header.PixelRepresentation) and (stated or lowest < 0)
    )
    low, high = sorted((black * slope + intercept, white * slope + intercept))
    return stored * slope + intercept, low, high


def _table(header: Dataset, keyword: str) -> Dataset | None:
    """Return the first lookup table of a sequence that has one."""
    for item in header.get(keyword, ()):
        _drop_empty(item, ("LUTDescriptor", "LUTData"))
        if "LUTDescriptor" in item and "LUTData" in item:
            item_of_table: Dataset = item
            return item_of_table
    return None


def _look_up(values: NDArray[Any], table: Dataset) -> tuple[NDArray[Any], float, float]:
    """Return the values that a lookup table gives (PS3.3, C.11.1.1), and the ones that are black and white.

    pydicom's own functions refuse a modality's table of 12 bits, and lose the index into a table of 8 bits beyond 255.
    """
    descriptor = np.atleast_1d(table.LUTDescriptor)
    if len(descriptor) != 3:
        raise UnreadableError(f"LUTDescriptor has {len(descriptor)} values; expected 3")
    count, first, bits = (int(number) for number in descriptor)
    entries = table.LUTData
    if isinstance(entries, bytes):
        one_byte = len(entries) <= (count or 2**16)
        order = ">" if table.original_encoding[1] is False else "<"
        entries = np.frombuffer(entries, np.uint8 if one_byte else f"{order}u2")
    entries = np.atleast_1d(np.asarray(entries, np.int64))[: count or 2**16]
    black, white = grey_range(int(entries.min()), int(entries.max()), bits if bits < WIDTHS[-1] else None)
    index = np.rint(values).astype(np.int64) - first
    return entries[np.clip(index, 0, len(entries) - 1)], black, white


def _window(header: Dataset) -> tuple[Any, Any] | None:
    """Return center and width of the first window that has both, or None."""
    centers, widths = (
        value if isinstance(value, MutableSequence) else [value]
        for value in (header.get("WindowCenter"), header.get("WindowWidth"))
    )
    for center, width in zip(centers, widths, strict=False):
        if not is_empty(center) and not is_empty(width):
            _check_number("WindowCenter", center)
            _check_number("WindowWidth", width)
            return center, width
    return None


def _windowed(values: NDArray[Any], center: Any, width: Any, function: str) -> NDArray[np.uint8]:
    """Return the values as a window displays them. Raises `ValueError` for a width or function that cannot be applied."""
    from pydicom import Dataset
    from pydicom.pixels.processing import apply_windowing

    # With these elements pydicom's output range is 0 to 255. From the file's own it would invert a negative slope.
    window = Dataset()
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = center, width, function
    return to_8_bit(np.asarray(apply_windowing(values, window)), 0, 255)


def _number(header: Dataset, keyword: str, default: float) -> float:
    value = header.get(keyword, default)
    _check_number(keyword, value)
    return float(value)


def _check_number(keyword: str, value: Any) -> None:
    try:
        finite = math.isfinite(float(value))
    except (TypeError, ValueError):
        finite = False
    if not finite:
        raise UnreadableError(f"{keyword} is {str(value)!r}; expected a number")


def pydicom_package() -> Any:
    """Return the module `pydicom`. Raises `ImportError` with the command that installs it."""
    try:
        import pydicom
    except ImportError:
        raise ImportError("reading DICOM needs pydicom: pip install 'pneumo[dicom]'") from None
    return pydicom
