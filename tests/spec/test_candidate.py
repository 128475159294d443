"""Candidates that are the same training, and candidates that are not."""

from __future__ import annotations

import pytest

from pneumo.spec.candidate import Candidate
from pneumo.spec.hyperparameters import Value


def key(full_epochs: int | None = None, **values: Value) -> object:
    return Candidate(0, {"epochs": 10, **values}, full_epochs=full_epochs).key


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"warmup": 0.0, "ema": 0.0, "early_stopping": 0}),
        ({}, {"early_stopping": 9}),
        ({"epochs": 1}, {"epochs": 1, "early_stopping": 1}),
        ({"epochs": 3}, {"epochs": 3, "schedule": "plateau"}),
        ({"early_stopping": 2}, {"early_stopping": 2, "schedule": "plateau"}),
        ({"epochs": 9, "full_epochs": 9, "schedule": "cosine"}, {"epochs": 9, "schedule": "cosine"}),
    ],
    ids=str,
)
def test_what_has_no_effect_makes_no_other_training(first: dict[str, Value], second: dict[str, Value]) -> None:
    assert key(**first) == key(**second)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"warmup": 0.1}),
        ({}, {"ema": 0.9}),
        ({}, {"early_stopping": 8}),
        ({}, {"schedule": "triangular"}),
        ({"epochs": 4}, {"epochs": 4, "schedule": "plateau"}),
        ({"early_stopping": 3}, {"early_stopping": 3, "schedule": "plateau"}),
        # A later rung trains the epochs in which they differ.
        ({"epochs": 3, "full_epochs": 9}, {"epochs": 3, "full_epochs": 9, "early_stopping": 4}),
        ({"epochs": 3, "full_epochs": 9}, {"epochs": 3, "full_epochs": 9, "schedule": "plateau"}),
        ({"epochs": 3, "full_epochs": 9}, {"epochs": 9, "full_epochs": 9}),
    ],
    ids=str,
)
def test_what_has_an_effect_makes_another_training(first: dict[str, Value], second: dict[str, Value]) -> None:
    assert key(**first) != key(**second)  # type: ignore[arg-type]
