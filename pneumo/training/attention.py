"""Compute the Grad-CAM heat maps of a trained network: what its sheet shows, and the share of the middle of the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.cnn.batches import Examples
from pneumo.cnn.explain import grad_cams
from pneumo.evidence.attention import HeatMaps, mean_attention_inside
from pneumo.evidence.metrics import most_confident
from pneumo.evidence.stress import choose_pictures

PICTURES = 64
"""Largest number of validation pictures over which the share of attention is averaged, the same in all trials of a study."""

BATCH = 16
"""Pictures for one call. More need more memory and are hardly faster."""

EACH = 4
"""Number of the most confident right pictures whose heat maps are drawn, and of the wrong ones."""


def explain_validation(
    network: Any, validation: Examples, probabilities: NDArray[np.float32], threshold: float
) -> HeatMaps:
    """Return the heat maps of the most confident validation pictures, and the mean share of attention in the middle.

    The share is averaged over a sample that depends on the labels only (see `choose_pictures`).

    Args:
        network: A network that `prediction_network` made.
        validation: The validation pictures.
        probabilities: Their probabilities.
        threshold: Smallest probability that counts as the second class.

    Returns:
        The maps; without any, and with the reason, if Grad-CAM does not work for the network.
    """
    labels = validation.labels
    sample = choose_pictures(labels, PICTURES)
    shown = np.concatenate(
        [most_confident(labels, probabilities, threshold, right=right, most=EACH) for right in (True, False)]
    )
    chosen = np.union1d(sample, shown)
    pictures = validation.pixels[validation.rows[chosen]]
    try:
        with grad_cams(network) as heat_maps:
            maps = np.concatenate(
                [heat_maps(pictures[start : start + BATCH]) for start in range(0, len(chosen), BATCH)]
            )
    except ValueError as error:
        return HeatMaps.none(str(error))
    inside = mean_attention_inside(maps[np.searchsorted(chosen, sample)])
    return HeatMaps(shown, maps[np.searchsorted(chosen, shown)].astype(np.float16), inside)
