"""The split of the training pool into training and validation, by patient and stratified by class.

The split depends only on the pictures' names and content, the share and the seed. It does not depend on the order in which a
file system lists the files, or on the machine. All pictures of a patient go to the same part, and so do equal pictures of two
patients. A patient with pictures of both classes counts for the positive class. A picture whose patient is not known counts as
a patient of its own, so that a set of such pictures is split by picture.
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
"""Version of the rules that identify patients and assign them to parts. Increase it when a picture would change parts."""

FEWEST_TO_CHOOSE_BY = 30
"""Fewest pictures of each class with which a `val` folder is used for validation. With fewer, the standard error of the
sensitivity is above 0.05 even if the sensitivity is 0.9."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Count:
    """The number of pictures with one label in one part, and the number of their patients.

    `unknown` is the number of the pictures whose patient is not known. Each counts as one of `patients`.
    """

    part: Literal["training", "validation", "test"]
    label: int
    pictures: int
    patients: int
    unknown: int = 0


def split(
    pictures: Sequence[Picture],
    share: float,
    seed: int,
    validation: frozenset[str] = frozenset(),
    classes: Sequence[str] = CLASSES,
) -> tuple[Indices, Indices]:
    """Return the training and the validation part as sorted indices into `pictures`, int64.

    Args:
        pictures: The training pool.
        share: Share of the patients of each class that go to validation.
        seed: Seed of the random choice of these patients.
        validation: Names of the pictures that the source itself sets aside for validation. If there are any, they are the
            validation part, and `share` and `seed` are not used.
        classes: The names of the labels 0 and 1, for errors.

    Raises:
        RequestError: A class has fewer than two patients.
    """
    if validation:
        chosen = np.fromiter((picture.name in validation for picture in pictures), bool, len(pictures))
    else:
        patients = choose_patients(pictures, share, seed, classes)
        chosen = np.fromiter((picture.patient in patients for picture in pictures), bool, len(pictures))
    return np.flatnonzero(~chosen).astype(np.int64), np.flatnonzero(chosen).astype(np.int64)


def choose_patients(
    pictures: Sequence[Picture], share: float, seed: int, classes: Sequence[str] = CLASSES
) -> frozenset[str]:
    """Return `share` of the patients of each class, at least one and never all, chosen at random.

    Patients with a picture in common, byte for byte, are treated as one patient. Raises `RequestError` if a class has fewer
    than two patients.
    """
    from sklearn.model_selection import train_test_split

    representatives = _link_patients(pictures)
    labels: dict[str, int] = {}
    for picture in pictures:
        representative = representatives[picture.patient]
        labels[representative] = max(picture.label, labels.get(representative, 0))
    chosen: set[str] = set()
    # Each class is split separately: scikit-learn's stratification can leave a small class without any validation patient.
    for label, name in enumerate(classes):
        patients = sorted(patient for patient, patient_label in labels.items() if patient_label == label)
        if len(patients) < 2:
            both = len({representatives[p.patient] for p in pictures if p.label == label}) - len(patients)
            counted = f" ({both:,} more have pictures of {classes[1]} too and count there)" if both else ""
            raise RequestError(
                f"{name}: pictures of {len(patients)} patients{counted}; a split by patient needs at least 2 patients of each "
                f"class"
            )
        size = min(max(1, round(share * len(patients))), len(patients) - 1)
        chosen.update(train_test_split(patients, test_size=size, random_state=seed)[1])
    return frozenset(patient for patient, representative in representatives.items() if representative in chosen)


def _link_patients(pictures: Sequence[Picture]) -> dict[str, str]:
    """Map each patient to the first, by name, of the patients that are linked to it by equal pictures (union-find)."""
    parent = {picture.patient: picture.patient for picture in pictures}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            patient = parent[patient]
        return patient

    patient_of_digest: dict[str, str] = {}
    for picture in pictures:
        other = patient_of_digest.setdefault(picture.digest, picture.patient)
        first, second = sorted((root(picture.patient), root(other)))
        parent[second] = first
    return {patient: root(patient) for patient in parent}


def count_split(source: Source, share: float, seed: int) -> tuple[Count, ...]:
    """Count the pictures of each part and class without decoding any."""
    return count_parts(source, *split(source.pictures, share, seed, source.validation, source.classes))


def count_parts(source: Source, training: Indices, validation: Indices) -> tuple[Count, ...]:
    """Count the pictures of each part and class: training, validation, test, and in each the negative class first."""
    parts: tuple[tuple[Literal["training", "validation", "test"], list[Picture]], ...] = (
        ("training", [source.pictures[row] for row in training]),
        ("validation", [source.pictures[row] for row in validation]),
        ("test", list(source.sealed)),
    )
    return tuple(
        _count(part, label, [picture for picture in pictures if picture.label == label])
        for part, pictures in parts
        for label in range(len(source.classes))
    )


def _count(part: Literal["training", "validation", "test"], label: int, pictures: Sequence[Picture]) -> Count:
    unknown = sum(not picture.known_by for picture in pictures)
    return Count(part, label, len(pictures), len({picture.patient for picture in pictures}), unknown)


def describe_split(description: str, counts: Sequence[Count], classes: Sequence[str], patients: str) -> str:
    """Return three lines: where the pictures come from, how many pictures and patients each part has, and how these are known.

    Args:
        description: Where the pictures come from.
        counts: The pictures of each part and class.
        classes: The names of the labels 0 and 1.
        patients: How the patients are known, as `describe_patients` says.
    """
    parts: list[str] = []
    for part, group in groupby(counts, key=lambda count: count.part):
        counts_of_part = list(group)
        pictures = sum(count.pictures for count in counts_of_part)
        by_class = ", ".join(f"{count.pictures:,} {classes[count.label]}" for count in counts_of_part)
        sealed = ", sealed" if part == "test" else ""
        parts.append(
            f"{part} {pictures:,} ({by_class}){''.join(f' {patients}' for patients in count_patients(counts_of_part))}{sealed}"
        )
    return f"Data: {description}\n  {'; '.join(parts)}\n  patients: {patients}"


def count_patients(counts: Sequence[Count]) -> list[str]:
    """Return `of 2,790 patients` as the only text, or none if no patient is known."""
    if all(count.unknown == count.pictures for count in counts):
        return []
    return [f"of {sum(count.patients for count in counts):,} patients"]
