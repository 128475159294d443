"""DICOM: the patient of a file, hashed. `decoding` reads its pixels."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from pneumo.data.cache import cache_folder, replacing, unwritable
from pneumo.data.decoding import pydicom_package
from pneumo.spec.errors import RequestError

SUFFIXES = (".dcm", ".dicom")
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
    try:
        pydicom = pydicom_package()
    except ImportError as error:
        raise RequestError(str(error)) from None
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
