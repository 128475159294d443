"""The model card's words about patients."""

from __future__ import annotations

import pytest

from pneumo.evidence.gate import Gate
from pneumo.evidence.intervals import interval_unit
from pneumo.evidence.model_card import ModelFacts, model_card


@pytest.mark.parametrize(
    ("unknown", "unit"),
    [(0, "by patient"), (4, "by patient, or by picture if the patient is not known"), (9, "by picture")],
)
def test_the_card_says_how_the_patients_are_known_and_what_the_intervals_go_by(unknown: int, unit: str) -> None:
    facts = ModelFacts(
        title="a study",
        classes=("NORMAL", "PNEUMONIA"),
        data="my pictures",
        patients="told by patients.csv",
        split_unit=interval_unit(unknown, 9),
        parts={},
        search="",
        hyperparameters={},
        parameters=1,
        operating_point="",
        phantom=False,
    )
    card = model_card(facts, {}, Gate(True, "nothing", (), None, None))
    assert f"my pictures, split {unit}. Patients: told by patients.csv." in card
    assert f"95 % bootstrap intervals {unit}." in card
    assert ("intervals too narrow" in card) == (unknown > 0)
