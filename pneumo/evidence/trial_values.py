"""The values that the plots of a trial are drawn from, as one file.

The worker that trained the network writes the file, and the process that draws reads it while the next trial trains. So it has
everything that needs the network or the pictures: probabilities, heat maps, and the pixels of the pictures that are shown.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.evidence.attention import HeatMaps
from pneumo.evidence.metrics import Array, most_confident
from pneumo.evidence.stress import StressPredictions

MAX_MISTAKES = 12
"""Largest number of pictures on the sheet of mistakes."""

PLOTS = (
    "calibration",
    "confusion_matrix",
    "learning_curves",
    "mistakes",
    "precision_recall",
    "roc",
    "scores",
    "threshold",
)
"""Names of the plots that every trial has."""

_TEXTS = ("title", "phantom", "classes", "history", "best_epoch", "threshold", "names", "patients", "causes")
_ARRAYS = ("labels", "probabilities", "shown", "pixels")


@dataclass(frozen=True, eq=False)
class TrialValues:
    """The values that the plots of a trial are drawn from.

    Attributes:
        title: First line of each plot.
        phantom: Whether the pictures are phantoms.
        classes: Names of the two classes.
        history: The metrics of each epoch.
        best_epoch: Number of the best epoch.
        threshold: Smallest probability that counts as the second class.
        names: Names of the validation pictures, n entries.
        patients: Their patients, n entries.
        causes: The causes that their names tell, n entries; empty if a name tells none.
        labels: 0 or 1, shape (n,).
        probabilities: Of the second class, float32 (n,).
        shown: int64 (k,), the positions of the pictures that a plot shows, rising, at least those of `shown_pictures`.
        pixels: uint8 (k, side, side), these pictures.
        stress: The predictions under the changes of the stress suite, if there are any.
        heat_maps: Grad-CAM heat maps, if there are any.
    """

    title: str
    phantom: bool
    classes: Sequence[str]
    history: Sequence[Mapping[str, float]]
    best_epoch: int
    threshold: float
    names: Sequence[str]
    patients: Sequence[str]
    causes: Sequence[str]
    labels: Array
    probabilities: NDArray[np.float32]
    shown: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    stress: StressPredictions | None = None
    heat_maps: HeatMaps | None = None

    @property
    def plots(self) -> list[str]:
        """The names of the plots that can be drawn, sorted."""
        more = {
            "stress": self.stress is not None,
            "gradcam": self.heat_maps is not None and not self.heat_maps.missing,
            "causes": any(self.causes),
        }
        return sorted([*PLOTS, *(name for name, is_known in more.items() if is_known)])

    def to_bytes(self) -> bytes:
        """Return an npz file."""
        texts = {name: getattr(self, name) for name in _TEXTS}
        arrays: dict[str, Any] = {"texts": _as_array(json.dumps(texts).encode())}
        arrays |= {name: getattr(self, name) for name in _ARRAYS}
        if self.stress:
            arrays["stress"] = _as_array(self.stress.to_bytes())
        if self.heat_maps:
            maps = self.heat_maps
            arrays |= {"maps": maps.positions, "heat": maps.heat, "inside": np.array(maps.inside)}
            arrays["missing"] = _as_array(maps.missing.encode())
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> TrialValues:
        """Return what `to_bytes` wrote."""
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            stress = StressPredictions.from_bytes(file["stress"].tobytes()) if "stress" in file else None
            heat_maps = None
            if "heat" in file:
                missing = file["missing"].tobytes().decode()
                heat_maps = HeatMaps(file["maps"], file["heat"], float(file["inside"]), missing)
            texts = json.loads(file["texts"].tobytes())
            return cls(**texts, **{name: file[name] for name in _ARRAYS}, stress=stress, heat_maps=heat_maps)


def shown_pictures(
    labels: Array, probabilities: Array, threshold: float, heat_maps: HeatMaps | None
) -> NDArray[np.int64]:
    """Return the positions of the pictures that the plots of a trial show, int64, rising."""
    mistakes = most_confident(labels, probabilities, threshold, right=False, most=MAX_MISTAKES)
    return np.union1d(mistakes, heat_maps.positions if heat_maps else []).astype(np.int64)


def _as_array(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, np.uint8)
