"""Compute how much of the attention of a network lies inside the middle of the pictures.

The share is that of the heat of a Grad-CAM map (`pneumo.cnn.explain`) which falls on the middle of the picture: the picture
without its outer 15 % on each side, which is the frame that the stress suite exchanges. Markers, cables and edges are in the
frame rather than in the middle. The middle is 49 % of the area, so a map without any structure has a share of 0.49.

The share is a hint, and it fails in known ways:

- The middle is not the lungs. There is no segmentation: with a tight crop the lungs reach into the frame, with a wide one the
  middle has more than lungs.
- A map is coarse: it has a value for each cell of the last convolution. A deep network has few cells, and the outermost ones
  cover the border of the picture. With 3 x 3 cells the share is near 0.49 whatever the network looks at.
- Grad-CAM weighs a whole channel by its mean gradient. In a network with a flattened head one channel can speak for PNEUMONIA
  at one place and against it at another, and the map does not tell them apart.
- Only what raises the probability of PNEUMONIA is counted, also in pictures of the other class. What speaks for the other
  class is nowhere in the map.
- A shortcut can lie in the middle too: contrast, noise and sharpness are everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumo.spec.stress import FRAME


def frame_width(side: int) -> int:
    """Return the width of a picture's frame in pixels."""
    return round(FRAME * side)


def attention_inside(heat: NDArray[np.floating]) -> float:
    """Return the share of a heat map's sum that is inside the middle; NaN if it is 0 everywhere.

    Args:
        heat: Shape (side, side), not negative.
    """
    side = len(heat)
    width = frame_width(side)
    total = float(heat.sum(dtype=np.float64))
    middle = heat[width : side - width, width : side - width]
    return float(middle.sum(dtype=np.float64)) / total if total > 0 else np.nan


def mean_attention_inside(heats: Iterable[NDArray[np.floating]]) -> float:
    """Return the mean share over heat maps, without those that are 0 everywhere; NaN if all are."""
    shares = [share for share in map(attention_inside, heats) if not np.isnan(share)]
    return float(np.mean(shares)) if shares else np.nan


@dataclass(frozen=True, eq=False)
class HeatMaps:
    """Grad-CAM heat maps of some of the pictures that a network was judged on.

    Attributes:
        positions: int64 (k,), which pictures, in the order in which they are drawn.
        heat: float16 (k, side, side), 0 to 1.
        inside: Mean share of attention in the middle, over pictures of its own choice; NaN if not defined.
        missing: Why there are no maps; empty if there are.
    """

    positions: NDArray[np.int64]
    heat: NDArray[np.float16]
    inside: float
    missing: str = ""

    @classmethod
    def none(cls, reason: str) -> HeatMaps:
        """Return no maps, for a reason."""
        return cls(np.zeros(0, np.int64), np.zeros((0, 0, 0), np.float16), np.nan, reason)
