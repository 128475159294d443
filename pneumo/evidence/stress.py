"""Judge a network on pictures under the changes of the stress suite."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.evidence.metrics import auc, operating_point, predict_labels
from pneumo.evidence.tables import rows_csv
from pneumo.spec.names import Metrics
from pneumo.spec.stress import CHANGES, GEOMETRIC_CHANGES, SEED

PLAIN = "plain"
"""Name of the pictures without a change, in tables and plots."""

FEWEST_OF_A_CLASS = 4
"""Number of pictures of a class below which an AUC says nothing."""

_KINDS = {change.name: change.kind for change in CHANGES}


@dataclass(frozen=True, eq=False)
class StressPredictions:
    """The probabilities of validation pictures under each change of the stress suite.

    Attributes:
        suite: Name and version of the suite.
        changes: Names of the changes.
        names: str (n,), names of the pictures.
        labels: int64 (n,), 0 or 1.
        plain: float32 (n,), the probabilities of the pictures without a change.
        probabilities: float32 (changes, n), those under each change.
    """

    suite: str
    changes: tuple[str, ...]
    names: NDArray[np.str_]
    labels: NDArray[np.int64]
    plain: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    @property
    def pooled(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Labels and probabilities of all pictures under all changes, both of shape (changes * n,)."""
        return np.tile(self.labels, len(self.changes)), self.probabilities.ravel()

    def to_bytes(self) -> bytes:
        """Return a compressed npz file."""
        buffer = io.BytesIO()
        fields: dict[str, Any] = {"suite": self.suite, "changes": np.array(self.changes)}
        fields |= {"names": self.names, "labels": self.labels}
        fields |= {"plain": self.plain, "probabilities": self.probabilities}
        np.savez_compressed(buffer, **fields)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> StressPredictions:
        """Return what `to_bytes` wrote."""
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            changes = tuple(str(name) for name in file["changes"])
            arrays = [file[name] for name in ("names", "labels", "plain", "probabilities")]
            return cls(str(file["suite"]), changes, *arrays)


@dataclass(frozen=True)
class ChangeFigures:
    """The figures of a network under one change. All but the AUC are at the threshold of the whole suite."""

    change: str
    kind: str
    auc: float
    accuracy: float
    sensitivity: float
    specificity: float


@dataclass(frozen=True)
class StressFigures:
    """The figures of a network under all changes.

    Attributes:
        threshold: Youden's operating point of the pictures under all changes pooled.
        plain: The figures of the same pictures without a change.
        changes: The figures under each change, in the order of the suite.
    """

    threshold: float
    plain: ChangeFigures
    changes: tuple[ChangeFigures, ...]

    @property
    def worst(self) -> ChangeFigures | None:
        """The change with the lowest AUC, of several the first; None if only one class is present."""
        known = [change for change in self.changes if not np.isnan(change.auc)]
        return min(known, key=lambda change: change.auc, default=None)

    def metrics(self) -> dict[str, float]:
        """Return the metrics of a trial. They are NaN if only one class is present, apart from the accuracy."""
        return {
            Metrics.VAL_STRESS_AUC: self._mean_auc("geometry"),
            Metrics.VAL_PHOTOMETRY_AUC: self._mean_auc("photometry"),
            Metrics.VAL_FRAME_AUC: self._mean_auc("frame"),
            Metrics.VAL_STRESS_ACCURACY: float(np.mean([change.accuracy for change in self.changes])),
            Metrics.VAL_STRESS_WORST: self.worst.auc if self.worst else np.nan,
            Metrics.STRESS_THRESHOLD: self.threshold,
        }

    def to_csv(self) -> str:
        """Return one line per change, after one of the plain pictures."""
        columns = ("change", "kind", "auc", "accuracy", "sensitivity", "specificity")
        return rows_csv([vars(figures) for figures in (self.plain, *self.changes)], columns)

    def _mean_auc(self, kind: str) -> float:
        return float(np.mean([change.auc for change in self.changes if change.kind == kind]))


def judge(predictions: StressPredictions) -> StressFigures:
    """Return the figures of a network, given its predictions under all changes."""
    labels = predictions.labels
    threshold = operating_point(*predictions.pooled)
    changes = zip(predictions.changes, predictions.probabilities, strict=True)
    return StressFigures(
        threshold,
        _figures(PLAIN, "", labels, predictions.plain, threshold),
        tuple(_figures(name, _KINDS[name], labels, row, threshold) for name, row in changes),
    )


def stress_objective(objective: str, predictions: StressPredictions) -> float:
    """Return one of the stress objectives; for `val_stress_auc` the geometric changes are enough."""
    if objective == Metrics.VAL_STRESS_AUC:
        rows = zip(predictions.changes, predictions.probabilities, strict=True)
        return float(np.mean([auc(predictions.labels, row) for name, row in rows if name in GEOMETRIC_CHANGES]))
    return judge(predictions).metrics()[objective]


def choose_pictures(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return the positions of the pictures that a network is judged on, int64, in rising order.

    If there are more than `most`, they are drawn by the seed of the suite, from each class its share, but at least
    `FEWEST_OF_A_CLASS` pictures or all that it has.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    rng = np.random.default_rng((SEED, 2))
    chosen = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        count = max(FEWEST_OF_A_CLASS, most * len(positions) // len(labels))
        chosen.append(rng.permutation(positions)[:count])
    return np.sort(np.concatenate(chosen))


def _figures(
    change: str, kind: str, labels: NDArray[np.int64], row: NDArray[np.float32], threshold: float
) -> ChangeFigures:
    correct = predict_labels(row, threshold) == labels
    by_class = [float(np.mean(correct[labels == label])) if (labels == label).any() else np.nan for label in (0, 1)]
    return ChangeFigures(change, kind, auc(labels, row), float(np.mean(correct)), by_class[1], by_class[0])
