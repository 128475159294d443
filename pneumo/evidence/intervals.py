"""Figures with their intervals, and two networks compared on the same pictures.

Everywhere `labels` has shape (n,), 0 for NORMAL and 1 for PNEUMONIA, `probabilities` shape (n,), a float dtype, 0 to 1,
and `patients` shape (n,), whose picture each is: strings or integers.

Pictures of one patient are alike, so that twenty of them say less than twenty patients. The bootstrap therefore draws
patients, with replacement and as many as there are, and all pictures of a patient count as often as the patient was
drawn. A resample is a row of whole-number weights; the figures are computed for many rows at a time.

Sources: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, Chapman & Hall 1993, chapter 13 (percentile
intervals); C. A. Field, A. H. Welsh, Bootstrapping clustered data, Journal of the Royal Statistical Society B 69(3),
369-390, 2007 (drawing whole clusters).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from pneumo.evidence.metrics import CALIBRATION_BINS, Array, calibration_bin, predicted
from pneumo.spec.promotion import FIGURES

RESAMPLES = 2000
COVERAGE = 0.95

_ELEMENTS = 1_000_000
"""Weights that are computed with at a time: some ten arrays of 8 MB."""


@dataclass(frozen=True)
class Interval:
    """A figure on all pictures, and its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """As JSON can hold it: None for NaN."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if math.isnan(number) else number for name, number in numbers.items()}

    @classmethod
    def from_dict(cls, numbers: Mapping[str, float | None]) -> Interval:
        """What `as_dict` gave."""
        return cls(**{name: math.nan if number is None else number for name, number in numbers.items()})


@dataclass(frozen=True)
class McNemar:
    """The pictures that one of two networks alone is right on, and the two-sided p-value of their being as many."""

    only_ours_right: int
    only_theirs_right: int
    p_value: float


def figures(
    labels: Array,
    probabilities: Array,
    patients: Array,
    threshold: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Each of `FIGURES` on all pictures with its 95 % percentile interval over resampled patients.

    Accuracy, sensitivity, specificity, precision and F1 are those at `probability >= threshold`; the calibration error is
    the expected one, over `CALIBRATION_BINS` bins. A figure that divides nothing by nothing, as sensitivity without a case
    of pneumonia, is NaN, and so are AUC and average precision where only one class is present. Resamples in which a figure
    is not defined are left out of its interval. `low` and `high` are NaN where no resample is left and where there is only
    one patient. Resampling makes calibration look worse than it is: that error's interval may lie above its value.

    The same arguments give the same intervals. Raises `ValueError` where there is no picture, the lengths differ, a label
    is neither 0 nor 1, or a probability is NaN or outside 0 to 1.
    """
    labels, patient_of, (probabilities,) = _checked(labels, patients, probabilities)
    ranking = _ranking(probabilities)
    sums = _sums_by_patient(labels, probabilities, patient_of, threshold)

    def compute(drawn: Array) -> Array:
        found, called = _curve(labels, patient_of, ranking, drawn)
        return np.column_stack([*_at_threshold(drawn @ sums), _auc(found, called), _average_precision(found, called)])

    order = ("accuracy", "sensitivity", "specificity", "precision", "f1", "brier", "calibration_error")
    names = (*order, "auc", "average_precision")
    intervals = dict(zip(names, _intervals(compute, patient_of, resamples, seed), strict=True))
    return {name: intervals[name] for name in FIGURES}


