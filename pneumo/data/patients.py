"""The patient of each picture of a folder or a zip, and how it is known.

`patients.csv` states it, or else the DICOM header, or else the name tells it. If nothing does, the picture counts as a patient
of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pneumo.data.archive import Archive
from pneumo.data.dicom_patients import SUFFIXES, read_patients
from pneumo.data.patient_names import Patient, patients_by_name
from pneumo.data.patients_table import TABLE, read_patients_table

HEADERS = "DICOM headers"


def identify_patients(
    archive: Archive,
    files: Mapping[str, str],
    digests: Mapping[str, str],
    classes: Sequence[str],
    root: str,
    path: str,
) -> tuple[dict[str, Patient], list[str]]:
    """Return the patients by picture name, and lines for people.

    Args:
        archive: The files.
        files: The archive's file of each picture name.
        digests: The content digests by file.
        classes: The names of the class folders.
        root: The folder of the layout, "" for the archive itself.
        path: The archive's path, for errors.

    Raises:
        RequestError: `patients.csv` is wrong, pydicom is missing, a file cannot be read, or the cache cannot be written.
    """
    table = read_patients_table(archive, root, files, path)
    notes = list(table.notes)
    if table.patients and len(table.patients) < len(files):
        notes.append(f"{TABLE}: {len(files) - len(table.patients):,} of {len(files):,} pictures are not in it")
    dicom = {file: digests[file] for file in files.values() if PurePosixPath(file).suffix.lower() in {*SUFFIXES, ""}}
    by_file = read_patients(dicom, archive.read)
    if len(by_file) > 1 and len(set(by_file.values())) == 1:
        notes.append(f"all {len(by_file):,} DICOM files have the same PatientID, so it tells no patient")
        by_file = {}
    return {name: Patient(name, "") for name in files} | patients_by_name(files, classes) | {
        name: Patient(by_file[file], HEADERS) for name, file in files.items() if file in by_file
    } | {name: Patient(patient, TABLE) for name, patient in table.patients.items()}, notes
