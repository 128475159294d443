"""The patients of DICOM files, as pseudonyms. `decoding` reads the pixels."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from pneumo.data.cache import cache_error, cache_folder, replacing
from pneumo.data.decoding import is_empty, pydicom_package
from pneumo.spec.cores import usable_cores
from pneumo.spec.errors import RequestError

SUFFIXES = (".dcm", ".dicom")
_CACHE_FILE = "dicom.json"


def read_patients(digests: Mapping[str, str], read: Callable[[str, str | None], bytes]) -> dict[str, str]:
    """Return the patients of DICOM files by file, as `dicom-` and 16 hexadecimal digits.

    The digits are of SHA-256 over PatientID and its issuer; the id itself is not stored. They are a pseudonym, not an
    anonymisation: anyone who knows an id can compute its digits. They are cached by file name and content, so that the
    headers are read once.

    Args:
        digests: Content digests by file.
        read: Returns the bytes of a file, given its name and digest.

    Returns:
        A patient for each file, without the files that have no id or are broken.

    Raises:
        RequestError: pydicom is not installed, a file cannot be read, or the cache cannot be written.
    """
    if not digests:
        return {}
    try:
        pydicom = pydicom_package()
    except ImportError as error:
        raise RequestError(str(error)) from None
    path = cache_folder("patients") / _CACHE_FILE
    cached: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):  # the cache is missing or damaged
        cached = dict(json.loads(path.read_bytes()))

    def read_patient(file: str) -> str:
        try:
            header = pydicom.dcmread(
                io.BytesIO(read(file, digests[file])),
                stop_before_pixels=True,
                specific_tags=["PatientID", "IssuerOfPatientID"],
            )
            patient_id, issuer = (
                "" if is_empty(value) else str(value).strip()
                for value in (header.get("PatientID"), header.get("IssuerOfPatientID"))
            )
        except RequestError:
            raise
        # For a broken file pydicom may raise anything. Decoding it later reports what is wrong.
        except Exception:
            return ""
        return f"dicom-{sha256(f'{issuer}^{patient_id}'.encode()).hexdigest()[:16]}" if patient_id else ""

    keys = {file: f"{file} {digest}" for file, digest in digests.items()}
    uncached = [file for file in digests if keys[file] not in cached]
    if uncached:
        with ThreadPoolExecutor(usable_cores()) as threads:
            patients = threads.map(read_patient, uncached)
            cached |= {keys[file]: patient for file, patient in zip(uncached, patients, strict=True)}
        try:
            with replacing(path) as out:
                out.write(json.dumps(cached).encode())
        except OSError as error:
            raise cache_error(path.parent, error) from None
    return {file: cached[key] for file, key in keys.items() if cached[key]}
