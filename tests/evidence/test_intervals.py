"""Tests of pneumo.evidence.intervals against scikit-learn, scipy, DeLong's method and published tables."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, bootstrap, norm
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from pneumo.evidence import intervals
from pneumo.evidence.intervals import Interval, McNemar, accuracy_difference, auc_difference, compute_figures, mcnemar
from pneumo.evidence.metrics import Array
from pneumo.spec.promotion import FIGURES

THRESHOLD = 0.45


def _sample(seed: int, n: int = 150, digits: int = 8, dtype: type = np.float32) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < 0.6).astype(np.int64)
    return labels, generator.normal(0.4 + 0.2 * labels, 0.25).clip(0, 1).round(digits).astype(dtype)


def _by_scikit_learn(labels: Array, probabilities: Array, weights: Array | None = None) -> dict[str, float]:
    positive = (probabilities >= THRESHOLD).astype(np.int64)
    weighted: dict[str, Any] = {"sample_weight": weights}
    return {
        "accuracy": accuracy_score(labels, positive, **weighted),
        "sensitivity": recall_score(labels, positive, zero_division=np.nan, **weighted),
        "specificity": recall_score(labels, positive, pos_label=0, zero_division=np.nan, **weighted),
        "precision": precision_score(labels, positive, zero_division=np.nan, **weighted),
        "f1": f1_score(labels, positive, zero_division=np.nan, **weighted),
        "auc": roc_auc_score(labels, probabilities, **weighted),
        "average_precision": average_precision_score(labels, probabilities, **weighted),
        "brier": brier_score_loss(labels, probabilities.astype(np.float64), **weighted),
        "calibration_error": _calibration_error(labels, probabilities, weights),
    }


def _calibration_error(labels: Array, probabilities: Array, weights: Array | None) -> float:
    """Return the expected calibration error, bin by bin; scikit-learn has none."""
    weights = np.ones(len(labels)) if weights is None else weights
    error = 0.0
    for number in range(10):
        inside = [min(int(float(p) * 10), 9) == number for p in probabilities]
        weight = weights[inside].sum()
        if weight:
            announced = np.average(probabilities[inside].astype(np.float64), weights=weights[inside])
            error += weight * abs(announced - np.average(labels[inside], weights=weights[inside]))
    return error / float(weights.sum())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("digits", [1, 8])
@pytest.mark.parametrize("seed", range(4))
def test_figures_and_each_resample_agree_with_scikit_learn(seed: int, digits: int, dtype: type) -> None:
    labels, probabilities = _sample(seed, 80, digits, dtype)
    patient = np.random.default_rng(seed).integers(0, 30, 80)
    patient[:30] = np.arange(30)
    # With one resample both ends of the interval are the figure of that resample.
    result = compute_figures(labels, probabilities, patient, THRESHOLD, resamples=1, seed=seed)
    drawn = np.random.default_rng(seed).integers(0, 30, 30)
    weights = np.bincount(drawn, minlength=30)[patient]
    everything = _by_scikit_learn(labels, probabilities)
    weighted = _by_scikit_learn(labels, probabilities, weights)
    repeated = _by_scikit_learn(np.repeat(labels, weights), np.repeat(probabilities, weights))
    assert tuple(result) == FIGURES == tuple(everything)
    for name, interval in result.items():
        assert interval.value == pytest.approx(everything[name], abs=1e-12), name
        assert interval.low == interval.high, name
        assert interval.low == pytest.approx(weighted[name], abs=1e-12), name
        assert interval.low == pytest.approx(repeated[name], abs=1e-12), name


def test_calibration_error_of_hand_worked_bins() -> None:
    # The last bin takes 0.95 and 1.0 (mean 0.975, one of two ill), the first 0.05 twice (none ill).
    result = compute_figures(np.array([0, 0, 1, 0]), np.array([0.05, 0.05, 0.95, 1.0]), np.arange(4), 0.5)
    assert result["calibration_error"].value == pytest.approx((2 * 0.05 + 2 * 0.475) / 4, abs=1e-12)
    assert result["brier"].value == pytest.approx((0.05**2 * 3 + 1) / 4, abs=1e-12)


def _auc_by_pairs(labels: Array, probabilities: Array) -> float:
    apart = probabilities[labels == 1][:, None] - probabilities[labels == 0]
    return float(np.mean((apart > 0) + 0.5 * (apart == 0)))


def test_intervals_are_the_percentile_bootstrap_of_scipy_where_every_patient_has_one_picture() -> None:
    labels, probabilities = _sample(5, 150, 2, np.float64)
    result = compute_figures(labels, probabilities, np.arange(150), THRESHOLD, resamples=4000, seed=1)
    statistics = {
        "accuracy": lambda y, p: float(np.mean((p >= THRESHOLD) == y)),
        "specificity": lambda y, p: float(np.mean(p[y == 0] < THRESHOLD)),
        "brier": lambda y, p: float(np.mean((p - y) ** 2)),
        "auc": _auc_by_pairs,
    }
    for name, statistic in statistics.items():
        theirs = bootstrap(
            (labels, probabilities),
            statistic,
            n_resamples=4000,
            vectorized=False,
            paired=True,
            method="percentile",
            rng=np.random.default_rng(2),
        )
        # With 4,000 resamples an end varies by about 0.04 standard errors.
        tolerance = 0.25 * theirs.standard_error
        assert result[name].low == pytest.approx(theirs.confidence_interval.low, abs=tolerance), name
        assert result[name].high == pytest.approx(theirs.confidence_interval.high, abs=tolerance), name


def test_a_patients_copies_add_nothing_and_copies_taken_for_patients_seem_to() -> None:
    labels, probabilities = _sample(6, 200)
    patients, copies = np.arange(200), 4
    single = compute_figures(labels, probabilities, patients, THRESHOLD)
    many = [np.repeat(array, copies) for array in (labels, probabilities, patients)]
    clustered = compute_figures(many[0], many[1], many[2], THRESHOLD)
    naive = compute_figures(many[0], many[1], np.arange(200 * copies), THRESHOLD)
    for name in FIGURES:
        ends = (clustered[name].value, clustered[name].low, clustered[name].high)
        assert ends == pytest.approx((single[name].value, single[name].low, single[name].high), abs=1e-12), name
        if name != "calibration_error":  # it is biased, and more patients reduce the bias
            ratio = (clustered[name].high - clustered[name].low) / (naive[name].high - naive[name].low)
            assert ratio == pytest.approx(math.sqrt(copies), rel=0.12), name


@settings(deadline=None, max_examples=30)
@given(data=st.data(), n=st.integers(1, 12))
def test_the_order_of_pictures_and_the_names_of_patients_do_not_matter(data: st.DataObject, n: int) -> None:
    labels = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    probabilities = np.array(data.draw(st.lists(st.floats(0, 1, width=16), min_size=n, max_size=n)))
    patients = np.array(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)))
    order = np.array(data.draw(st.permutations(range(n))))
    result = compute_figures(labels, probabilities, patients, 0.5, resamples=20)
    named = np.array([f"person{patient}" for patient in patients])
    again = compute_figures(labels[order], probabilities[order], named[order], 0.5, resamples=20)
    for name in FIGURES:
        ours, theirs = result[name], again[name]
        np.testing.assert_allclose(
            [ours.value, ours.low, ours.high], [theirs.value, theirs.low, theirs.high], atol=1e-12, err_msg=name
        )
        assert not ours.low > ours.high


def test_a_seed_gives_the_same_however_many_resamples_are_computed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities = _sample(7)
    patients = np.arange(150) // 2
    first = compute_figures(labels, probabilities, patients, THRESHOLD, resamples=200, seed=3)
    assert compute_figures(labels, probabilities, patients, THRESHOLD, resamples=200, seed=3) == first
    assert compute_figures(labels, probabilities, patients, THRESHOLD, resamples=200, seed=4) != first
    monkeypatch.setattr(intervals, "_ELEMENTS", 150 * 7)
    by_sevens = compute_figures(labels, probabilities, patients, THRESHOLD, resamples=200, seed=3)
    for name in FIGURES:
        assert by_sevens[name].low == pytest.approx(first[name].low, abs=1e-12)
        assert by_sevens[name].high == pytest.approx(first[name].high, abs=1e-12)


def test_resamples_in_which_a_figure_is_not_defined_are_left_out() -> None:
    # Three in ten resamples have no case. In the others sensitivity, AUC and average precision are 1.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = compute_figures(np.array([1, 0, 0]), np.array([0.9, 0.2, 0.3]), np.arange(3), 0.5)
    for name in ("sensitivity", "auc", "average_precision", "precision", "specificity"):
        assert result[name] == Interval(1.0, 1.0, 1.0), name


@pytest.mark.parametrize("label", [0, 1])
def test_what_one_class_cannot_tell_is_nan_and_makes_no_noise(label: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = compute_figures(np.full(5, label), np.array([0.1, 0.2, 0.3, 0.6, 0.9]), np.arange(5), 0.5)
        difference = auc_difference(np.full(5, label), np.linspace(0, 1, 5), np.linspace(0.1, 1, 5), np.arange(5))
    undefined = {name for name, interval in result.items() if math.isnan(interval.value)}
    assert undefined == {"auc", "average_precision", "specificity" if label else "sensitivity"}
    assert result["accuracy"].value == (0.4 if label else 0.6)
    for interval in (difference, *(result[name] for name in undefined)):
        assert interval.as_dict() == {"value": None, "low": None, "high": None}


def test_one_patient_gives_figures_without_intervals() -> None:
    labels, probabilities = _sample(8)
    result = compute_figures(labels, probabilities, np.zeros(150), THRESHOLD)
    for name, value in _by_scikit_learn(labels, probabilities).items():
        assert result[name].value == pytest.approx(value, abs=1e-12)
        assert math.isnan(result[name].low)
        assert math.isnan(result[name].high)
        assert json.loads(json.dumps(result[name].as_dict(), allow_nan=False))["low"] is None


@pytest.mark.parametrize(
    ("labels", "probabilities", "patients", "message"),
    [
        ([0, 1], [0.2, 0.3, 0.4], [0, 1], "same length"),
        ([0, 1], [0.2, 0.3], [0], "same length"),
        ([], [], [], "at least one picture"),
        ([0, 2], [0.2, 0.3], [0, 1], "labels must be 0 or 1"),
        ([0, 1], [0.2, np.nan], [0, 1], "from 0 to 1"),
        ([0, 1], [0.2, 1.1], [0, 1], "from 0 to 1"),
    ],
)
def test_wrong_arrays_are_refused(
    labels: list[int], probabilities: list[float], patients: list[int], message: str
) -> None:
    arrays = np.array(labels), np.array(probabilities), np.array(patients)
    with pytest.raises(ValueError, match=message):
        compute_figures(*arrays, 0.5)
    with pytest.raises(ValueError, match=message):
        auc_difference(arrays[0], arrays[1], arrays[1], arrays[2])


def _delong(labels: Array, ours: Array, theirs: Array) -> tuple[float, float]:
    """Return the difference of two areas and its standard error.

    Source: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Comparing the areas under two or more correlated ROC curves,
    Biometrics 44(3), 837-845, 1988, equations 3 to 7.
    """
    by_case, by_normal = [], []
    for probabilities in (ours, theirs):
        apart = probabilities[labels == 1][:, None] - probabilities[labels == 0]
        better = (apart > 0) + 0.5 * (apart == 0)
        by_case.append(better.mean(axis=1))
        by_normal.append(better.mean(axis=0))
    variance = sum(np.var(each[0] - each[1], ddof=1) / len(each[0]) for each in (by_case, by_normal))
    return float(by_case[0].mean() - by_case[1].mean()), math.sqrt(variance)


def test_delong_by_hand() -> None:
    # Ours: cases 3 and 1, NORMAL 0 and 2: placements 1 and 1/2 both ways, each of variance 1/8. Theirs: no variance.
    labels = np.array([1, 1, 0, 0])
    difference, error = _delong(labels, np.array([3.0, 1.0, 0.0, 2.0]), np.array([1.0, 1.0, 0.0, 0.0]))
    assert difference == -0.25
    assert error == pytest.approx(math.sqrt((1 / 8) / 2 + (1 / 8) / 2))


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_a_difference_is_as_wide_as_delongs(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = (generator.random(500) < 0.5).astype(np.int64)
    shared = generator.normal(labels, 1.0)  # the networks largely agree, so pairing narrows the interval
    ours, theirs = (norm.cdf(shared + generator.normal(0, spread, 500)) for spread in (0.4, 0.6))
    difference, error = _delong(labels, ours, theirs)
    result = auc_difference(labels, ours, theirs, np.arange(500), resamples=4000, seed=seed)
    assert result.value == pytest.approx(difference, abs=1e-12)
    assert (result.high - result.low) / (2 * norm.ppf(0.975)) == pytest.approx(error, rel=0.08)
    assert (result.high + result.low) / 2 == pytest.approx(difference, abs=0.2 * error)


def test_the_same_network_differs_by_nothing_in_any_resample() -> None:
    labels, probabilities = _sample(9, digits=2)
    patients = np.arange(150) // 3
    assert auc_difference(labels, probabilities, probabilities, patients) == Interval(0.0, 0.0, 0.0)
    assert auc_difference(labels, probabilities, np.sqrt(probabilities), patients) == Interval(0.0, 0.0, 0.0)


def test_the_interval_of_an_accuracys_difference_is_that_of_a_paired_mean_and_goes_by_patient() -> None:
    labels, ours, theirs = _table(300, 70, 40, 90)
    gains = (ours == labels).astype(float) - (theirs == labels)
    result = accuracy_difference(labels, ours, theirs, np.arange(500), resamples=4000)
    assert result.value == pytest.approx(0.06)
    error = gains.std(ddof=1) / math.sqrt(500)
    assert (result.high - result.low) / (2 * norm.ppf(0.975)) == pytest.approx(error, rel=0.08)
    # Three copies of a picture carry no more information than one.
    thrice = [np.repeat(array, 3) for array in (labels, ours, theirs, np.arange(500))]
    again = accuracy_difference(*thrice, resamples=4000)
    assert (again.low, again.high) == pytest.approx((result.low, result.high))
    assert accuracy_difference(labels, ours, ours, np.arange(500)) == Interval(0.0, 0.0, 0.0)


def _table(both: int, only_ours: int, only_theirs: int, neither: int) -> tuple[Array, Array, Array]:
    """Return labels and both networks' predicted labels with the given counts."""
    right = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, only_ours, only_theirs, neither], axis=0)
    labels = np.arange(len(right)) % 2
    return labels, *np.where(right == 1, labels[:, None], 1 - labels[:, None]).T


