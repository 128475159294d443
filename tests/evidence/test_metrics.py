"""Tests of pneumo.evidence.metrics: each number is compared with an independent computation."""

from __future__ import annotations

import math
import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.evidence.metrics import (
    THRESHOLD_RULES,
    Array,
    calibration,
    epoch_metrics,
    operating_point,
    predict_labels,
    validation_metrics,
)
from pneumo.spec.promotion import ThresholdKind

_PICTURES = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 1e-30, 0.1, 0.25, 0.5, 0.75, 1 - 2**-24, 1.0])),
    min_size=1,
    max_size=12,
)
"""Labels and probabilities with many ties, also at 0 and 1."""


def _sample(seed: int, n: int = 120, dtype: type = np.float32, digits: int = 8) -> tuple[Array, Array]:
    """Return labels and probabilities of overlapping classes; few digits make ties."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < 0.7).astype(np.int64)
    scores = generator.normal(0.35 + 0.3 * labels, 0.25).clip(0, 1)
    return labels, scores.round(digits).astype(dtype)


def _auc_by_pairs(labels: Array, probabilities: Array) -> float:
    pairs = list(product(probabilities[labels == 1], probabilities[labels == 0]))
    return sum(1.0 if sick > well else 0.5 if sick == well else 0.0 for sick, well in pairs) / len(pairs)


def _youden(labels: Array, probabilities: Array, threshold: float) -> float:
    sick = [float(p) >= threshold for p in probabilities[labels == 1]]
    well = [float(p) < threshold for p in probabilities[labels == 0]]
    return sum(sick) / len(sick) + sum(well) / len(well) - 1


@pytest.mark.parametrize("digits", [1, 8])
def test_epoch_metrics_agree_with_counting(digits: int) -> None:
    labels, probabilities = _sample(1, digits=digits)
    metrics = epoch_metrics(labels, probabilities)
    losses = [
        -math.log(min(max(float(p) if y else 1 - float(p), 1e-7), 1 - 1e-7))
        for y, p in zip(labels, probabilities, strict=True)
    ]
    right = [(p >= 0.5) == (y == 1) for y, p in zip(labels, probabilities, strict=True)]
    assert metrics["val_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    assert metrics["val_accuracy"] == sum(right) / len(right)
    assert metrics["val_auc"] == pytest.approx(_auc_by_pairs(labels, probabilities), abs=1e-12)
    assert set(metrics) == {"val_loss", "val_accuracy", "val_auc"}


def test_a_certain_mistake_has_a_finite_loss() -> None:
    metrics = epoch_metrics(np.array([0, 1]), np.array([1.0, 0.0], np.float32))
    assert metrics["val_loss"] == pytest.approx(-math.log(1e-7))
    assert metrics["val_auc"] == 0.0


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc_and_makes_no_noise(label: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = epoch_metrics(np.full(4, label), np.array([0.1, 0.6, 0.7, 0.9]))
        at_threshold = validation_metrics(np.full(4, label), np.array([0.1, 0.6, 0.7, 0.9]))
    assert math.isnan(metrics["val_auc"])
    assert metrics["val_accuracy"] == (0.75 if label else 0.25)
    assert at_threshold["threshold"] == 0.5
    assert math.isnan(at_threshold["val_specificity" if label else "val_sensitivity"])


def test_after_a_divergence_every_metric_is_nan() -> None:
    metrics = epoch_metrics(np.array([0, 1]), np.array([np.nan, 0.4]))
    assert all(math.isnan(value) for value in metrics.values())


@pytest.mark.parametrize(("labels", "probabilities"), [([0, 1, 1], [0.1, 0.2]), ([0, 2], [0.1, 0.2])])
def test_wrong_arrays_are_refused(labels: list[int], probabilities: list[float]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        epoch_metrics(np.array(labels), np.array(probabilities))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("digits", [1, 2, 8])
@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_beats_the_operating_point(seed: int, digits: int, dtype: type) -> None:
    labels, probabilities = _sample(seed, 60, dtype, digits)
    threshold = operating_point(labels, probabilities)
    index = _youden(labels, probabilities, threshold)
    candidates = [float(p) for p in probabilities] + [0.0, 1.0]
    assert index == pytest.approx(max(_youden(labels, probabilities, c) for c in candidates), abs=1e-12)
    assert 0.0 <= threshold <= 1.0
    # The threshold is representable in the dtype of the probabilities, so comparing in that dtype gives the same decision.
    assert float(dtype(threshold)) == threshold
    order = np.random.default_rng(0).permutation(len(labels))
    assert operating_point(labels[order], probabilities[order]) == threshold


def test_the_threshold_lies_midway_and_of_equal_ones_is_the_most_sensitive() -> None:
    assert operating_point(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)
    # The index is 1/2 above 0.75 and above 0.25.
    assert operating_point(np.array([0, 1, 0, 1]), np.array([0.1, 0.5, 0.6, 0.9])) == pytest.approx(0.3)


def test_neighbouring_floats_are_still_told_apart() -> None:
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    probabilities = np.array([low, high], np.float32)
    threshold = operating_point(np.array([0, 1]), probabilities)
    assert [float(p) >= threshold for p in probabilities] == [False, True]


@pytest.mark.parametrize("probabilities", [[0.3, 0.3, 0.3, 0.3], [0.9, 0.8, 0.2, 0.1]])
def test_a_network_no_better_than_chance_gets_one_half(probabilities: list[float]) -> None:
    assert operating_point(np.array([0, 0, 1, 1]), np.array(probabilities)) == 0.5


def _shares(labels: Array, probabilities: Array, threshold: float) -> tuple[float, float, float]:
    """Return sensitivity, specificity and F1, counted here: scikit-learn takes a hundred times as long for a few pictures."""
    positive, ill = predict_labels(probabilities, threshold) == 1, labels == 1
    hits, passes = int(np.sum(positive & ill)), int(np.sum(~positive & ~ill))
    return hits / int(np.sum(ill)), passes / int(np.sum(~ill)), 2 * hits / int(np.sum(positive) + np.sum(ill))


@settings(deadline=None)
@given(
    pictures=_PICTURES,
    value=st.sampled_from([0.1, 0.5, 2 / 3, 0.95, 1.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_no_threshold_serves_a_rule_better(pictures: list[tuple[int, float]], value: float, dtype: type) -> None:
    labels = np.array([label for label, _ in pictures])
    probabilities: Array = np.array([probability for _, probability in pictures], dtype)
    if len(set(labels)) < 2:
        return
    everywhere = [_shares(labels, probabilities, p) for p in {*map(float, probabilities), 2.0}]
    f1_threshold, sensitivity_threshold, specificity_threshold = (
        operating_point(labels, probabilities, "f1"),
        operating_point(labels, probabilities, "sensitivity", value),
        operating_point(labels, probabilities, "specificity", value),
    )
    assert _shares(labels, probabilities, f1_threshold)[2] == max(f1 for _, _, f1 in everywhere)
    sensitivity, specificity, _ = _shares(labels, probabilities, sensitivity_threshold)
    assert sensitivity >= value
    assert specificity == max(specific for sensitive, specific, _ in everywhere if sensitive >= value)
    sensitivity, specificity, _ = _shares(labels, probabilities, specificity_threshold)
    assert specificity >= value
    assert sensitivity == max(sensitive for sensitive, specific, _ in everywhere if specific >= value)
    for threshold in (f1_threshold, sensitivity_threshold, specificity_threshold):
        assert float(dtype(threshold)) == threshold
        assert 0 <= threshold <= float(np.nextafter(dtype(1), dtype(2)))


def test_each_rule_on_a_hand_worked_example_lies_midway() -> None:
    labels = np.array([0, 1, 0, 0, 1, 1])
    probabilities = np.array([0.1, 0.2, 0.4, 0.5, 0.6, 0.8])
    # From 0.6 on: 2 of 3 cases, no false positive, F1 4/5. From 0.2 on: all cases, 2 false positives, F1 3/4.
    assert operating_point(labels, probabilities, "f1") == pytest.approx(0.55)
    assert operating_point(labels, probabilities, "sensitivity", 0.6) == pytest.approx(0.55)
    assert operating_point(labels, probabilities, "sensitivity", 0.7) == pytest.approx(0.15)
    assert operating_point(labels, probabilities, "specificity", 0.6) == pytest.approx(0.45)
    assert operating_point(labels, probabilities, "specificity", 0.3) == pytest.approx(0.15)
    assert operating_point(labels, probabilities, "fixed", 0.3) == 0.3


def test_nineteen_of_twenty_are_ninety_five_per_cent() -> None:
    labels = np.array([1] * 20 + [0] * 20)
    probabilities = np.concatenate([np.linspace(0.5, 0.9, 20), np.linspace(0.1, 0.52, 20)])
    threshold = operating_point(labels, probabilities, "sensitivity", 0.95)
    assert np.sum(probabilities[:20] >= threshold) == 19
    threshold = operating_point(labels, probabilities, "specificity", 0.95)
    assert np.sum(probabilities[20:] < threshold) == 19


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("highest", [1.0, 0.9])
def test_a_specificity_that_no_positive_call_allows_calls_nobody_positive(highest: float, dtype: type) -> None:
    probabilities: Array = np.array([highest, highest, 0.2, 0.3], dtype)
    threshold = operating_point(np.array([0, 1, 0, 1]), probabilities, "specificity", 1.0)
    assert not predict_labels(probabilities, threshold).any()
    assert threshold == pytest.approx((1 + highest) / 2, abs=1e-6)


def test_a_sensitivity_that_needs_everybody_calls_probabilities_of_zero_positive() -> None:
    probabilities = np.array([0.0, 0.5, 0.0], np.float32)
    assert operating_point(np.array([1, 0, 0]), probabilities, "sensitivity", 1.0) == 0.0


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("rule", THRESHOLD_RULES)
def test_with_one_class_there_is_nothing_to_choose_by(rule: ThresholdKind, label: int) -> None:
    value = 0.7 if rule in ("sensitivity", "specificity", "fixed") else None
    threshold = operating_point(np.full(3, label), np.array([0.2, 0.3, 0.9]), rule, value)
    assert threshold == (0.7 if rule == "fixed" else 0.5)


@pytest.mark.parametrize(
    ("rule", "value", "message"),
    [
        ("best", None, "rule must be one of youden, f1, sensitivity, specificity, fixed, got 'best'"),
        ("sensitivity", None, "rule sensitivity needs a value"),
        ("specificity", 0.0, "rule specificity needs a value above 0"),
        ("fixed", 1.2, "at most 1, got 1.2"),
        ("fixed", math.nan, "got nan"),
        ("youden", 0.9, "rule youden takes no value"),
    ],
)
def test_a_rule_without_its_value_is_refused(rule: ThresholdKind, value: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        operating_point(np.array([0, 1]), np.array([0.2, 0.7]), rule, value)


def test_validation_metrics_of_a_hand_worked_matrix() -> None:
    # Above 0.5: 6 of 8 PNEUMONIA, 1 of 5 NORMAL. So 6 true and 1 false positives, 2 false and 4 true negatives.
    labels = np.array([1] * 8 + [0] * 5)
    probabilities = np.array([0.9] * 6 + [0.1] * 2 + [0.9] + [0.1] * 4)
    metrics = validation_metrics(labels, probabilities)
    assert metrics == {
        "threshold": pytest.approx(0.5),
        "val_accuracy_at_threshold": pytest.approx(10 / 13),
        "val_sensitivity": pytest.approx(6 / 8),
        "val_specificity": pytest.approx(4 / 5),
        "val_f1": pytest.approx(2 * 6 / (2 * 6 + 1 + 2)),
    }


def test_calibration_of_hand_worked_bins() -> None:
    # The last bin has 0.95 and 1.0 (mean 0.975, one of two ill), the first 0.05 twice (none ill).
    bins = calibration(np.array([0, 0, 1, 0]), np.array([0.05, 0.05, 0.95, 1.0], np.float64))
    np.testing.assert_allclose(bins.probability, [0.05, 0.975])
    np.testing.assert_allclose(bins.share, [0.0, 0.5])
    np.testing.assert_array_equal(bins.count, [2, 2])
    assert bins.error == pytest.approx((2 * 0.05 + 2 * 0.475) / 4)


def test_a_calibrated_network_has_a_small_error_and_an_inverted_one_a_large() -> None:
    generator = np.random.default_rng(3)
    probabilities = generator.random(20_000)
    labels = (generator.random(20_000) < probabilities).astype(np.int64)
    assert calibration(labels, probabilities).error < 0.02
    assert calibration(1 - labels, probabilities).error > 0.4
