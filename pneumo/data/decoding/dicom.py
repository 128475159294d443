"""The pixels of a DICOM file, as a viewer displays them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .unreadable import UnreadableError

if TYPE_CHECKING:
    from pydicom import Dataset

PREAMBLE = b"DICM"
"""The bytes at offset 128 of every DICOM file (PS3.10, 7.1)."""


def grey_of(encoded: bytes, most_pixels: int) -> tuple[NDArray[np.uint8], str]:
    """Decode a DICOM file to what a viewer displays.

    The rescale and then the first window or lookup table are applied. Without either, the darkest and the brightest pixel
    become 0 and 255. MONOCHROME1 is inverted, so that air is dark (PS3.3, C.7.6.3.1.2).

    Returns:
        The pixels, uint8 (rows, columns), and the mode, for example `MONOCHROME1 12 bit`.

    Raises:
        UnreadableError: The file has no single grey picture, or one of more than `most_pixels` pixels.
        ImportError: pydicom is not installed.
    """
    pydicom = pydicom_package()
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    header = pydicom.dcmread(io.BytesIO(encoded))
    _check(header, most_pixels)
    mode = str(header.PhotometricInterpretation)
    values = np.asarray(apply_modality_lut(header.pixel_array, header))
    if "WindowCenter" in header or "VOILUTSequence" in header:
        values = np.asarray(apply_voi_lut(values, header))
        low, high = _display_range(header)
    else:
        low, high = float(values.min()), float(values.max())
    scaled = (values.astype(np.float64) - low) * (255 / max(high - low, 1e-9))
    if mode == "MONOCHROME1":
        scaled = 255 - scaled
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8), f"{mode} {header.BitsStored} bit"


def _check(header: Dataset, most_pixels: int) -> None:
    missing = [key for key in ("Rows", "Columns", "PixelData", "PhotometricInterpretation") if key not in header]
    if missing:
        raise UnreadableError(f"a DICOM without a picture: {missing[0]} is missing")
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise UnreadableError(f"a DICOM of {header.NumberOfFrames} frames; expected one picture")
    if header.Rows * header.Columns > most_pixels:
        raise UnreadableError(f"{header.Columns} x {header.Rows} pixels are too many; at most {most_pixels:,}")
    if header.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableError(f"a DICOM of {header.PhotometricInterpretation}; expected MONOCHROME1 or MONOCHROME2")


def _display_range(header: Dataset) -> tuple[float, float]:
    """Return the values that become 0 and 255: the whole range of the window or lookup table, not that of this picture."""
    if "VOILUTSequence" in header:
        depth = int(header.VOILUTSequence[0].LUTDescriptor[2])
        return 0.0, float(2**depth - 1)
    bits = int(header.BitsStored)
    first = -(2 ** (bits - 1)) if header.PixelRepresentation else 0
    slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    low, high = sorted((first * slope + intercept, (first + 2**bits - 1) * slope + intercept))
    return low, high


def pydicom_package() -> Any:
    """Return the module `pydicom`. Raises `ImportError` with the command that installs it."""
    try:
        import pydicom
    except ImportError:
        raise ImportError("reading DICOM needs pydicom: pip install 'pneumo[dicom]'") from None
    return pydicom
