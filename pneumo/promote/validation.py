"""Read what a run recorded about its validation pictures: the probabilities, plain and under the stress suite."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pneumo.promote.context import PromotionContext
from pneumo.spec.errors import RequestError
from pneumo.spec.names import Artifacts
from pneumo.spec.promotion import ChosenOn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pneumo.evidence.stress import StressPredictions
    from pneumo.spec.run import RecordedRun


@dataclass(frozen=True, eq=False)
class ValidationPredictions:
    """The probabilities of a model for the validation pictures.

    Attributes:
        names: str (n,), names of the pictures.
        labels: int64 (n,), 0 or 1.
        probabilities: float32 (n,), of the second class.
        stress: The probabilities under each change of the stress suite; None if the run recorded none.
    """

    names: NDArray[np.str_]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    stress: StressPredictions | None

    def of(self, on: ChosenOn) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return labels and probabilities: of the plain pictures, or of those under all changes of the stress suite pooled.

        Raises:
            ValueError: There are no predictions under the stress suite.
        """
        if on == "validation":
            return self.labels, self.probabilities
        if self.stress is None:
            raise ValueError("no predictions under the stress suite")
        return self.stress.pooled


def read_validation_predictions(context: PromotionContext, run: RecordedRun) -> ValidationPredictions:
    """Return what a trial's run recorded about its validation pictures.

    Raises:
        RequestError: The predictions cannot be read.
    """
    from pneumo.evidence.tables import csv_cell
    from pneumo.tracking.runs import read_artifact

    rows = list(csv.DictReader(read_artifact(context.store, run.run_id, Artifacts.PREDICTIONS).splitlines()))
    positive = csv_cell(context.source.classes[1])
    return ValidationPredictions(
        names=np.array([row["name"] for row in rows], np.str_),
        labels=np.array([row["label"] == positive for row in rows], np.int64),
        probabilities=np.array([row["probability"] for row in rows], np.float32),
        stress=_read_stress_predictions(context, run),
    )


def has_stress_predictions(context: PromotionContext, run: RecordedRun) -> bool:
    """Return whether a run recorded predictions under the stress suite."""
    from pneumo.tracking.runs import has_artifact

    return has_artifact(context.store, run.run_id, Artifacts.STRESS_PREDICTIONS)


def _read_stress_predictions(context: PromotionContext, run: RecordedRun) -> StressPredictions | None:
    from pneumo.evidence.stress import StressPredictions
    from pneumo.tracking.runs import read_artifact_bytes

    if not has_stress_predictions(context, run):
        return None
    content = read_artifact_bytes(context.store, run.run_id, Artifacts.STRESS_PREDICTIONS)
    try:
        return StressPredictions.from_bytes(content)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"{run.run_id}: its artifact {Artifacts.STRESS_PREDICTIONS} is damaged: {reason}") from None
