"""Compute metrics from labels and probabilities, after each epoch and at the operating point.

In all functions `labels` has shape (n,), 0 for NORMAL and 1 for PNEUMONIA, and `probabilities` has shape (n,), a float
dtype: the probability of pneumonia, from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix_at_thresholds, f1_score, log_loss, recall_score, roc_auc_score

from pneumo.spec.promotion import ThresholdKind

Array = NDArray[Any]

THRESHOLD_RULES: tuple[ThresholdKind, ...] = get_args(ThresholdKind)
"""Names of the rules that choose an operating point, see `operating_point`."""

LOSS_EPSILON = 1e-7
"""Distance from 0 and 1 to which probabilities are clipped before a logarithm, as Keras does (`keras.config.epsilon`)."""

CALIBRATION_BINS = 10
"""Number of bins of equal width from 0 to 1."""


def epoch_metrics(labels: Array, probabilities: Array) -> dict[str, float]:
    """Return the validation metrics of an epoch.

    Returns:
        `val_loss` (binary cross-entropy in nats, without label smoothing), `val_accuracy` (at 0.5) and `val_auc` (exact).
        `val_auc` is NaN if only one class is present; all three are NaN if a probability is not finite.

    Raises:
        ValueError: The shapes differ, or a label is neither 0 nor 1.
    """
    probabilities = np.asarray(probabilities, np.float64)
    if not np.isfinite(probabilities).all():
        return {"val_loss": np.nan, "val_accuracy": np.nan, "val_auc": np.nan}
    clipped = np.clip(probabilities, LOSS_EPSILON, 1 - LOSS_EPSILON)
    return {
        "val_loss": float(log_loss(labels, clipped, labels=[0, 1])),
        "val_accuracy": float(np.mean((probabilities >= 0.5) == labels)),
        "val_auc": auc(labels, probabilities),
    }


def auc(labels: Array, probabilities: Array) -> float:
    """Return the exact area under the ROC curve, or NaN if only one class is present."""
    return float(roc_auc_score(labels, probabilities)) if has_both_classes(labels) else np.nan


def has_both_classes(labels: Array) -> bool:
    return bool(np.any(labels)) and not bool(np.all(labels))


def operating_point(
    labels: Array, probabilities: Array, rule: ThresholdKind = "youden", value: float | None = None
) -> float:
    """Return the threshold that a rule chooses. A picture is called PNEUMONIA if `probability >= threshold`.

    - `youden`: The largest sensitivity + specificity - 1; of several equal ones the most sensitive. It is 0.5 if no threshold
      is better than chance.
    - `f1`: The largest F1, the harmonic mean of precision and sensitivity; of several equal ones the most sensitive.
    - `sensitivity`: The largest, so most specific, threshold at which the sensitivity is at least `value`.
    - `specificity`: The smallest, so most sensitive, threshold at which the specificity is at least `value`. If NORMAL pictures
      have the highest probabilities, it may call no picture positive; it is then just above 1 if a probability is 1.
    - `fixed`: `value` itself.

    Except for `fixed`, the threshold is the midpoint of two neighbouring probabilities (below the lowest one, the midpoint to
    0; above the highest one, the midpoint to 1) in their own dtype, so that rounding errors in the probabilities do not
    change a decision. It is 0.5 if only one class is present.

    Args:
        labels: Labels of the validation pictures.
        probabilities: Their probabilities.
        rule: One of `THRESHOLD_RULES`.
        value: For `sensitivity`, `specificity` and `fixed`, above 0 and at most 1; otherwise None.

    Raises:
        ValueError: A probability is NaN, the rule is unknown, or `value` does not fit the rule.

    Sources: W. J. Youden, Index for rating diagnostic tests, Cancer 3(1), 32-35, 1950; C. J. van Rijsbergen, Information
    Retrieval, 2nd edition, 1979, chapter 7 (F1).
    """
    _check_rule(rule, value)
    if rule == "fixed":
        assert value is not None
        return float(value)
    probabilities = np.asarray(probabilities)
    true_negatives, false_positives, false_negatives, true_positives, scores = confusion_matrix_at_thresholds(
        labels, probabilities
    )
    if not has_both_classes(labels):
        return 0.5
    # Scores are in falling order, so the last index is the most sensitive and the first the most specific one. A share and
    # `value` are both the floats nearest to the exact numbers, so 19 of 20 is at least 0.95.
    if rule == "sensitivity":
        best = np.flatnonzero(true_positives / (true_positives + false_negatives) >= value)[0]
    elif rule == "specificity":
        specific_enough = np.flatnonzero(true_negatives / (true_negatives + false_positives) >= value)
        if not specific_enough.size:
            return _threshold_above_all(probabilities)
        best = specific_enough[-1]
    else:
        if rule == "f1":
            # Different fractions with up to 2^26 pictures are different floats, so only equal fractions compare equal.
            index = 2 * true_positives / (2 * true_positives + false_positives + false_negatives)
        else:
            # The index times (positives x negatives) is a whole number, so equal ones compare equal.
            index = np.rint(true_positives * true_negatives - false_positives * false_negatives)
            if index.max() <= 0:
                return 0.5
        best = np.flatnonzero(index == index.max())[-1]
    return _midpoint_below(probabilities, probabilities.dtype.type(scores[best]))


def _check_rule(rule: str, value: float | None) -> None:
    """Raise `ValueError` if the rule is unknown or `value` does not fit it."""
    if rule not in THRESHOLD_RULES:
        raise ValueError(f"rule must be one of {', '.join(THRESHOLD_RULES)}, got {rule!r}")
    if rule in ("youden", "f1"):
        if value is not None:
            raise ValueError(f"rule {rule} takes no value, got {value}")
    elif value is None or not 0 < value <= 1:
        raise ValueError(f"rule {rule} needs a value above 0 and at most 1, got {value}")


def _midpoint_below(probabilities: Array, upper: Any) -> float:
    """Return the midpoint of `upper` and the next lower probability, or `upper` if no float lies between them."""
    lower_probabilities = probabilities[probabilities < upper]
    lower = lower_probabilities.max() if lower_probabilities.size else probabilities.dtype.type(0)
    midpoint = lower + (upper - lower) / 2
    return float(midpoint if midpoint > lower else upper)


def _threshold_above_all(probabilities: Array) -> float:
    """Return a threshold above all probabilities."""
    one = probabilities.dtype.type(1)
    return _midpoint_below(probabilities, one if probabilities.max() < one else np.nextafter(one, one + one))


def validation_metrics(labels: Array, probabilities: Array) -> dict[str, float]:
    """Return `threshold` (Youden's, see `operating_point`) and the metrics at it.

    These are `val_accuracy_at_threshold`, `val_sensitivity`, `val_specificity` and `val_f1`.

    A metric whose denominator is 0 is NaN, as the sensitivity if no picture has pneumonia.
    """
    threshold = operating_point(labels, probabilities)
    positive = predict_labels(probabilities, threshold)
    return {
        "threshold": threshold,
        "val_accuracy_at_threshold": float(np.mean(positive == labels)),
        "val_sensitivity": float(recall_score(labels, positive, pos_label=1, zero_division=np.nan)),
        "val_specificity": float(recall_score(labels, positive, pos_label=0, zero_division=np.nan)),
        "val_f1": float(f1_score(labels, positive, zero_division=np.nan)),
    }


def predict_labels(probabilities: Array, threshold: float) -> Array:
    """Return the predicted labels, int64, shape (n,)."""
    return (np.asarray(probabilities) >= threshold).astype(np.int64)


def most_confident(labels: Array, probabilities: Array, threshold: float, *, right: bool, most: int) -> Array:
    """Return the positions of the pictures predicted rightly, or wrongly, the highest probability of that prediction first.

    Of equal ones the first come first.

    Args:
        labels: Labels of the pictures.
        probabilities: Their probabilities.
        threshold: Smallest probability that counts as PNEUMONIA.
        right: Whether the right predictions are meant.
        most: Largest number of positions.

    Returns:
        int64, at most `most` of them.
    """
    probabilities = np.asarray(probabilities, np.float64)
    predicted = predict_labels(probabilities, threshold)
    chosen = np.flatnonzero((predicted == labels) == right)
    confidence = np.where(predicted[chosen] == 1, probabilities[chosen], 1 - probabilities[chosen])
    return chosen[np.argsort(-confidence, kind="stable")][:most]


@dataclass(frozen=True)
class Calibration:
    """The calibration of a network in bins of equal width. Empty bins are left out.

    Attributes:
        probability: Mean probability in each bin, shape (bins,).
        share: Share of pneumonia in each bin, shape (bins,).
        count: Number of pictures in each bin, shape (bins,).
        error: The expected calibration error.
    """

    probability: Array
    share: Array
    count: Array
    error: float


def calibration_bin(probabilities: Array, bins: int = CALIBRATION_BINS) -> Array:
    """Return the bin of each probability, int64, shape (n,), from 0. A probability of 1 is in the last bin."""
    return np.asarray(np.minimum(np.asarray(probabilities, np.float64) * bins, bins - 1), np.int64)


def calibration(labels: Array, probabilities: Array, bins: int = CALIBRATION_BINS) -> Calibration:
    """Return how far the probabilities are from the observed shares of pneumonia.

    Source: M. P. Naeini, G. F. Cooper, M. Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning,
    AAAI 2015.
    """
    probabilities = np.asarray(probabilities, np.float64)
    bin_of = calibration_bin(probabilities, bins)
    count = np.bincount(bin_of, minlength=bins)
    filled = count > 0
    count_filled = count[filled]
    probability = np.bincount(bin_of, probabilities, bins)[filled] / count_filled
    share = np.bincount(bin_of, labels, bins)[filled] / count_filled
    error = float(np.sum(np.abs(probability - share) * count_filled) / len(probabilities))
    return Calibration(probability, share, count_filled, error)
