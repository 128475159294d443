"""Training and validation, cut from the training pool by patient and stratified by class.

The cut depends on the pictures' names and content, the share and the seed alone: not on the order in which a file
system lists them, not on the machine. A patient's pictures stand on one side, and so do equal pictures of two patients.
A patient with pictures of both classes counts as PNEUMONIA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pneumo.data.pictures import Picture, Source
from pneumo.spec.errors import RequestError
from pneumo.spec.result import CLASSES

RULES = 2
"""Version of the rules by which patients are told and cut; a change that moves a picture wants a new one."""

FEWEST_TO_CHOOSE_BY = 30
"""Pictures of each class that a `val` folder needs to be kept: of fewer, sensitivity has a standard error beyond 0.05 even
where it is 0.9."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Count:
    """How many pictures, and how many patients they are of, stand in one part with one label."""

    part: Literal["training", "validation", "test"]
    label: int
    pictures: int
    patients: int


def split(
    pictures: Sequence[Picture], share: float, seed: int, kept: frozenset[str] = frozenset()
) -> tuple[Indices, Indices]:
    """Training and validation: sorted indices into `pictures`, int64.

    Validation is `kept`, the names that the source itself sets aside, or where there are none the patients of
    `patients_cut`. Raises `RequestError` as that does.
    """
    if kept:
        inside = np.fromiter((picture.name in kept for picture in pictures), bool, len(pictures))
    else:
        patients = patients_cut(pictures, share, seed)
        inside = np.fromiter((picture.patient in patients for picture in pictures), bool, len(pictures))
    return np.flatnonzero(~inside).astype(np.int64), np.flatnonzero(inside).astype(np.int64)


def patients_cut(pictures: Sequence[Picture], share: float, seed: int) -> frozenset[str]:
    """The patients set aside: `share` of those of each class, at least one and never all.

    Patients who have a picture in common, byte for byte, are taken as one: they go to the same side. Raises
    `RequestError` where a class has fewer than two patients.
    """
    from sklearn.model_selection import train_test_split

    one = _joined(pictures)
    label_of: dict[str, int] = {}
    for picture in pictures:
        label_of[one[picture.patient]] = max(picture.label, label_of.get(one[picture.patient], 0))
    aside: set[str] = set()
    # Class by class: scikit-learn's own stratification may give a small class no place in validation at all.
    for label, name in enumerate(CLASSES):
        patients = sorted(patient for patient, its in label_of.items() if its == label)
        if len(patients) < 2:
            raise RequestError(
                f"{name}: pictures of {len(patients)} patients; a split by patient wants at least 2 patients of each class"
            )
        size = min(max(1, round(share * len(patients))), len(patients) - 1)
        aside.update(train_test_split(patients, test_size=size, random_state=seed)[1])
    return frozenset(patient for patient, first in one.items() if first in aside)


def _joined(pictures: Sequence[Picture]) -> dict[str, str]:
    """Each patient, and the first by name of those who are joined with them by pictures in common."""
    first = {picture.patient: picture.patient for picture in pictures}

    def root(patient: str) -> str:
        while first[patient] != patient:
            patient = first[patient]
        return patient

    owner: dict[str, str] = {}
    for picture in pictures:
        one, other = sorted((root(picture.patient), root(owner.setdefault(picture.digest, picture.patient))))
        first[other] = one
    return {patient: root(patient) for patient in first}


def count_split(source: Source, share: float, seed: int) -> tuple[Count, ...]:
    """What `split` gives, counted by part and class, and the sealed test pictures; nothing is decoded."""
    return count(source, *split(source.pictures, share, seed, source.validation))


def count(source: Source, training: Indices, validation: Indices) -> tuple[Count, ...]:
    """The counts of a cut, part by part, NORMAL before PNEUMONIA."""
    parts: tuple[tuple[Literal["training", "validation", "test"], list[Picture]], ...] = (
        ("training", [source.pictures[row] for row in training]),
        ("validation", [source.pictures[row] for row in validation]),
        ("test", list(source.sealed)),
    )
    return tuple(
        Count(part, label, len(some), len({picture.patient for picture in some}))
        for part, pictures in parts
        for label in range(len(CLASSES))
        for some in [[picture for picture in pictures if picture.label == label]]
    )


def describe_split(description: str, counts: Sequence[Count], classes: Sequence[str]) -> str:
    """Return two lines: where the pictures come from, and how many pictures and patients each part has."""
    parts: list[str] = []
    for part, of_part in groupby(counts, key=lambda count: count.part):
        found = list(of_part)
        pictures, patients = sum(c.pictures for c in found), sum(c.patients for c in found)
        by_class = ", ".join(f"{c.pictures:,} {classes[c.label]}" for c in found)
        sealed = ", sealed" if part == "test" else ""
        parts.append(f"{part} {pictures:,} ({by_class}) of {patients:,} patients{sealed}")
    return f"Data: {description}\n  {'; '.join(parts)}"
