"""The split by patient, with any names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.data.pictures import Picture
from pneumo.data.sources import open_source
from pneumo.data.split import count_split, split
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec, PhantomSpec


@st.composite
def pools(draw: st.DrawFn) -> list[Picture]:
    """Draw pictures of at least two patients of each class, some with pictures of both classes, in any order."""
    sizes = [draw(st.lists(st.integers(1, 4), min_size=2, max_size=12)) for _ in range(2)]
    pool = [
        Picture(name := f"train/{label}/{patient}-{number}", label, f"p{label}-{patient}", name)
        for label in (0, 1)
        for patient, size in enumerate(sizes[label])
        for number in range(size)
    ]
    pool += [
        Picture(name := f"train/0/mixed-{patient}", 0, f"p1-{patient}", name)
        for patient in range(draw(st.integers(0, 2)))
    ]
    return draw(st.permutations(pool))


@settings(deadline=None, max_examples=60)
@given(pools(), st.floats(0.01, 0.89), st.integers(0, 2**31 - 1))
def test_no_patient_is_in_two_parts_and_every_picture_in_one(pool: list[Picture], share: float, seed: int) -> None:
    training, validation = split(pool, share, seed)
    assert sorted([*training, *validation]) == list(range(len(pool)))
    parts = [{pool[row].patient for row in rows} for rows in (training, validation)]
    assert not parts[0] & parts[1]
    assert training.dtype == validation.dtype == np.int64
    assert all(np.all(np.diff(rows) > 0) for rows in (training, validation))
    for rows in (training, validation):
        assert {pool[row].patient[:2] for row in rows} == {"p0", "p1"}
    ordered = sorted(pool, key=lambda picture: picture.name)
    again = split(ordered, share, seed)[1]
    assert {pool[row].name for row in validation} == {ordered[row].name for row in again}


def test_the_share_is_of_each_class_and_the_seed_matters() -> None:
    pool = [
        Picture(f"{label}/{n}", label, f"{label}-{n}", f"{label}/{n}")
        for label, size in ((0, 50), (1, 200))
        for n in range(size)
    ]
    training, validation = split(pool, 0.12, 0)
    assert [sum(pool[row].label == label for row in validation) for label in (0, 1)] == [6, 24]
    assert len(training) == 220
    assert split(pool, 0.12, 1)[1].tolist() != validation.tolist()


def test_the_split_is_the_same_on_every_machine() -> None:
    pool = [Picture(f"{label}/{n}", label, f"{label}-{n:02d}", f"{label}/{n}") for label in (0, 1) for n in range(10)]
    assert split(pool, 0.2, 0)[1].tolist() == PINNED


PINNED = [2, 8, 12, 18]


def test_too_few_patients() -> None:
    pool = [Picture(f"0/{n}", 0, f"n{n}", f"0/{n}") for n in range(5)] + [
        Picture(f"1/{n}", 1, "one", f"1/{n}") for n in range(5)
    ]
    with pytest.raises(RequestError, match="PNEUMONIA: pictures of 1 patients"):
        split(pool, 0.2, 0)
    with pytest.raises(RequestError, match="ill: pictures of 1 patients"):
        split(pool, 0.2, 0, classes=("healthy", "ill"))


def test_the_counts_of_a_split_add_up() -> None:
    source = open_source(DataSpec(source="phantom", phantom=PhantomSpec(patients=40)))
    counts = count_split(source, 0.25, 0)
    assert [(count.part, count.label) for count in counts] == [
        (part, label) for part in ("training", "validation", "test") for label in (0, 1)
    ]
    assert sum(count.pictures for count in counts[:4]) == len(source.pictures)
    assert sum(count.pictures for count in counts[4:]) == len(source.sealed)
    assert sum(count.patients for count in counts) == 40


@pytest.mark.parametrize("patients", range(8, 20))
def test_the_fewest_phantoms_can_be_split(patients: int) -> None:
    source = open_source(DataSpec(source="phantom", phantom=PhantomSpec(patients=patients)))
    assert all(count.pictures for count in count_split(source, 0.12, 0)[:4])


def test_equal_pictures_of_two_patients_go_to_one_part() -> None:
    pool = [Picture(f"{label}/{n}", label, f"{label}-{n:02d}", f"{label}/{n}") for label in (0, 1) for n in range(20)]
    copied = [Picture(f"1/copy-{n}", 1, f"twin-{n:02d}", f"1/{n}") for n in range(20)]
    for seed in range(20):
        training, validation = split(pool + copied, 0.3, seed)
        parts = [{(pool + copied)[row].digest for row in rows} for rows in (training, validation)]
        assert parts[0]
        assert parts[1]
        assert not parts[0] & parts[1]


def test_the_validation_of_a_source_is_used() -> None:
    pool = [Picture(f"{label}/{n}", label, f"{label}-{n:02d}", f"{label}/{n}") for label in (0, 1) for n in range(20)]
    validation_names = frozenset({"0/3", "1/4", "1/5"})
    training, validation = split(pool, 0.12, 0, validation_names)
    assert {pool[row].name for row in validation} == validation_names
    assert sorted([*training, *validation]) == list(range(len(pool)))
