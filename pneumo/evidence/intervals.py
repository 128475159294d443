"""Compute figures with bootstrap intervals, and compare two networks on the same pictures.

In all functions `labels` has shape (n,), 0 for NORMAL and 1 for PNEUMONIA, `probabilities` has shape (n,), a float dtype,
from 0 to 1, and `patients` has shape (n,): the patient of each picture, strings or integers.

Pictures of one patient are alike, so twenty of them carry less information than twenty patients. The bootstrap therefore
draws patients, with replacement, and a picture counts as often as its patient was drawn. A resample is a row of integer
weights; the figures are computed for many rows at once. A picture whose patient is not known counts as a patient of its own.
If a patient has several such pictures, the intervals are too narrow; `interval_unit` says so for people.

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

from pneumo.evidence.metrics import CALIBRATION_BINS, Array, calibration_bin, predict_labels
from pneumo.spec.promotion import FIGURES

RESAMPLES = 2000
"""Number of bootstrap resamples."""

COVERAGE = 0.95
"""Coverage of the intervals."""

_ELEMENTS = 1_000_000
"""Number of weights per computation, which takes about ten arrays of 8 MB."""


@dataclass(frozen=True)
class Interval:
    """A figure on all pictures and its 95 % interval; NaN if not defined."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Return the numbers as JSON values, with None for NaN."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if math.isnan(number) else number for name, number in numbers.items()}

    @classmethod
    def from_dict(cls, numbers: Mapping[str, float | None]) -> Interval:
        """Return the interval that `as_dict` converted."""
        return cls(**{name: math.nan if number is None else number for name, number in numbers.items()})


@dataclass(frozen=True)
class McNemar:
    """The result of McNemar's test of two networks.

    Attributes:
        only_ours_right: Number of pictures that only our network classifies correctly.
        only_theirs_right: Number of pictures that only their network classifies correctly.
        p_value: Two-sided p-value of the hypothesis that both are equally accurate.
    """

    only_ours_right: int
    only_theirs_right: int
    p_value: float


