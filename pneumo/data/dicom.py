"""DICOM: the patient of a file, hashed, and its pixels as a viewer shows them. The only place that knows pydicom."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumo.data.cache import cache_folder, replacing, unwritable
from pneumo.data.pictures import UnreadableError
from pneumo.spec.errors import RequestError

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = (".dcm", ".dicom")
PREAMBLE = b"DICM"
"""At byte 128 of every DICOM file (PS3.10, 7.1)."""

_PATIENTS = "dicom.json"


def patients_in(digests: Mapping[str, str], read: Callable[[str, str | None], bytes]) -> dict[str, str]:
    """The patients that DICOM headers state, by file, as `dicom-` and 16 hexadecimal digits.

    `digests` are the files' content digests, `read` gives a file's bytes. The digits are of SHA-256 over PatientID and
    its issuer: the id itself goes nowhere. That is a pseudonym and no more: who knows an id can find its digits. They are
    remembered by name and content, so that a second opening reads no header. Files without an id, or that are broken, are left
    out. Raises `RequestError` where pydicom is missing.
    """
    if not digests:
        return {}
    pydicom = _pydicom()
    memory = cache_folder("patients") / _PATIENTS
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(memory.read_bytes()))

    def patient(file: str) -> str:
        # A broken file makes pydicom raise anything; what is wrong with it is said where it is decoded.
        try:
            header = pydicom.dcmread(
                io.BytesIO(read(file, digests[file])),
                stop_before_pixels=True,
                specific_tags=["PatientID", "IssuerOfPatientID"],
            )
            stated = str(header.get("PatientID") or "").strip()
            issuer = str(header.get("IssuerOfPatientID") or "").strip()
        except RequestError:
            raise
        except Exception:
            return ""
        return f"dicom-{sha256(f'{issuer}^{stated}'.encode()).hexdigest()[:16]}" if stated else ""

    keys = {file: f"{file} {digest}" for file, digest in digests.items()}
    new = [file for file in digests if keys[file] not in known]
    if new:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            known |= {keys[file]: its for file, its in zip(new, pool.map(patient, new), strict=True)}
        try:
            with replacing(memory) as out:
                out.write(json.dumps(known).encode())
        except OSError as error:
            raise unwritable(memory.parent, error) from None
    return {file: known[key] for file, key in keys.items() if known[key]}


def grey_of(encoded: bytes, most_pixels: int) -> tuple[NDArray[np.uint8], str]:
    """The picture as a viewer shows it, uint8 (rows, columns), and its mode, as `MONOCHROME1 12 bit`.

    The rescale, then the first window (or lookup table) are applied; where there is none, the darkest and the brightest
    pixel become 0 and 255. MONOCHROME1 is turned over, so that air is dark (PS3.3, C.7.6.3.1.2). Raises
    `UnreadableError`, and `RequestError` where pydicom is missing.
    """
    pydicom = _pydicom()
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    header = pydicom.dcmread(io.BytesIO(encoded))
    _check(header, most_pixels)
    mode = str(header.PhotometricInterpretation)
    values = np.asarray(apply_modality_lut(header.pixel_array, header))
    if "WindowCenter" in header or "VOILUTSequence" in header:
        values = np.asarray(apply_voi_lut(values, header))
        low, high = _shown_range(header, values)
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
        raise UnreadableError(f"a DICOM of {header.NumberOfFrames} frames; wants one picture")
    if header.Rows * header.Columns > most_pixels:
        raise UnreadableError(f"{header.Columns} x {header.Rows} pixels are too many; at most {most_pixels:,}")
    if header.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableError(f"a DICOM of {header.PhotometricInterpretation}; wants grey, MONOCHROME1 or MONOCHROME2")


def _shown_range(header: Dataset, values: NDArray[Any]) -> tuple[float, float]:
    """What becomes 0 and 255: the whole range that a window or lookup table gives, not what this picture has of it."""
    if "VOILUTSequence" in header:
        depth = int(header.VOILUTSequence[0].LUTDescriptor[2])
        return 0.0, float(2**depth - 1)
    stored = int(header.BitsStored)
    first = -(2 ** (stored - 1)) if header.PixelRepresentation else 0
    slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    low, high = sorted((first * slope + intercept, (first + 2**stored - 1) * slope + intercept))
    return low, high


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise RequestError("reading DICOM wants pydicom: pip install 'pneumo[dicom]'") from None
    return pydicom
