"""Choose the members of an ensemble from the predictions of many networks for the same pictures."""

from __future__ import annotations

import numpy as np

from pneumo.evidence.metrics import LOSS_EPSILON, Array


def pick_members(labels: Array, probabilities: Array, picks: int) -> list[int]:
    """Return the networks whose mean probability has the lowest log loss, as greedy picks with replacement.

    The first pick is the best network. Each further one is the network that lowers the loss of the mean most, or raises it
    least; it may be one that was picked before, whose weight grows so. Of equal ones the first in the order given is picked.
    The picks end where the loss was lowest.

    The log loss is minimized, because it takes the probability of every picture into account. Accuracy and AUC change in
    steps, and of many networks some reach a high step by luck, which the next pictures do not repeat.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: Probabilities of the second class, floats from 0 to 1, shape (networks, n). A network with a NaN is
            never picked, unless all have one.
        picks: Largest number of picks, at least 1.

    Returns:
        Row numbers, in the order of the picks.

    Raises:
        ValueError: The shapes do not fit, or there is no network.

    Source: R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, Ensemble selection from libraries of models, ICML 2004,
    sections 2 and 2.2.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or not len(probabilities) or probabilities.shape[1:] != labels.shape:
        raise ValueError(f"labels of shape (n,) need probabilities (networks, n), got {probabilities.shape}")
    total, picked, losses = np.zeros(len(labels)), [], []
    for count in range(1, picks + 1):
        of_each = log_losses(labels, (total + probabilities) / count)
        best = int(np.argmin(np.where(np.isnan(of_each), np.inf, of_each)))
        total += probabilities[best]
        picked.append(best)
        losses.append(of_each[best])
    return picked[: int(np.argmin(losses)) + 1]


def log_losses(labels: Array, probabilities: Array) -> Array:
    """Return the log loss of each network (binary cross-entropy in nats), float64 (networks,).

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: Floats from 0 to 1, shape (networks, n). They are clipped to `LOSS_EPSILON` from 0 and 1.
    """
    clipped = np.clip(np.asarray(probabilities, np.float64), LOSS_EPSILON, 1 - LOSS_EPSILON)
    of_label = np.where(np.asarray(labels) == 1, clipped, 1 - clipped)
    return np.asarray(-np.mean(np.log(of_label), axis=-1))