def compute_figures(
    labels: Array,
    probabilities: Array,
    patients: Array,
    threshold: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return each of `FIGURES` on all pictures, with its 95 % percentile interval over resampled patients.

    Accuracy, sensitivity, specificity, precision and F1 are those at `probability >= threshold`. The calibration error is the
    expected calibration error over `CALIBRATION_BINS` bins; resampling increases it, so its interval may lie above its value.

    A figure is NaN if its denominator is 0, as the sensitivity if no picture has pneumonia; AUC and average precision are NaN
    if only one class is present. Resamples in which a figure is NaN are left out of its interval. `low` and `high` are NaN if
    no resample remains, and if there is only one patient.

    Args:
        labels: Labels.
        probabilities: Probabilities.
        patients: Patients.
        threshold: The operating point.
        resamples: Number of resamples.
        seed: Seed of the resamples; the same arguments give the same intervals.

    Raises:
        ValueError: There is no picture, the lengths differ, a label is neither 0 nor 1, or a probability is NaN or not from
            0 to 1.
    """
    labels, patient_of, (probabilities,) = _check_arrays(labels, patients, probabilities)
    ranking = _rank(probabilities)
    sums = _sums_by_patient(labels, probabilities, patient_of, threshold)

    def compute(draws: Array) -> Array:
        cases, called = _cumulative_counts(labels, patient_of, ranking, draws)
        return np.column_stack([*_at_threshold(draws @ sums), _auc(cases, called), _average_precision(cases, called)])

    order = ("accuracy", "sensitivity", "specificity", "precision", "f1", "brier", "calibration_error")
    names = (*order, "auc", "average_precision")
    intervals = dict(zip(names, _intervals(compute, patient_of, resamples, seed), strict=True))
    return {name: intervals[name] for name in FIGURES}


def interval_unit(unknown: int, pictures: int) -> str:
    """Return what the bootstrap draws, for people, if the patient of `unknown` of the pictures is not known."""
    if not unknown:
        return "by patient"
    return "by picture" if unknown == pictures else "by patient, or by picture if the patient is not known"


def auc_difference(
    labels: Array, ours: Array, theirs: Array, patients: Array, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the area under our ROC curve minus that under theirs, with its 95 % percentile interval.

    Both areas of a resample are computed on the same patients, so the difficulty of the patients drawn cancels out.

    Args:
        labels: Labels.
        ours: Probabilities of our network.
        theirs: Probabilities of their network.
        patients: Patients.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        The difference, NaN as in `compute_figures`.

    Raises:
        ValueError: As in `compute_figures`.
    """
    return mean_auc_difference(
        labels, np.asarray(ours)[None], np.asarray(theirs)[None], patients, resamples=resamples, seed=seed
    )


def mean_auc_difference(
    labels: Array, ours: Array, theirs: Array, patients: Array, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the difference of the mean areas under several ROC curves, with its interval as in `auc_difference`.

    Each curve is that of the same pictures under another change.

    Args:
        labels: Labels.
        ours: Probabilities of our network, shape (changes, n).
        theirs: Probabilities of their network, shape (changes, n).
        patients: Patients.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        ValueError: As in `compute_figures`, or the numbers of changes differ.
    """
    labels, patient_of, rows = _check_arrays(labels, patients, *ours, *theirs)
    if len(ours) != len(theirs):
        raise ValueError(f"ours and theirs must have the same number of changes, got {len(ours)} and {len(theirs)}")
    rankings = [_rank(probabilities) for probabilities in rows]

    def compute(draws: Array) -> Array:
        areas = np.array([_auc(*_cumulative_counts(labels, patient_of, ranking, draws)) for ranking in rankings])
        return np.asarray(areas[: len(ours)].mean(axis=0) - areas[len(ours) :].mean(axis=0))[:, None]

    (difference,) = _intervals(compute, patient_of, resamples, seed)
    return difference


def accuracy_difference(
    labels: Array, ours: Array, theirs: Array, patients: Array, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return our accuracy minus theirs, with its 95 % percentile interval, over the same patients as in `auc_difference`.

    Args:
        labels: Labels.
        ours: Predicted labels of our network, 0 or 1.
        theirs: Predicted labels of their network, 0 or 1.
        patients: Patients.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        ValueError: As in `compute_figures`.
    """
    labels, patient_of, both = _check_arrays(labels, patients, ours, theirs)
    gains = (both[0] == labels).astype(np.float64) - (both[1] == labels)
    sums = np.column_stack([np.bincount(patient_of, gains), np.bincount(patient_of)])

    def compute(draws: Array) -> Array:
        gained, pictures = (draws @ sums).T
        return np.asarray(gained / pictures)[:, None]

    (difference,) = _intervals(compute, patient_of, resamples, seed)
    return difference


def mcnemar(labels: Array, ours: Array, theirs: Array) -> McNemar:
    """Return McNemar's exact test of the predicted labels of two networks.

    If both networks are equally accurate, each is right on half of the pictures that only one of them classifies correctly:
    a two-sided binomial test. The test assumes that pictures are independent, which those of one patient are not.

    Args:
        labels: 0 or 1, shape (n,).
        ours: Predicted labels of our network, shape (n,).
        theirs: Predicted labels of their network, shape (n,).

    Returns:
        The counts and the p-value, which is 1.0 if there is no such picture.

    Raises:
        ValueError: The lengths differ.

    Sources: Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12(2), 153-157, 1947; A. Agresti, Categorical Data Analysis, 3rd edition, Wiley 2013, section 11.1.
    """
    labels, ours, theirs = np.asarray(labels), np.asarray(ours), np.asarray(theirs)
    if not labels.shape == ours.shape == theirs.shape:
        raise ValueError(
            f"labels, ours and theirs must have the same length, got {labels.shape}, {ours.shape}, {theirs.shape}"
        )
    only_ours = int(np.sum((ours == labels) & (theirs != labels)))
    only_theirs = int(np.sum((ours != labels) & (theirs == labels)))
    discordant = only_ours + only_theirs
    p_value = float(binomtest(only_ours, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_ours, only_theirs, p_value)


def _check_arrays(labels: Array, patients: Array, *probabilities: Array) -> tuple[Array, Array, list[Array]]:
    """Check the arrays and return the labels, each picture's patient as a number from 0, and the probabilities.

    Raises:
        ValueError: As in `compute_figures`.
    """
    labels, patients = np.asarray(labels), np.asarray(patients)
    probabilities = tuple(np.asarray(array) for array in probabilities)
    if any(array.shape != (len(labels),) for array in (labels, patients, *probabilities)):
        shapes = ", ".join(str(array.shape) for array in (labels, patients, *probabilities))
        raise ValueError(f"labels, patients and probabilities must have the same length, got {shapes}")
    if not len(labels):
        raise ValueError("there must be at least one picture")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not all(((array >= 0) & (array <= 1)).all() for array in probabilities):
        raise ValueError("probabilities must be from 0 to 1")
    return labels.astype(np.int64), np.unique(patients, return_inverse=True)[1], list(probabilities)


def _intervals(compute: Callable[[Array], Array], patient_of: Array, resamples: int, seed: int) -> Iterator[Interval]:
    """Yield the interval of each figure.

    Args:
        compute: Returns the figures, shape (rows, figures), for the number of times that each patient counts, shape
            (rows, patients).
        patient_of: The patient of each picture, shape (n,), int64 from 0.
        resamples: Number of resamples.
        seed: Seed of the resamples.
    """
    patients = int(patient_of.max()) + 1
    values = compute(np.ones((1, patients)))[0]
    rows = max(1, _ELEMENTS // len(patient_of))
    chunks = [compute(draws) for draws in _draws(patients, resamples, rows, seed)]
    for column, value in enumerate(values):
        resampled = np.concatenate([chunk[:, column] for chunk in chunks]) if chunks and patients > 1 else np.empty(0)
        defined = resampled[~np.isnan(resampled)]
        low, high = math.nan, math.nan
        if defined.size and not np.isnan(value):
            low, high = np.quantile(defined, ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
        yield Interval(float(value), float(low), float(high))


def _draws(patients: int, resamples: int, rows: int, seed: int) -> Iterator[Array]:
    """Yield how often each patient was drawn, float64 (up to `rows`, patients), in total `resamples` rows."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = generator.integers(0, patients, (size, patients)) + patients * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * patients).reshape(size, patients).astype(np.float64)


def _sums_by_patient(labels: Array, probabilities: Array, patient_of: Array, threshold: float) -> Array:
    """Return the terms of the figures at a threshold, summed over each patient's pictures: float64 (patients, terms)."""
    positive = predict_labels(probabilities, threshold)
    exact = np.asarray(probabilities, np.float64)
    cells = [(labels == truth) & (positive == guess) for truth in (0, 1) for guess in (0, 1)]
    bin_of = calibration_bin(exact)
    excess = [np.where(bin_of == number, exact - labels, 0.0) for number in range(CALIBRATION_BINS)]
    columns = [*cells, (exact - labels) ** 2, *excess]
    return np.column_stack([np.bincount(patient_of, column) for column in columns])


def _at_threshold(sums: Array) -> list[Array]:
    """Return accuracy, sensitivity, specificity, precision, F1, Brier score and calibration error, each of shape (rows,)."""
    true_negatives, false_positives, false_negatives, true_positives, squares, *_ = sums.T
    pictures = true_negatives + false_positives + false_negatives + true_positives
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as documented
        return [
            (true_positives + true_negatives) / pictures,
            true_positives / (true_positives + false_negatives),
            true_negatives / (true_negatives + false_positives),
            true_positives / (true_positives + false_positives),
            2 * true_positives / (2 * true_positives + false_positives + false_negatives),
            squares / pictures,
            np.abs(sums[:, 5:]).sum(axis=1) / pictures,
        ]


def _rank(probabilities: Array) -> tuple[Array, Array]:
    """Return the pictures in falling order of probability, and the positions at which runs of equal ones end."""
    order = np.argsort(-probabilities, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(probabilities[order]) != 0, True))
    return order, ends


def _cumulative_counts(
    labels: Array, patient_of: Array, ranking: tuple[Array, Array], draws: Array
) -> tuple[Array, Array]:
    """Return the cases called positive and all pictures called positive, at each distinct probability as the threshold.

    Both have shape (rows, distinct probabilities).
    """
    order, ends = ranking
    weights = np.take(draws, patient_of[order], axis=1)
    called = np.cumsum(weights, axis=1)
    weights *= labels[order]
    cases = np.cumsum(weights, axis=1, out=weights)
    if len(ends) == len(order):
        return cases, called
    return cases[:, ends], called[:, ends]


def _auc(cases: Array, called: Array) -> Array:
    """Return the areas by the trapezoidal rule: a pair of a case and a NORMAL picture of equal probability counts 1/2."""
    normals = called - cases
    doubled = normals[:, 0] * cases[:, 0] + np.einsum("rk,rk->r", np.diff(normals), cases[:, 1:] + cases[:, :-1])
    with np.errstate(invalid="ignore"):
        return np.asarray(doubled / (2 * cases[:, -1] * normals[:, -1]))


def _average_precision(cases: Array, called: Array) -> Array:
    """Return the mean of the precisions weighted by the cases that each threshold adds, as scikit-learn does."""
    precision = np.divide(cases, called, out=np.zeros_like(cases), where=called > 0)
    total = cases[:, 0] * precision[:, 0] + np.einsum("rk,rk->r", np.diff(cases), precision[:, 1:])
    all_cases = cases[:, -1]
    has_both = (all_cases > 0) & (called[:, -1] > all_cases)
    return np.asarray(np.divide(total, all_cases, out=np.full_like(total, np.nan), where=has_both))
