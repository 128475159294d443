"""Numbers from labels and probabilities: after each epoch, and at the operating point.

Everywhere `labels` has shape (n,), 0 for NORMAL and 1 for PNEUMONIA, and `probabilities` has shape (n,), a float dtype,
the probability of pneumonia, 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix_at_thresholds, f1_score, log_loss, recall_score, roc_auc_score

Array = NDArray[Any]

"""The classes' names by label."""

LOSS_EPSILON = 1e-7
"""Probabilities are clipped this far from 0 and 1 before the logarithm, as Keras does (`keras.config.epsilon`)."""


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


def operating_point(labels: Array, probabilities: Array) -> float:
    """The threshold, 0 to 1, with the largest sensitivity + specificity - 1; `probability >= threshold` is pneumonia.

    It lies midway between two neighbouring probabilities, and is a number of their dtype, so that a model that computes
    them again to within rounding decides alike. Of several with the same index the most sensitive is taken. It is 0.5
    where no threshold is better than chance or only one class is present. Raises `ValueError` on NaN.

    Source: W. J. Youden, Index for rating diagnostic tests, Cancer 3(1), 32-35, 1950.
    """
    probabilities = np.asarray(probabilities)
    true_negatives, false_positives, false_negatives, true_positives, scores = confusion_matrix_at_thresholds(
        labels, probabilities
    )
    # The index times (positives x negatives): whole numbers, so that equal ones are equal.
    index = np.rint(true_positives * true_negatives - false_positives * false_negatives)
    if index.max(initial=0.0) <= 0:
        return 0.5
    best = int(np.flatnonzero(index == index.max())[-1])  # scores fall, so the last is the most sensitive
    above = probabilities.dtype.type(scores[best])
    lower = probabilities[probabilities < above]
    below = lower.max() if lower.size else probabilities.dtype.type(0)
    middle = below + (above - below) / 2
    return float(middle if middle > below else above)


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


def calibration(labels: Array, probabilities: Array, bins: int = 10) -> Calibration:
    """How far probabilities are from the shares of pneumonia that they announce.

    Source: M. P. Naeini, G. F. Cooper, M. Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning,
    AAAI 2015.
    """
    probabilities = np.asarray(probabilities, np.float64)
    bin_of = np.minimum((probabilities * bins).astype(np.int64), bins - 1)  # a probability of 1 is in the last bin
    count = np.bincount(bin_of, minlength=bins)
    filled = count > 0
    count_filled = count[filled]
    probability = np.bincount(bin_of, probabilities, bins)[filled] / count_filled
    share = np.bincount(bin_of, labels, bins)[filled] / count_filled
    error = float(np.sum(np.abs(probability - share) * count_filled) / len(probabilities))
    return Calibration(probability, share, count_filled, error)
