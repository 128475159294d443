"""Temperature scaling: probabilities that mean what they say, in the same order as before.

A network's probability p becomes sigmoid(logit(p) / T) with one number T, the temperature, fitted on validation pictures.
Above 1 it makes an overconfident network modest, below 1 a timid one bold.

Source: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On calibration of modern neural networks, ICML 2017,
arXiv:1706.04599, section 4.2.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from pneumo.evidence.metrics import LOSS_EPSILON, Array, both_classes

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures go no further, as where every picture is right and the likelihood grows for ever towards 0."""


def temperature(labels: Array, probabilities: Array) -> float:
    """The temperature, `LOWEST` to `HIGHEST`, with the least negative log likelihood (binary cross-entropy).

    `labels` (n,) are 0 and 1, `probabilities` (n,) floats, 0 to 1; those nearer to 0 or 1 than `LOSS_EPSILON` count as
    that far. It is 1.0 where only one class is present or every probability is 0.5, which no temperature changes. Raises
    `ValueError` where the shapes differ or a probability is NaN or outside 0 to 1.
    """
    labels, probabilities = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    if labels.shape != probabilities.shape:
        raise ValueError(f"labels and probabilities must be as many, got {labels.shape} and {probabilities.shape}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities must be 0 to 1")
    logits = _logits(probabilities)
    if not both_classes(labels) or not logits.any():
        return 1.0

    def slope(inverse: float) -> float:
        """Of the negative log likelihood by 1/T. It never falls: the likelihood has one optimum."""
        return float(np.mean(logits * (expit(logits * inverse) - labels)))

    if slope(1 / HIGHEST) >= 0:
        return HIGHEST
    if slope(1 / LOWEST) <= 0:
        return LOWEST
    return 1 / float(brentq(slope, 1 / HIGHEST, 1 / LOWEST))


def scaled(probabilities: Array, temperature: float) -> Array:
    """The probabilities at a temperature: same shape, same float dtype, never in another order.

    They are the very same at temperature 1.0. At others all are finite and within 0 to 1, those of exactly 0 and 1 too:
    they count as `LOSS_EPSILON` away. Close ones may become equal by rounding. Raises `ValueError` where the temperature
    is not above 0 and finite or the probabilities are not floats.
    """
    probabilities = np.asarray(probabilities)
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise ValueError(f"probabilities must be floats, got {probabilities.dtype}")
    if not 0 < temperature < np.inf:
        raise ValueError(f"a temperature must be above 0 and finite, got {temperature}")
    if temperature == 1.0:
        return probabilities
    # In double precision: the logit of a float32 near 1 would lose most of its digits.
    return np.asarray(expit(_logits(probabilities) / temperature), probabilities.dtype)


def _logits(probabilities: Array) -> Array:
    clipped = np.clip(np.asarray(probabilities, np.float64), LOSS_EPSILON, 1 - LOSS_EPSILON)
    return np.asarray(logit(clipped), np.float64)
