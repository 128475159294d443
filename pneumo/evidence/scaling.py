"""Temperature scaling: calibrate probabilities without changing their order.

A probability p becomes sigmoid(logit(p) / T). The temperature T is fitted on validation pictures: above 1 it moves the
probabilities of an overconfident network towards 1/2, below 1 it moves those of an underconfident network away from it.

Source: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On calibration of modern neural networks, ICML 2017,
arXiv:1706.04599, section 4.2.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from pneumo.evidence.metrics import LOSS_EPSILON, Array, has_both_classes

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""Bounds of a temperature. Without them it would tend to 0 if every picture is classified correctly."""


def fit_temperature(labels: Array, probabilities: Array) -> float:
    """Return the temperature with the least negative log likelihood (binary cross-entropy).

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: Floats from 0 to 1, shape (n,). They are clipped to `LOSS_EPSILON` from 0 and 1.

    Returns:
        The temperature, from `MIN_TEMPERATURE` to `MAX_TEMPERATURE`. It is 1.0 if only one class is present or every
        probability is 0.5, which no temperature changes.

    Raises:
        ValueError: The shapes differ, or a probability is NaN or not from 0 to 1.
    """
    labels, probabilities = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    if labels.shape != probabilities.shape:
        raise ValueError(
            f"labels and probabilities must have the same shape, got {labels.shape} and {probabilities.shape}"
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities must be from 0 to 1")
    logits = _clipped_logits(probabilities)
    if not has_both_classes(labels) or not logits.any():
        return 1.0

    def slope(inverse: float) -> float:
        """Return the derivative of the negative log likelihood by 1/T, which is convex in 1/T."""
        return float(np.mean(logits * (expit(logits * inverse) - labels)))

    if slope(1 / MAX_TEMPERATURE) >= 0:
        return MAX_TEMPERATURE
    if slope(1 / MIN_TEMPERATURE) <= 0:
        return MIN_TEMPERATURE
    return 1 / float(brentq(slope, 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE))


def scale_probabilities(probabilities: Array, temperature: float) -> Array:
    """Return the probabilities at a temperature.

    The order of the probabilities is kept, although close ones may become equal by rounding. At temperature 1.0 they are
    returned unchanged. At any other they are clipped to `LOSS_EPSILON` from 0 and 1 first, so the result is finite.

    Args:
        probabilities: From 0 to 1, a float dtype, any shape.
        temperature: Above 0.

    Returns:
        Probabilities of the same shape and dtype.

    Raises:
        ValueError: The temperature is not above 0 and finite, or the probabilities are not floats.
    """
    probabilities = np.asarray(probabilities)
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise ValueError(f"probabilities must be floats, got {probabilities.dtype}")
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}")
    if temperature == 1.0:
        return probabilities
    # In double precision, since the logit of a float32 near 1 would lose most of its digits.
    return np.asarray(expit(_clipped_logits(probabilities) / temperature), probabilities.dtype)


def _clipped_logits(probabilities: Array) -> Array:
    clipped = np.clip(np.asarray(probabilities, np.float64), LOSS_EPSILON, 1 - LOSS_EPSILON)
    return np.asarray(logit(clipped), np.float64)
