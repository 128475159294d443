"""Tests of pneumo.evidence.gate: which models pass, and that the messages agree with the decision."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.evidence.gate import FEWEST_PATIENTS, Check, Gate, apply_gate
from pneumo.evidence.intervals import Interval, compute_figures
from pneumo.evidence.metrics import Array

N = 200
LABELS = np.arange(N) % 2
NAN = math.nan


def _apply(ours: Array, theirs: Array | None, labels: Array = LABELS, **changes: Any) -> Gate:
    settings_: dict[str, Any] = {
        "our_threshold": 0.5,
        "their_threshold": 0.5,
        "against": "champion, version 3",
        "figures": {},
        "floors": {},
        "significant": False,
        "resamples": 500,
    }
    return apply_gate(labels, np.arange(len(labels)), ours, theirs, **settings_ | changes)


def _check(gate: Gate, name: str) -> Check:
    (check,) = [check for check in gate.checks if check.name == name]
    return check


def _swapped(pairs: int, start: int = 0) -> Array:
    """Return probabilities that are all correct except for `pairs` pairs of a NORMAL picture and a case, which are swapped."""
    labels = LABELS.copy()
    labels[2 * start : 2 * (start + pairs)] = 1 - labels[2 * start : 2 * (start + pairs)]
    return np.where(labels == 1, 0.9, 0.1)


# With k of 100 pairs swapped, sensitivity and specificity are 1 - k/100, and so is the area: the curve has one corner, so the
# area is the mean of the two.


def test_a_far_better_model_passes() -> None:
    gate = _apply(_swapped(2), _swapped(30, 2), significant=True)
    assert gate.passed
    assert gate.against == "champion, version 3"
    assert [check.name for check in gate.checks] == ["auc", "accuracy"]
    assert gate.auc_difference is not None
    assert gate.auc_difference.value == pytest.approx(0.28)
    message = _check(gate, "auc").message
    assert message.startswith("AUC 0.9800 against 0.7000: +0.2800 (95 % interval +0.")
    assert message.endswith("), beyond luck")
    assert _check(gate, "accuracy").message == (
        "accuracy 0.980 against 0.700 (only this model right on 60 pictures, only the other on 4), McNemar p < 0.001"
    )


@pytest.mark.parametrize("significant", [False, True])
def test_a_model_better_within_luck_passes_unless_the_gain_must_be_significant(significant: bool) -> None:
    gate = _apply(_swapped(4), _swapped(5, 4), significant=significant)
    assert gate.passed is not significant
    check = _check(gate, "auc")
    assert check.passed is not significant
    assert check.message.startswith("AUC 0.9600 against 0.9500: +0.0100 (95 % interval -0.0")
    assert check.message.endswith("), within luck")
    # 10 and 8 pictures: p = 0.81 (2 x binomial tail of 8 in 18 at one half: 0.4073 each).
    assert _check(gate, "accuracy") == Check(
        "accuracy",
        True,
        "accuracy 0.960 against 0.950 (only this model right on 10 pictures, only the other on 8), McNemar p = 0.81",
    )


def test_an_equal_area_is_not_larger() -> None:
    gate = _apply(_swapped(4), _swapped(4))
    assert _check(gate, "auc") == Check(
        "auc", False, "AUC 0.9600 against 0.9600: +0.0000 (95 % interval +0.0000 to +0.0000), within luck"
    )
    assert _check(gate, "accuracy").passed
    assert _check(gate, "accuracy").message.endswith(
        "(only this model right on 0 pictures, only the other on 0), McNemar p = 1.00"
    )
    assert not gate.passed


def test_a_model_worse_beyond_luck_is_refused_for_both_reasons() -> None:
    gate = _apply(_swapped(30, 2), _swapped(2))
    assert [check.passed for check in gate.checks] == [False, False]
    assert _check(gate, "auc").message.endswith("), beyond luck")


@pytest.mark.parametrize(("wrong", "passed"), [(5, True), (6, False)])
def test_a_lower_accuracy_counts_where_it_is_beyond_luck(wrong: int, passed: bool) -> None:
    # Theirs is always right, ours misses `wrong` cases. The p-values of 0 in 5 and of 0 in 6 are 2/32 and 2/64.
    ours = np.where(LABELS == 1, 0.9, 0.1)
    ours[1 : 2 * wrong : 2] = 0.4
    gate = _apply(ours, np.where(LABELS == 1, 0.9, 0.1))
    check = _check(gate, "accuracy")
    assert check.passed is passed
    p = "0.06" if passed else "0.03"
    accuracy = f"{1 - wrong / N:.3f}"
    counts = f"only this model right on 0 pictures, only the other on {wrong}"
    assert check.message == f"accuracy {accuracy} against 1.000 ({counts}), McNemar p = {p}"


def test_each_is_judged_at_its_own_threshold() -> None:
    ours = np.where(LABELS == 1, 0.3, 0.1)
    theirs = np.where(LABELS == 1, 0.9, 0.8)
    gate = _apply(ours, theirs, our_threshold=0.2, their_threshold=0.85)
    assert gate.mcnemar is not None
    assert (gate.mcnemar.only_ours_right, gate.mcnemar.only_theirs_right) == (0, 0)
    gate = _apply(ours, theirs, our_threshold=0.2, their_threshold=0.5)
    assert gate.mcnemar is not None
    assert (gate.mcnemar.only_ours_right, gate.mcnemar.only_theirs_right) == (100, 0)


def test_pictures_of_one_patient_are_less_proof_than_as_many_patients() -> None:
    ours, theirs = _swapped(2), _swapped(8, 2)
    assert _apply(ours, theirs, significant=True).passed
    few = np.arange(N) // 20  # 10 patients, each with 20 pictures in a row
    arguments: dict[str, Any] = {
        "our_threshold": 0.5,
        "their_threshold": 0.5,
        "against": "",
        "figures": {},
        "floors": {},
    }
    gate = apply_gate(LABELS, few, ours, theirs, significant=True, **arguments)
    assert not _check(gate, "auc").passed
    assert _check(gate, "auc").message.endswith("), within luck")


@pytest.mark.parametrize("significant", [False, True])
def test_a_gate_that_compares_with_nothing_refuses(significant: bool) -> None:
    gate = _apply(_swapped(4), None, their_threshold=None, against="nothing", significant=significant)
    refused = Check("reference", False, "the model was compared with no other")
    assert gate == Gate(False, "nothing", (refused,), None, None)
    intervals = {"sensitivity": Interval(0.93, 0.9, 0.96)}
    gate = _apply(_swapped(4), None, their_threshold=None, figures=intervals, floors={"sensitivity": 0.9})
    message = "sensitivity 0.930 (95 % interval 0.900 to 0.960), floor 0.9"
    assert gate.checks == (refused, Check("sensitivity_floor", True, message))
    assert not gate.passed


@pytest.mark.parametrize(
    ("negative", "positive"), [(1, 1), (2, 2), (FEWEST_PATIENTS - 1, 100), (100, FEWEST_PATIENTS - 1), (1, 500)]
)
def test_a_perfect_model_proves_nothing_on_too_few_patients(negative: int, positive: int) -> None:
    labels = np.repeat([0, 1], [negative, positive])
    perfect, wrong = labels * 0.8 + 0.1, 0.9 - labels * 0.8
    check = _check(_apply(perfect, wrong, labels, significant=True), "auc")
    assert not check.passed
    assert check.message.startswith("AUC 1.0000 against 0.0000: +1.0000, ")
    assert check.message.endswith(f" of a class can prove no gain; expected at least {FEWEST_PATIENTS}")
    # Twenty pictures of a patient are one patient.
    often = np.repeat(np.arange(len(labels)), 20)
    many = apply_gate(
        np.repeat(labels, 20),
        often,
        np.repeat(perfect, 20),
        np.repeat(wrong, 20),
        our_threshold=0.5,
        their_threshold=0.5,
        against="",
        figures={},
        floors={},
        significant=True,
        resamples=100,
    )
    assert not _check(many, "auc").passed


def test_enough_patients_prove_a_gain() -> None:
    labels = np.repeat([0, 1], FEWEST_PATIENTS)
    assert _apply(labels * 0.8 + 0.1, 0.9 - labels * 0.8, labels, significant=True).passed


@pytest.mark.parametrize(
    ("name", "figure", "floor", "passed", "message"),
    [
        (
            "specificity",
            Interval(0.9, 0.8, 0.95),
            0.9,
            True,
            "specificity 0.900 (95 % interval 0.800 to 0.950), floor 0.9",
        ),
        ("auc", Interval(0.92, NAN, NAN), 0.9, False, "AUC 0.920 (no interval), floor 0.9"),
        ("f1", Interval(0.8, 0.7, 0.9), 0.85, False, "F1 0.800 (95 % interval 0.700 to 0.900), floor 0.85"),
        ("average_precision", Interval(NAN, NAN, NAN), 0.1, False, "average precision not defined, floor 0.1"),
        ("precision", Interval(0.89996, NAN, NAN), 0.9, False, "precision 0.89996 (no interval), floor 0.9"),
    ],
)
def test_a_floor_is_kept_by_what_is_at_least_as_high(
    name: str, figure: Interval, floor: float, passed: bool, message: str
) -> None:
    gate = _apply(_swapped(4), _swapped(5), figures={name: figure}, floors={name: floor})
    assert gate.checks[-1] == Check(f"{name}_floor", passed, message)
    assert gate.passed is passed


def test_each_floor_has_a_check_and_one_below_refuses_the_better_network() -> None:
    ours = _swapped(4)
    intervals = compute_figures(LABELS, ours, np.arange(N), 0.5, resamples=100)
    gate = _apply(ours, _swapped(30), figures=intervals, floors={"auc": 0.9, "sensitivity": 0.97, "accuracy": 0.96})
    assert [(check.name, check.passed) for check in gate.checks] == [
        ("auc", True),
        ("accuracy", True),
        ("auc_floor", True),
        ("sensitivity_floor", False),
        ("accuracy_floor", True),
    ]
    assert not gate.passed


@pytest.mark.parametrize("name", ["brier", "calibration_error", "val_auc"])
def test_a_floor_of_nothing_that_should_be_high_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"a floor must be for one of accuracy, .*, average_precision, got '{name}'"):
        _apply(_swapped(4), None, figures={name: Interval(0.1, 0.1, 0.1)}, floors={name: 0.1})


def test_a_champion_without_its_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="theirs needs their_threshold"):
        _apply(_swapped(4), _swapped(5), their_threshold=None)


@pytest.mark.parametrize("significant", [False, True])
def test_one_class_or_one_patient_is_no_proof(significant: bool) -> None:
    gate = _apply(np.full(4, 0.9), np.full(4, 0.8), np.ones(4, np.int64), significant=significant)
    assert _check(gate, "auc") == Check("auc", False, "AUC not defined: only one class is present")
    arguments: dict[str, Any] = {
        "our_threshold": 0.5,
        "their_threshold": 0.5,
        "against": "",
        "figures": {},
        "floors": {},
    }
    gate = apply_gate(LABELS, np.zeros(N), _swapped(4), _swapped(5), significant=significant, **arguments)
    assert _check(gate, "auc") == Check("auc", not significant, "AUC 0.9600 against 0.9500: +0.0100 (no interval)")


def test_a_difference_too_small_for_four_decimals_is_shown_with_more() -> None:
    # One of 125 x 200 pairs is in the wrong order: an area smaller by 0.00004.
    labels = np.repeat([0, 1], [125, 200])
    ours = np.linspace(0, 1, 325)
    theirs = ours.copy()
    theirs[[124, 125]] = theirs[[125, 124]]
    message = _check(_apply(ours, theirs, labels), "auc").message
    assert message.startswith("AUC 1.00000 against 0.99996: +0.00004 (95 % interval +0.00000 to +0.000")
    assert message.endswith("), within luck")


def test_a_gate_can_be_written_as_json() -> None:
    gate = _apply(_swapped(4), _swapped(5, 4), figures={"auc": Interval(0.96, 0.9, 0.99)}, floors={"auc": 0.9})
    back = json.loads(json.dumps(gate.as_dict(), allow_nan=False))
    assert gate.mcnemar is not None
    assert gate.auc_difference is not None
    assert back == {
        "passed": True,
        "against": "champion, version 3",
        "checks": [{"name": check.name, "passed": True, "said": check.message} for check in gate.checks],
        "auc_difference": {
            "value": gate.auc_difference.value,
            "low": gate.auc_difference.low,
            "high": gate.auc_difference.high,
        },
        "mcnemar": {"only_ours_right": 10, "only_theirs_right": 8, "p_value": gate.mcnemar.p_value},
    }
    assert Gate.from_dict(back) == gate
    alone = _apply(np.full(4, 0.9), None, np.ones(4, np.int64), their_threshold=None).as_dict()
    assert Gate.from_dict(alone).as_dict() == alone
    assert (alone["auc_difference"], alone["mcnemar"]) == (None, None)
    one_class = _apply(np.full(4, 0.9), np.full(4, 0.8), np.ones(4, np.int64)).as_dict()
    assert one_class["auc_difference"] == {"value": None, "low": None, "high": None}
    assert Gate.from_dict(one_class).as_dict() == one_class


@settings(deadline=None, max_examples=40)
@given(data=st.data(), significant=st.booleans())
def test_of_two_networks_at_most_one_may_replace_the_other(data: st.DataObject, significant: bool) -> None:
    ours, theirs = (
        np.array(data.draw(st.lists(st.sampled_from([0.1, 0.4, 0.6, 0.9]), min_size=10, max_size=10))) for _ in range(2)
    )
    labels = LABELS[:10]
    forwards = _apply(ours, theirs, labels, significant=significant, resamples=50)
    backwards = _apply(theirs, ours, labels, significant=significant, resamples=50)
    assert not (forwards.passed and backwards.passed)
    assert forwards.auc_difference is not None
    assert backwards.auc_difference is not None
    assert forwards.auc_difference.value == -backwards.auc_difference.value
    assert forwards.passed == all(check.passed for check in forwards.checks)