def auc_difference(
    labels: Array, ours: Array, theirs: Array, patients: Array, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The area under our ROC curve less that under theirs, on the same pictures, with its 95 % percentile interval.

    `ours` and `theirs` are probabilities. Both areas of a resample are of the same patients, so what makes a draw hard for
    both cancels out. NaN and `ValueError` as in `figures`.
    """
    labels, patient_of, both = _checked(labels, patients, ours, theirs)
    rankings = [_ranking(probabilities) for probabilities in both]

    def compute(drawn: Array) -> Array:
        areas = [_auc(*_curve(labels, patient_of, ranking, drawn)) for ranking in rankings]
        return (areas[0] - areas[1])[:, None]

    (difference,) = _intervals(compute, patient_of, resamples, seed)
    return difference


def mcnemar(labels: Array, ours: Array, theirs: Array) -> McNemar:
    """McNemar's exact test of two networks' predicted labels, `ours` and `theirs`, shape (n,), 0 and 1.

    Of the pictures that one alone is right on, either is right on half if they are equally good: a two-sided binomial
    test. The p-value is 1.0 where there is no such picture. It takes each picture as independent of the others, which those
    of one patient are not. Raises `ValueError` where the lengths differ.

    Sources: Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12(2), 153-157, 1947; A. Agresti, Categorical Data Analysis, 3rd edition, Wiley 2013, section 11.1.
    """
    labels, ours, theirs = np.asarray(labels), np.asarray(ours), np.asarray(theirs)
    if not labels.shape == ours.shape == theirs.shape:
        raise ValueError(f"labels, ours and theirs must be as many, got {labels.shape}, {ours.shape}, {theirs.shape}")
    only_ours = int(np.sum((ours == labels) & (theirs != labels)))
    only_theirs = int(np.sum((ours != labels) & (theirs == labels)))
    divided = only_ours + only_theirs
    p_value = float(binomtest(only_ours, divided, 0.5).pvalue) if divided else 1.0
    return McNemar(only_ours, only_theirs, p_value)


def _checked(labels: Array, patients: Array, *probabilities: Array) -> tuple[Array, Array, list[Array]]:
    """The labels, each picture's patient as a number from 0, and the probabilities in their own precision."""
    labels, patients = np.asarray(labels), np.asarray(patients)
    probabilities = tuple(np.asarray(each) for each in probabilities)
    if any(array.shape != (len(labels),) for array in (labels, patients, *probabilities)):
        shapes = ", ".join(str(array.shape) for array in (labels, patients, *probabilities))
        raise ValueError(f"labels, patients and probabilities must be as many, got {shapes}")
    if not len(labels):
        raise ValueError("there must be at least one picture")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not all(((each >= 0) & (each <= 1)).all() for each in probabilities):
        raise ValueError("probabilities must be 0 to 1")
    return labels.astype(np.int64), np.unique(patients, return_inverse=True)[1], list(probabilities)


def _intervals(compute: Callable[[Array], Array], patient_of: Array, resamples: int, seed: int) -> Iterator[Interval]:
    """Of each column that `compute` gives for rows of how often each patient counts, shape (rows, patients)."""
    patients = int(patient_of.max()) + 1
    values = compute(np.ones((1, patients)))[0]
    rows = max(1, _ELEMENTS // len(patient_of))
    drawn = [compute(each) for each in _draws(patients, resamples, rows, seed)]
    for column, value in enumerate(values):
        resampled = np.concatenate([each[:, column] for each in drawn]) if drawn and patients > 1 else np.empty(0)
        defined = resampled[~np.isnan(resampled)]
        low, high = math.nan, math.nan
        if defined.size and not np.isnan(value):
            low, high = np.quantile(defined, ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
        yield Interval(float(value), float(low), float(high))


def _draws(patients: int, resamples: int, rows: int, seed: int) -> Iterator[Array]:
    """How often each patient was drawn, float64 (up to `rows`, patients) at a time, `resamples` rows in all."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = generator.integers(0, patients, (size, patients)) + patients * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * patients).reshape(size, patients).astype(np.float64)


def _sums_by_patient(labels: Array, probabilities: Array, patient_of: Array, threshold: float) -> Array:
    """What the figures at a threshold are made of, summed over each patient's pictures: float64 (patients, columns)."""
    positive = predicted(probabilities, threshold)
    exact = np.asarray(probabilities, np.float64)
    cells = [(labels == truth) & (positive == guess) for truth in (0, 1) for guess in (0, 1)]
    bin_of = calibration_bin(exact)
    excess = [np.where(bin_of == each, exact - labels, 0.0) for each in range(CALIBRATION_BINS)]
    columns = [*cells, (exact - labels) ** 2, *excess]
    return np.column_stack([np.bincount(patient_of, column) for column in columns])


def _at_threshold(sums: Array) -> list[Array]:
    """Accuracy, sensitivity, specificity, precision, F1, Brier score and calibration error, each (rows,)."""
    true_negatives, false_positives, false_negatives, true_positives, squares, *_ = sums.T
    pictures = true_negatives + false_positives + false_negatives + true_positives
    with np.errstate(invalid="ignore"):  # nothing divided by nothing is NaN, as it should be
        return [
            (true_positives + true_negatives) / pictures,
            true_positives / (true_positives + false_negatives),
            true_negatives / (true_negatives + false_positives),
            true_positives / (true_positives + false_positives),
            2 * true_positives / (2 * true_positives + false_positives + false_negatives),
            squares / pictures,
            np.abs(sums[:, 5:]).sum(axis=1) / pictures,
        ]


def _ranking(probabilities: Array) -> tuple[Array, Array]:
    """The pictures from the highest probability down, and where in that order each run of equal ones ends."""
    order = np.argsort(-probabilities, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(probabilities[order]) != 0, True))
    return order, ends


def _curve(labels: Array, patient_of: Array, ranking: tuple[Array, Array], drawn: Array) -> tuple[Array, Array]:
    """Cases found and pictures called positive at each distinct probability as the threshold, each (rows, distinct)."""
    order, ends = ranking
    weights = np.take(drawn, patient_of[order], axis=1)
    called = np.cumsum(weights, axis=1)
    weights *= labels[order]
    found = np.cumsum(weights, axis=1, out=weights)
    if len(ends) == len(order):
        return found, called
    return found[:, ends], called[:, ends]


def _auc(found: Array, called: Array) -> Array:
    """By trapezoids, so that a case and a NORMAL of equal probability count one half."""
    false = called - found
    doubled = false[:, 0] * found[:, 0] + np.einsum("rk,rk->r", np.diff(false), found[:, 1:] + found[:, :-1])
    with np.errstate(invalid="ignore"):
        return np.asarray(doubled / (2 * found[:, -1] * false[:, -1]))


def _average_precision(found: Array, called: Array) -> Array:
    """Precision at each threshold, weighted by the cases that it adds; no interpolation, as scikit-learn does."""
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    total = found[:, 0] * precision[:, 0] + np.einsum("rk,rk->r", np.diff(found), precision[:, 1:])
    cases = found[:, -1]
    both = (cases > 0) & (called[:, -1] > cases)
    return np.asarray(np.divide(total, cases, out=np.full_like(total, np.nan), where=both))
