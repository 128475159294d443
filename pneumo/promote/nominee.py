"""The model that a promotion judges: a trial's network with its operating point."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pneumo.promote.choose import ChosenRun, choose_run
from pneumo.promote.context import PromotionContext
from pneumo.promote.operating_point import ChosenPoint, choose_operating_point
from pneumo.promote.validation import read_validation_predictions

if TYPE_CHECKING:
    from pneumo.data.pictures import Source
    from pneumo.spec.run import RecordedRun
    from pneumo.tracking.served import Decision


@dataclass(frozen=True)
class Nominee:
    """A trial's network and its operating point.

    Attributes:
        chosen: The trial's run, and why it was chosen.
        point: The operating point, where it was chosen, and the alternative.
        decision: How the network's output becomes a label, as the registered model stores it.
    """

    chosen: ChosenRun
    point: ChosenPoint
    decision: Decision

    @property
    def run(self) -> RecordedRun:
        """The trial's run."""
        return self.chosen.run

    def key(self, source: Source) -> str:
        """Return a hash that identifies the network, its operating point and the test pictures."""
        document = [self.run.run_id, asdict(self.decision), source.test_digest]
        if self.point.on == "stress":  # A promotion by an earlier version, which knew no other way, keeps its key.
            document.append(self.point.on)
        return hash_of(document)


def nominate(context: PromotionContext, runs: Sequence[RecordedRun]) -> Nominee:
    """Return the run that the request names, or else the study's best trial, with its operating point.

    Args:
        context: The promotion.
        runs: All runs of the study's trials.

    Raises:
        RequestError: There is no such run, or it recorded no predictions.
    """
    return with_operating_point(context, choose_run(context.store, context.request, context.experiment, runs))


def with_operating_point(context: PromotionContext, chosen: ChosenRun) -> Nominee:
    """Return a run's network with the operating point that the experiment's `promote` block asks for."""
    from pneumo.tracking.served import Decision

    point = choose_operating_point(context.experiment.promote, read_validation_predictions(context, chosen.run))
    parameters = chosen.run.parameters
    decision = Decision(
        context.source.classes,
        point.point.threshold,
        point.point.temperature,
        int(parameters["image_size"]),
        int(parameters["channels"]),
        phantom=context.phantom,
    )
    return Nominee(chosen, point, decision)


def hash_of(document: object) -> str:
    """Return a hash of JSON values, 32 letters."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]
