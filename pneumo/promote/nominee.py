"""The model that a promotion judges: a trial's network, or an ensemble, with its operating point."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pneumo.promote.choose import Chosen, choose_run
from pneumo.promote.context import PromotionContext
from pneumo.promote.ensemble import choose_ensemble
from pneumo.promote.operating_point import ChosenPoint, choose_operating_point
from pneumo.promote.validation import average, on_same_pictures, read_validation_predictions

if TYPE_CHECKING:
    from pneumo.data.pictures import Source
    from pneumo.spec.run import RecordedRun
    from pneumo.tracking.served import Decision


@dataclass(frozen=True)
class Nominee:
    """A network, or an ensemble, and its operating point.

    Attributes:
        chosen: The runs, their weights, and why they were chosen.
        point: The operating point, where it was chosen, and the alternative.
        decision: How the probability becomes a label, as the registered model stores it.
        best_member: Of an ensemble, its best member as a model of its own, which the gain is measured against.
    """

    chosen: Chosen
    point: ChosenPoint
    decision: Decision
    best_member: Nominee | None = None

    @property
    def run(self) -> RecordedRun:
        """The trial's run; of an ensemble its best member's."""
        return self.chosen.run

    @property
    def title(self) -> str:
        """`trial 3`, or `ensemble of 4`."""
        return f"ensemble of {len(self.chosen.runs)}" if self.chosen.is_ensemble else f"trial {self.run.number}"

    @property
    def run_ids(self) -> str:
        """The ids of the runs, for people."""
        return ", ".join(run.run_id for run in self.chosen.runs)

    @property
    def members(self) -> str:
        """Run and weight of each member of an ensemble as text, `RUN WEIGHT, RUN WEIGHT`."""
        return ", ".join(
            f"{run.run_id} {weight:.6g}" for run, weight in zip(self.chosen.runs, self.chosen.weights, strict=True)
        )

    def key(self, source: Source) -> str:
        """Return a hash that identifies the networks, the operating point and the test pictures."""
        fields = asdict(self.decision)
        document: list[Any] = [self.run.run_id, fields, source.test_digest]
        if not self.chosen.is_ensemble:  # As before there were ensembles, so that what was promoted then is recognised.
            (member,) = fields.pop("members")
            fields |= {name: member[name] for name in ("image_size", "channels")}
        if self.point.on == "stress":  # Earlier versions knew plain pictures alone.
            document.append(self.point.on)
        return hash_of(document)


def nominate(context: PromotionContext, runs: Sequence[RecordedRun]) -> Nominee:
    """Return what the request and the experiment's `promote` block ask for, with its operating point.

    This is the run that the request names, or else the study's best trial, or an ensemble of its runs.

    Args:
        context: The promotion.
        runs: All runs of the study's trials.

    Raises:
        RequestError: There is no such run, or it recorded no predictions.
    """
    if context.experiment.promote.ensemble is not None:
        return with_operating_point(context, choose_ensemble(context, runs))
    return with_operating_point(context, choose_run(context.store, context.request, context.experiment, runs))


def with_operating_point(context: PromotionContext, chosen: Chosen) -> Nominee:
    """Return the runs' networks with the operating point that the experiment's `promote` block asks for."""
    from pneumo.tracking.served import Decision, Member

    each = [read_validation_predictions(context, run) for run in chosen.runs]
    predictions = average(on_same_pictures(each, [run.run_id for run in chosen.runs]), chosen.weights)
    point = choose_operating_point(context.experiment.promote, predictions)
    members = tuple(
        Member(run.run_id, weight, int(run.hyperparameter("image_size")), int(run.hyperparameter("channels")))
        for run, weight in zip(chosen.runs, chosen.weights, strict=True)
    )
    decision = Decision(
        context.source.classes, point.point.threshold, point.point.temperature, members, phantom=context.phantom
    )
    best = with_operating_point(context, Chosen.single(chosen.run, "the best member")) if chosen.is_ensemble else None
    return Nominee(chosen, point, decision, best)


def hash_of(document: object) -> str:
    """Return a hash of JSON values, 32 letters."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]
