"""Tests of pneumo.evidence.comparison: a trial and the baseline, from the artifacts of their runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pneumo.evidence.comparison import compare_runs
from pneumo.evidence.intervals import auc_difference
from pneumo.evidence.metrics import Array
from pneumo.evidence.stress import StressPredictions, judge
from pneumo.evidence.tables import predictions_csv
from pneumo.spec.candidate import Candidate
from pneumo.spec.comparison import Comparison
from pneumo.spec.errors import RequestError
from pneumo.spec.result import CLASSES, Trial, TrialResult
from pneumo.spec.stress import CHANGES, SUITE
from pneumo.spec.wording import describe_gain

PICTURES = 80
RNG = np.random.default_rng(0)
LABELS = np.arange(PICTURES) % 2
NAMES = np.array([f"={n}.jpeg" for n in range(PICTURES)])
PATIENTS = [f"person{n // 2}" for n in range(PICTURES)]
BETTER, WORSE = (np.clip(RNG.normal(0.4 + gap * LABELS, 0.2), 0, 1).astype(np.float32) for gap in (0.3, 0.1))


def stressed(probabilities: Array, rows: slice = slice(None)) -> StressPredictions:
    """Return predictions of the pictures in `rows`, each change of which costs a little certainty."""
    changed = np.stack([probabilities * (1 - 0.02 * n) for n in range(len(CHANGES))]).astype(np.float32)
    names = tuple(change.name for change in CHANGES)
    return StressPredictions(SUITE, names, NAMES[rows], LABELS[rows], probabilities[rows], changed[:, rows])


def reader(
    patients: list[str] = PATIENTS, stress: StressPredictions | None = None, classes: tuple[str, str] = CLASSES
) -> Callable[[str, str], bytes]:
    """Return a function that reads the artifacts of the runs `trial` and `baseline`."""
    files = {
        (run, "predictions.csv"): predictions_csv(NAMES.tolist(), patients, LABELS, values, classes).encode()
        for run, values in (("trial", BETTER), ("baseline", WORSE))
    }
    files["trial", "stress_predictions.npz"] = (stress or stressed(BETTER)).to_bytes()
    files["baseline", "stress_predictions.npz"] = stressed(WORSE).to_bytes()

    def read(run: str, path: str) -> bytes:
        if (run, path) not in files:
            raise RequestError(f"{run}: its artifact {path} cannot be read")
        return files[run, path]

    return read


def test_plain_predictions_are_compared_by_patient() -> None:
    comparison = compare_runs(reader(), "trial", "baseline", "val_auc", CLASSES)
    expected = auc_difference(LABELS, BETTER, WORSE, np.array(PATIENTS))
    assert comparison is not None
    assert (comparison.difference, comparison.low, comparison.high) == pytest.approx(
        (expected.value, expected.low, expected.high), abs=1e-9
    )
    assert (comparison.unit, comparison.pictures, comparison.is_stressed) == ("by patient", PICTURES, False)
    swapped = compare_runs(reader(), "baseline", "trial", "val_auc", CLASSES)
    assert swapped is not None
    assert swapped.difference == pytest.approx(-comparison.difference)


def test_stressed_predictions_are_compared_by_the_metric_that_is_recorded() -> None:
    comparison = compare_runs(reader(), "trial", "baseline", "val_stress_auc", CLASSES)
    ours, theirs = (judge(stressed(values)).metrics()["val_stress_auc"] for values in (BETTER, WORSE))
    assert comparison is not None
    assert comparison.difference == pytest.approx(ours - theirs)
    assert comparison.low < comparison.difference < comparison.high
    assert comparison.is_stressed
    assert comparison.is_same_pictures


def test_only_pictures_that_both_were_judged_on_count() -> None:
    few = reader(stress=stressed(BETTER, slice(10, 60)))
    comparison = compare_runs(few, "trial", "baseline", "val_stress_auc", CLASSES)
    assert comparison is not None
    assert (comparison.pictures, comparison.is_same_pictures) == (50, False)


def test_pictures_without_a_known_patient_are_resampled_one_by_one() -> None:
    comparison = compare_runs(reader(patients=NAMES.tolist()), "trial", "baseline", "val_auc", CLASSES)
    assert comparison is not None
    assert comparison.unit == "by picture"


@pytest.mark.parametrize(
    ("read", "metric", "baseline"),
    [
        (reader(), "val_loss", "baseline"),
        (reader(), "val_auc", "another run"),
        (reader(classes=("cat", "dog")), "val_auc", "baseline"),
        (reader(stress=replace(stressed(BETTER), suite="stress-0")), "val_stress_auc", "baseline"),
        (lambda run, path: b"PK\x03\x04", "val_stress_auc", "baseline"),
    ],
    ids=["another metric", "no artifact", "one class", "another suite", "damaged"],
)
def test_what_cannot_be_compared_gives_none(read: Callable[[str, str], bytes], metric: str, baseline: str) -> None:
    assert compare_runs(read, "trial", baseline, metric, CLASSES) is None


def test_the_sentence_has_the_interval_and_its_unit() -> None:
    best, baseline = (
        Trial(Candidate(number, {}), TrialResult(number, "", "complete", value))
        for number, value in ((6, 0.981), (0, 0.9744))
    )
    same = Comparison("val_auc", 0.0066, -0.001, 0.014, "by patient", 580, True, False)
    assert describe_gain(best, baseline, "val_auc", same) == (
        "Trial 6 reaches val_auc 0.9810, 0.0066 above the tutorial's network "
        "(95 % interval by patient -0.001 to +0.014)."
    )
    assert same.includes_zero
    fewer = replace(same, difference=0.005, pictures=400, is_same_pictures=False)
    assert "(+0.0050 on the 400 pictures that both were judged on, 95 % interval" in describe_gain(
        best, baseline, "val_auc", fewer
    )
    assert "0.0066 below the" in describe_gain(replace(baseline, candidate=Candidate(3, {})), best, "val_auc", same)
    assert "0.0066 better than the tutorial's network (0.9744, trial 0)." in describe_gain(best, baseline, "val_auc")
