"""Training and validation, cut from the training pool by patient and stratified by class.

The cut depends on the pictures' names, the share and the seed alone: not on the order in which a file system lists them,
not on the machine. A patient's pictures stand on one side. A patient with pictures of both classes counts as PNEUMONIA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pneumo.data.pictures import Picture, Source
from pneumo.spec.errors import RequestError
from pneumo.spec.result import CLASSES

RULES = 1
"""Version of the rules by which patients are told and cut; a change that moves a picture wants a new one."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Count:
    """How many pictures, and how many patients they are of, stand in one part with one label."""

    part: Literal["training", "validation", "test"]
    label: int
    pictures: int
    patients: int


def split(pictures: Sequence[Picture], share: float, seed: int) -> tuple[Indices, Indices]:
    """Training and validation: sorted indices into `pictures`, int64.

    `share` of each class's patients, at least one and never all, goes to validation. Raises `RequestError` where a class
    has fewer than two patients.
    """
    from sklearn.model_selection import train_test_split

    label_of: dict[str, int] = {}
    for picture in pictures:
        label_of[picture.patient] = max(picture.label, label_of.get(picture.patient, 0))
    validated: set[str] = set()
    # Class by class: scikit-learn's own stratification may give a small class no place in validation at all.
    for label, name in enumerate(CLASSES):
        patients = sorted(patient for patient, its in label_of.items() if its == label)
        if len(patients) < 2:
            raise RequestError(
                f"{name}: pictures of {len(patients)} patients; a split by patient wants at least 2 patients of each class"
            )
        size = min(max(1, round(share * len(patients))), len(patients) - 1)
        validated.update(train_test_split(patients, test_size=size, random_state=seed)[1])
    inside = np.fromiter((picture.patient in validated for picture in pictures), bool, len(pictures))
    return np.flatnonzero(~inside).astype(np.int64), np.flatnonzero(inside).astype(np.int64)


def cut(source: Source, share: float, seed: int) -> tuple[Count, ...]:
    """What `split` gives, counted by part and class, and the sealed test pictures; nothing is decoded."""
    return count(source, *split(source.pictures, share, seed))


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
