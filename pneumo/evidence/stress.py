"""Judge a network on pictures under the changes of the stress suite."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class StressPredictions:
    """The probabilities of validation pictures under each change of the stress suite.

    Attributes:
        suite: Name and version of the suite.
        changes: Names of the changes.
        names: str (n,), names of the pictures.
        labels: int64 (n,), 0 or 1.
        probabilities: float32 (changes, n).
    """

    suite: str
    changes: tuple[str, ...]
    names: NDArray[np.str_]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def pooled(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Labels and probabilities of all pictures under all changes, both of shape (changes * n,)."""
        return np.tile(self.labels, len(self.changes)), self.probabilities.ravel()

    def to_bytes(self) -> bytes:
        """Return a compressed npz file."""
        buffer = io.BytesIO()
        fields: dict[str, Any] = {"suite": self.suite, "changes": np.array(self.changes)}
        fields |= {"names": self.names, "labels": self.labels, "probabilities": self.probabilities}
        np.savez_compressed(buffer, **fields)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> StressPredictions:
        """Return what `to_bytes` wrote."""
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            changes = tuple(str(name) for name in file["changes"])
            return cls(str(file["suite"]), changes, file["names"], file["labels"], file["probabilities"])
