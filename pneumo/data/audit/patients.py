"""Patients with pictures in two parts, distinguished from patient numbers that start again in another part."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set

from pneumo.data.archive import printable
from pneumo.data.audit.findings import Finding
from pneumo.data.patient_names import RESTARTING
from pneumo.data.pictures import Picture, describe_patients

FEWEST_SHARED, LARGEST_SHARED_SHARE = 10, 0.5
"""The numbering restarts if at least this many numbers, and more than this share of the smaller part's, are in both parts.

If a split by patient goes wrong for some patients, few numbers are in both parts. If the numbers start again at 1, nearly all
are: in the public archive, 170 of the `person` numbers of the test folder. Only numbers of that archive may restart
(`RESTARTING`). Any other patient who is known is one patient, whatever the part."""

_UNIQUE = ""
"""The numbering scheme of patients whose numbers do not restart."""


def patient_findings(
    pictures: Sequence[Picture],
    parts: Mapping[str, str],
    has_val: bool,
    patients_with_copies: Set[str] = frozenset(),
) -> list[Finding]:
    """Return the patients with pictures in both the training pool and the test set, or in both train and val.

    If there are pictures whose patient is not known, that is a finding too.

    Args:
        pictures: All pictures.
        parts: The part of each picture by name.
        has_val: Whether the `val` folder is used for validation. If not, train and val are not compared.
        patients_with_copies: Patients with copies of one picture in two parts. They are the same patient, even if the
            numbering restarts.
    """
    pool_or_test = {name: "test" if part == "test" else "training" for name, part in parts.items()}
    findings = _shared_patients(pictures, pool_or_test, patients_with_copies)
    if has_val:
        pool = [picture for picture in pictures if parts[picture.name] != "test"]
        findings += _shared_patients(pool, parts, patients_with_copies)
    if any(not picture.known_by for picture in pictures):
        findings.append(Finding("patients-unknown", "warning", f"patients: {describe_patients(pictures)}"))
    return findings


def _shared_patients(
    pictures: Sequence[Picture], parts: Mapping[str, str], patients_with_copies: Set[str]
) -> list[Finding]:
    names: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    schemes: dict[str, str] = {}
    for picture in pictures:
        if not picture.known_by:
            continue
        names[picture.patient][parts[picture.name]].append(picture.name)
        if picture.known_by not in RESTARTING:
            schemes[picture.patient] = _UNIQUE
        elif schemes.get(picture.patient) != _UNIQUE:
            schemes[picture.patient] = re.sub(r"\d+$", "", picture.patient)
    patients_in_part: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for patient, by_part in names.items():
        for part in by_part:
            patients_in_part[schemes[patient]][part] += 1
    findings = []
    for scheme, counts in sorted(patients_in_part.items()):
        shared = sorted(
            patient for patient, by_part in names.items() if schemes[patient] == scheme and len(by_part) > 1
        )
        fewer = min(counts.values())
        restarts = scheme != _UNIQUE and len(shared) >= FEWEST_SHARED and len(shared) > LARGEST_SHARED_SHARE * fewer
        findings += [
            _shared_patient(patient, names[patient])
            for patient in shared
            if not restarts or patient in patients_with_copies
        ]
        if restarts:
            first, second = sorted(counts)
            findings.append(
                Finding(
                    "numbering-restarts",
                    "note",
                    f"{len(shared)} of {fewer} numbers {printable(scheme)}<n> are in both {first} and {second}: the numbering "
                    f"restarts there, so they are different patients (except those named above, who share a picture)",
                )
            )
    return findings


def _shared_patient(patient: str, names: Mapping[str, Sequence[str]]) -> Finding:
    parts = sorted(names, reverse=True)
    listed = " and ".join(f"{part} ({', '.join(printable(name) for name in names[part][:3])})" for part in parts)
    pictures = tuple(name for part in parts for name in names[part])
    kind = "patient-leak" if "test" in parts else "patient-in-validation"
    return Finding(kind, "fault", f"patient {printable(patient)} is in {listed}", pictures)