@pytest.mark.parametrize(
    ("table", "published"),
    [
        # P. Armitage, G. Berry, Statistical Methods in Medical Research, 3rd edition 1994, p. 127: two media for
        # tubercle bacilli; the exact p-value as StatsDirect's manual gives it.
        ((20, 12, 2, 16), 0.0129),
        # M. W. Fagerland, S. Lydersen, P. Laake, BMC Medical Research Methodology 13:91, 2013, table 1 (Bentur):
        # airways before and after a transplantation.
        ((1, 1, 7, 12), 0.0703),
    ],
)
def test_mcnemar_of_published_tables(table: tuple[int, int, int, int], published: float) -> None:
    result = mcnemar(*_table(*table))
    assert (result.only_ours_right, result.only_theirs_right) == table[1:3]
    assert round(result.p_value, 4) == published


@settings(deadline=None)
@given(table=st.tuples(*[st.integers(0, 40)] * 4))
def test_mcnemar_is_twice_the_smaller_tail(table: tuple[int, int, int, int]) -> None:
    result = mcnemar(*_table(*table))
    fewer, divided = min(table[1:3]), table[1] + table[2]
    assert result.p_value == pytest.approx(min(1.0, 2 * binom.cdf(fewer, divided, 0.5)), rel=1e-9)
    swapped = mcnemar(*_table(table[0], table[2], table[1], table[3]))
    assert swapped == McNemar(result.only_theirs_right, result.only_ours_right, result.p_value)


def test_mcnemar_of_the_approval_ratings() -> None:
    # A. Agresti, Categorical Data Analysis, 1990, p. 350: 794 and 570 agree, 150 and 86 changed their minds.
    # Its statistic is (86 - 150)^2 / (86 + 150) = 17.36; the exact p-value is near that of the chi-squared one.
    result = mcnemar(*_table(794, 86, 150, 570))
    assert (result.only_ours_right, result.only_theirs_right) == (86, 150)
    assert result.p_value == pytest.approx(2 * norm.sf(math.sqrt(17.36)), rel=0.25)
    assert result.p_value == pytest.approx(2 * binom.cdf(86, 236, 0.5), rel=1e-9)


def test_networks_that_no_picture_divides_have_a_p_value_of_one() -> None:
    assert mcnemar(*_table(5, 0, 0, 3)) == McNemar(0, 0, 1.0)
    with pytest.raises(ValueError, match="same length"):
        mcnemar(np.zeros(3), np.zeros(3), np.zeros(2))
