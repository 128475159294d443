"""The error rates of a network by the cause of the pneumonia, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from pneumo.evidence.metrics import Array, predict_labels
from pneumo.evidence.tables import rows_csv


@dataclass(frozen=True)
class CauseFigures:
    """The errors of a network on the pictures of one class and one cause.

    Attributes:
        label: 0 or 1, the class.
        cause: The cause; empty if it is not known.
        pictures: Number of pictures.
        patients: Number of patients.
        wrong: Number of pictures predicted wrongly.
        low: Lower end of the 95 % interval of the share of wrong ones.
        high: Upper end.
    """

    label: int
    cause: str
    pictures: int
    patients: int
    wrong: int
    low: float
    high: float

    @property
    def error_rate(self) -> float:
        """Share of pictures predicted wrongly."""
        return self.wrong / self.pictures


def figures_by_cause(
    labels: Array, probabilities: Array, threshold: float, causes: Sequence[str], patients: Sequence[str]
) -> list[CauseFigures]:
    """Return the errors for each class and cause, by class and then by cause.

    The interval is Wilson's, which counts each picture as independent. Several pictures of one patient are not, so it is
    rather too narrow.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: Shape (n,).
        threshold: Smallest probability that counts as the second class.
        causes: The cause of each picture, n entries; empty if it is not known.
        patients: The patient of each picture, n entries.
    """
    wrong = predict_labels(probabilities, threshold) != labels
    groups = [(int(label), cause) for label, cause in zip(labels, causes, strict=True)]
    figures = []
    for group in sorted(set(groups)):
        rows = [row for row, other in enumerate(groups) if other == group]
        errors = int(np.count_nonzero(wrong[rows]))
        interval = binomtest(errors, len(rows)).proportion_ci(method="wilson")
        people = len({patients[row] for row in rows})
        figures.append(CauseFigures(*group, len(rows), people, errors, float(interval.low), float(interval.high)))
    return figures


def causes_csv(figures: Sequence[CauseFigures], classes: Sequence[str]) -> str:
    """Return one line per class and cause; the cause is empty if it is not known."""
    rows = [
        {
            "class": classes[row.label],
            "cause": row.cause,
            "pictures": row.pictures,
            "patients": row.patients,
            "wrong": row.wrong,
            "error_rate": row.error_rate,
            "error_rate_low": row.low,
            "error_rate_high": row.high,
        }
        for row in figures
    ]
    return rows_csv(rows, tuple(rows[0]) if rows else ())
