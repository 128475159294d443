"""The model card's words about patients and about an ensemble's members."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pneumo.evidence.gate import Gate
from pneumo.evidence.intervals import Interval, interval_unit
from pneumo.evidence.model_card import MemberFacts, ModelFacts, model_card

FACTS = ModelFacts(
    title="a study",
    classes=("NORMAL", "PNEUMONIA"),
    data="my pictures",
    patients="told by patients.csv",
    split_unit="by patient",
    parts={},
    search="",
    hyperparameters={},
    parameters=1,
    operating_point="",
    phantom=False,
)


@pytest.mark.parametrize(
    ("unknown", "unit"),
    [(0, "by patient"), (4, "by patient, or by picture if the patient is not known"), (9, "by picture")],
)
def test_the_card_says_how_the_patients_are_known_and_what_the_intervals_go_by(unknown: int, unit: str) -> None:
    facts = replace(FACTS, split_unit=interval_unit(unknown, 9))
    card = model_card(facts, {}, Gate(True, "nothing", (), None, None))
    assert f"my pictures, split {unit}. Patients: told by patients.csv." in card
    assert f"95 % bootstrap intervals {unit}." in card
    assert ("intervals too narrow" in card) == (unknown > 0)
    assert "Members" not in card


def test_the_card_of_an_ensemble_lists_its_members_and_its_gain() -> None:
    members = [
        MemberFacts("trial 3", "a" * 32, 2 / 3, {"best_val_auc": 0.98, "val_stress_auc": 0.95}),
        MemberFacts("trial 1 with seed 1000000", "b" * 32, 1 / 3, {"best_val_auc": 0.97}),
    ]
    facts = replace(FACTS, members=members, parameters=1234)
    gain = {"auc": Interval(0.0123, -0.001, 0.02), "accuracy": Interval(0.5, float("nan"), float("nan"))}
    card = model_card(facts, {}, Gate(True, "nothing", (), None, None), gain)
    assert "An ensemble of 2 convolutional networks of 1,234 parameters" in card
    assert "| member | run | weight | best_val_auc | val_stress_auc |" in card
    assert f"| trial 3 | {'a' * 32} | 0.667 | 0.9800 | 0.9500 |" in card
    assert f"| trial 1 with seed 1000000 | {'b' * 32} | 0.333 | 0.9700 | - |" in card
    assert (
        "Gain of the ensemble over its best member on the test pictures: AUC +0.0123 (95 % interval -0.0010 to +0.0200), "
        "accuracy +0.5000 (no interval)."
    ) in card
