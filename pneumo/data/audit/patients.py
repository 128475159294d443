"""Patients who stand on both sides of a split, told apart from numbering that merely restarts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set

from pneumo.data.archive import printable
from pneumo.data.audit.findings import Finding
from pneumo.data.pictures import Picture

FEWEST, SHARE = 10, 0.5
"""Numbering restarts where at least so many numbers, and more than this share of the smaller side's, stand on both sides.

A split by patient that went wrong for some patients leaves few; numbers that begin again at 1 leave nearly all: in the public
archive 170 of the `person` numbers of the test folder."""


def in_two_parts(
    pictures: Sequence[Picture],
    parts: Mapping[str, str],
    stated: Set[str],
    val_kept: bool,
    agreeing: Set[str] = frozenset(),
) -> list[Finding]:
    """The patients of the training pool who stand in the test set too, and where val is kept those of train in val.

    `stated` are the pictures whose patient a table or a header states; of the others the file's name tells. `agreeing`
    are patients with copies on both sides, who are the same whatever the numbering.
    """
    found = _between(
        pictures, {name: "test" if part == "test" else "training" for name, part in parts.items()}, stated, agreeing
    )
    if val_kept:
        pool = [picture for picture in pictures if parts[picture.name] != "test"]
        found += _between(pool, parts, stated, agreeing)
    return found


def _between(
    pictures: Sequence[Picture], sides: Mapping[str, str], stated: Set[str], agreeing: Set[str]
) -> list[Finding]:
    names: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    schemes: dict[str, str] = {}
    for picture in pictures:
        if picture.patient == picture.name:
            continue  # a name that tells nothing is a patient of its own
        names[picture.patient][sides[picture.name]].append(picture.name)
        told = "stated" if picture.name in stated else re.sub(r"\d+$", "", picture.patient)
        schemes[picture.patient] = "stated" if schemes.get(picture.patient) == "stated" else told
    of_side: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for patient, by_side in names.items():
        for side in by_side:
            of_side[schemes[patient]][side] += 1
    found = []
    for scheme, counts in sorted(of_side.items()):
        twice = sorted(patient for patient, by_side in names.items() if schemes[patient] == scheme and len(by_side) > 1)
        fewer = min(counts.values())
        restarts = scheme != "stated" and len(twice) >= FEWEST and len(twice) > SHARE * fewer
        for patient in twice:
            if not restarts or patient in agreeing:
                found.append(_finding(patient, names[patient]))
        if restarts:
            one, other = sorted(counts)
            found.append(
                Finding(
                    "numbering-restarts",
                    "note",
                    f"{len(twice)} of {fewer} numbers {printable(scheme)}<n> stand in {one} and in {other}: the numbering "
                    f"restarts there, and they are taken as different patients (no picture agrees, but for those named)",
                )
            )
    return found


def _finding(patient: str, by_side: Mapping[str, Sequence[str]]) -> Finding:
    sides = sorted(by_side, reverse=True)
    said = " and ".join(f"{side} ({', '.join(printable(name) for name in by_side[side][:3])})" for side in sides)
    pictures = tuple(name for side in sides for name in by_side[side])
    kind = "patient-leak" if "test" in sides else "patient-in-validation"
    return Finding(kind, "fault", f"patient {printable(patient)} stands in {said}", pictures)
