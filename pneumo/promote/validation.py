"""Read what a run recorded about its validation pictures: the probabilities, plain and under the stress suite."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
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


def on_same_pictures(
    predictions: Sequence[ValidationPredictions], owners: Sequence[str]
) -> list[ValidationPredictions]:
    """Return the predictions of several runs for the pictures that all of them predicted, in the same order.

    The plain pictures must be the same. Under the stress suite a network that costs more is judged on fewer pictures, so only
    those in common remain. If a run has no predictions under the suite, none has.

    Args:
        predictions: The predictions of each run.
        owners: The runs, for people.

    Raises:
        RequestError: The plain pictures or the changes of the suite differ, or no stressed picture is in common.
    """
    first = predictions[0]
    for each, owner in zip(predictions, owners, strict=True):
        if not (np.array_equal(each.names, first.names) and np.array_equal(each.labels, first.labels)):
            raise RequestError(
                f"{owner} was judged on other validation pictures than {owners[0]}; an ensemble needs the same"
            )
    stressed = [each.stress for each in predictions if each.stress is not None]
    if len(stressed) < len(predictions):
        return [replace(each, stress=None) for each in predictions]
    common = stressed[0].names
    for stress, owner in zip(stressed, owners, strict=True):
        if (stress.suite, stress.changes) != (stressed[0].suite, stressed[0].changes):
            raise RequestError(
                f"{owner} was judged on another stress suite than {owners[0]}; an ensemble needs the same"
            )
        common = common[np.isin(common, stress.names)]
    if not len(common):
        raise RequestError(
            f"the {len(owners)} runs have no stressed validation picture in common; an ensemble needs some"
        )
    return [
        replace(each, stress=_of_pictures(stress, common)) for each, stress in zip(predictions, stressed, strict=True)
    ]


def average(predictions: Sequence[ValidationPredictions], weights: Sequence[float]) -> ValidationPredictions:
    """Return the predictions of an ensemble: the weighted mean of its members' probabilities for the same pictures."""
    first = predictions[0]
    stress = None
    if first.stress is not None:
        members = [each.stress for each in predictions if each.stress is not None]
        plain, probabilities = (
            np.average([getattr(each, name) for each in members], axis=0, weights=weights).astype(np.float32)
            for name in ("plain", "probabilities")
        )
        stress = replace(first.stress, plain=plain, probabilities=probabilities)
    mean = np.average([each.probabilities for each in predictions], axis=0, weights=weights)
    return replace(first, probabilities=mean.astype(np.float32), stress=stress)


def _of_pictures(stress: StressPredictions, names: NDArray[np.str_]) -> StressPredictions:
    row_of = {name: row for row, name in enumerate(stress.names.tolist())}
    rows = [row_of[name] for name in names.tolist()]
    arrays = {name: getattr(stress, name)[rows] for name in ("names", "labels", "plain")}
    return replace(stress, **arrays, probabilities=stress.probabilities[:, rows])
