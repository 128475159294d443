"""Numbers from labels and probabilities: after each epoch, and at the operating point.

Everywhere `labels` has shape (n,), 0 for NORMAL and 1 for PNEUMONIA, and `probabilities` has shape (n,), a float dtype,
the probability of pneumonia, 0 to 1.
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
"""How an operating point is chosen, see `operating_point`."""

LOSS_EPSILON = 1e-7
"""Probabilities are clipped this far from 0 and 1 before the logarithm, as Keras does (`keras.config.epsilon`)."""

CALIBRATION_BINS = 10
"""Of equal width, from 0 to 1."""


def epoch_metrics(labels: Array, probabilities: Array) -> dict[str, float]:
    """`val_loss` (binary cross-entropy, nats, never smoothed), `val_accuracy` (at 0.5) and `val_auc` (exact).

    `val_auc` is NaN where only one class is present; all three are NaN where a probability is, as after a divergence.
    Raises `ValueError` where the shapes differ or a label is neither 0 nor 1.
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
    """The exact area under the ROC curve; NaN where only one class is present."""
    return float(roc_auc_score(labels, probabilities)) if both_classes(labels) else np.nan


def both_classes(labels: Array) -> bool:
    return bool(np.any(labels)) and not bool(np.all(labels))


def operating_point(
    labels: Array, probabilities: Array, rule: ThresholdKind = "youden", value: float | None = None
) -> float:
    """The threshold that the rule chooses; `probability >= threshold` is pneumonia.

    - `youden`: the largest sensitivity + specificity - 1. Of several with the same index the most sensitive is taken. It
      is 0.5 where no threshold is better than chance.
    - `f1`: the largest F1, the harmonic mean of precision and sensitivity. Of several the most sensitive is taken.
    - `sensitivity`: the largest threshold at which sensitivity is at least `value`, so the most specific one.
    - `specificity`: the smallest threshold at which specificity is at least `value`, so the most sensitive one. It calls
      no picture positive where NORMAL ones have the highest probabilities, and is just above 1 where those are 1.
    - `fixed`: `value` itself, whatever the arrays.

    All but the fixed one lie midway between two neighbouring probabilities (below the lowest, midway to 0; above the
    highest, midway to 1), and are numbers of their dtype, so that a model that computes them again to within rounding
    decides alike. They are 0.5 where only one class is present: nothing can be chosen by.

    Raises `ValueError` on NaN, on an unknown rule, where `sensitivity`, `specificity` or `fixed` has no `value` above 0
    and up to 1, and where another rule has one.

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
    if not both_classes(labels):
        return 0.5
    # Scores fall, so of the indices below the last is the most sensitive, the first the most specific. A share and the
    # decimal that it is compared with are both the floats nearest to the true numbers: 19 of 20 is at least 0.95.
    if rule == "sensitivity":
        best = np.flatnonzero(true_positives / (true_positives + false_negatives) >= value)[0]
    elif rule == "specificity":
        specific = np.flatnonzero(true_negatives / (true_negatives + false_positives) >= value)
        if not specific.size:
            return _above_all(probabilities)
        best = specific[-1]
    else:
        if rule == "f1":
            # Different fractions of up to 2^26 pictures are different floats, so that equal ones alone are equal.
            index = 2 * true_positives / (2 * true_positives + false_positives + false_negatives)
        else:
            # The index times (positives x negatives): whole numbers, so that equal ones are equal.
            index = np.rint(true_positives * true_negatives - false_positives * false_negatives)
            if index.max() <= 0:
                return 0.5
        best = np.flatnonzero(index == index.max())[-1]
    return _midway(probabilities, probabilities.dtype.type(scores[best]))


def _check_rule(rule: str, value: float | None) -> None:
    if rule not in THRESHOLD_RULES:
        raise ValueError(f"rule must be one of {', '.join(THRESHOLD_RULES)}, got {rule!r}")
    if rule in ("youden", "f1"):
        if value is not None:
            raise ValueError(f"rule {rule} takes no value, got {value}")
    elif value is None or not 0 < value <= 1:
        raise ValueError(f"rule {rule} needs a value above 0 and up to 1, got {value}")


def _midway(probabilities: Array, above: Any) -> float:
    """Between `above` and the next lower probability; `above` where no float lies between them."""
    lower = probabilities[probabilities < above]
    below = lower.max() if lower.size else probabilities.dtype.type(0)
    middle = below + (above - below) / 2
    return float(middle if middle > below else above)


def _above_all(probabilities: Array) -> float:
    """A threshold that no probability reaches."""
    one = probabilities.dtype.type(1)
    return _midway(probabilities, one if probabilities.max() < one else np.nextafter(one, one + one))


def validation_metrics(labels: Array, probabilities: Array) -> dict[str, float]:
    """`threshold` (see `operating_point`), and `val_sensitivity`, `val_specificity` and `val_f1` at it.

    One that divides nothing by nothing, as sensitivity without a case of pneumonia, is NaN.
    """
    threshold = operating_point(labels, probabilities)
    positive = predicted(probabilities, threshold)
    return {
        "threshold": threshold,
        "val_sensitivity": float(recall_score(labels, positive, pos_label=1, zero_division=np.nan)),
        "val_specificity": float(recall_score(labels, positive, pos_label=0, zero_division=np.nan)),
        "val_f1": float(f1_score(labels, positive, zero_division=np.nan)),
    }


def predicted(probabilities: Array, threshold: float) -> Array:
    """The predicted labels, shape (n,), int64."""
    return (np.asarray(probabilities) >= threshold).astype(np.int64)


@dataclass(frozen=True)
class Calibration:
    """Pictures in bins of equal width by probability; empty bins are left out.

    `probability`, `share` and `count` have shape (bins,): a bin's mean probability, its share of pneumonia, its number
    of pictures. `error` is the expected calibration error.
    """

    probability: Array
    share: Array
    count: Array
    error: float


def calibration_bin(probabilities: Array, bins: int = CALIBRATION_BINS) -> Array:
    """Each probability's bin, shape (n,), int64, from 0; a probability of 1 is in the last."""
    return np.asarray(np.minimum(np.asarray(probabilities, np.float64) * bins, bins - 1), np.int64)


def calibration(labels: Array, probabilities: Array, bins: int = CALIBRATION_BINS) -> Calibration:
    """How far probabilities are from the shares of pneumonia that they announce.

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
