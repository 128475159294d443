"""DICOM files as bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid


def ramp(bits: int, size: int = 64) -> NDArray[Any]:
    """Return a square, uint16, that rises from 0 to the largest value of `bits` bits, left to right."""
    return np.tile(np.linspace(0, 2**bits - 1, size), (size, 1)).astype(np.uint16)


def dicom(
    pixels: NDArray[Any],
    bits: int,
    mode: str = "MONOCHROME2",
    patient: str = "",
    compression: str = "",
    **elements: object,
) -> bytes:
    """Return a DICOM file of these pixels, with further elements by keyword."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = ComputedRadiographyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.PatientID = patient
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, mode
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, bits, bits - 1, 0
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.PixelData = pixels.astype("<u2").tobytes()
    if compression:
        data.compress(compression, generate_instance_uid=False)
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()
