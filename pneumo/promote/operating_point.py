"""Choose a trial's operating point: the temperature and the threshold, from validation pictures alone."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from pneumo.promote.context import PromotionContext
from pneumo.spec.names import Artifacts
from pneumo.spec.promotion import parse_threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pneumo.spec.run import RecordedRun
    from pneumo.tracking.served import Decision


def choose_operating_point(context: PromotionContext, run: RecordedRun) -> Decision:
    """Return how the output of a trial's network becomes a label.

    The threshold follows `promote.threshold` and the temperature `promote.calibration`, both on the predictions that the
    run recorded for its validation pictures.
    """
    from pneumo.evidence.metrics import operating_point
    from pneumo.evidence.scaling import fit_temperature, scale_probabilities
    from pneumo.tracking.served import Decision, Member

    promote_block, source = context.experiment.promote, context.source
    labels, probabilities = _validation_predictions(context, run)
    run_temperature = fit_temperature(labels, probabilities) if promote_block.calibration == "temperature" else 1.0
    rule = parse_threshold(promote_block.threshold)
    threshold = operating_point(labels, scale_probabilities(probabilities, run_temperature), rule.kind, rule.value)
    image_size, channels = int(run.parameters["image_size"]), int(run.parameters["channels"])
    member = Member(run.run_id, 1.0, image_size, channels)
    return Decision(source.classes, threshold, run_temperature, (member,), phantom=context.phantom)


def _validation_predictions(
    context: PromotionContext, run: RecordedRun
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return labels and probabilities of the validation pictures, both of shape (n,), as the run recorded them."""
    from pneumo.evidence.tables import csv_cell
    from pneumo.tracking.runs import read_artifact

    rows = list(csv.DictReader(read_artifact(context.store, run.run_id, Artifacts.PREDICTIONS).splitlines()))
    positive = csv_cell(context.source.classes[1])
    labels = np.array([row["label"] == positive for row in rows], np.int64)
    return labels, np.array([row["probability"] for row in rows], np.float32)
