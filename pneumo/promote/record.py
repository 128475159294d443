"""The run of a promotion: how it is identified, what it records, and how its evidence is read back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumo import __version__
from pneumo.promote.card import gather_facts
from pneumo.promote.context import PromotionContext
from pneumo.promote.description import describe_promotion
from pneumo.promote.evaluate import Evaluation
from pneumo.promote.nominee import Nominee, hash_of
from pneumo.promote.reference import Reference
from pneumo.spec.names import Artifacts, Metrics, Params, Tags

if TYPE_CHECKING:
    from pneumo.evidence.gate import Gate
    from pneumo.evidence.intervals import Interval
    from pneumo.tracking.promotions import PromotionRun
    from pneumo.tracking.store import Store

CARD = Artifacts.CARD
"""Artifact with the model card."""

_EVIDENCE = Artifacts.GATE


@dataclass(frozen=True)
class Evidence:
    """What a promotion is decided by, as its run stores it.

    Attributes:
        run_id: The promotion's run.
        metrics: Each metric on the test pictures with its 95 % interval.
        gate: The gate's decision.
        gain: By how much an ensemble is better than its best member; empty for a single network.
        model_id: Id of the logged model that takes pictures.
    """

    run_id: str
    metrics: Mapping[str, Interval]
    gate: Gate
    gain: Mapping[str, Interval]
    model_id: str

    @property
    def refusals(self) -> tuple[str, ...]:
        """A line for each check that failed."""
        return tuple(check.message for check in self.gate.checks if not check.passed)


def find_promotion_run(context: PromotionContext, nominee: Nominee, reference: Reference) -> PromotionRun | None:
    """Return the run of an earlier promotion that was the same; None if there was none. Nothing is written."""
    from pneumo.tracking import promotions

    key = _promotion_key(context, nominee, reference)
    return promotions.find_run(context.store, context.study, key)


def open_promotion_run(context: PromotionContext, nominee: Nominee, reference: Reference) -> PromotionRun:
    """Return the run of this promotion: a new run, or the one that an interrupted promotion of the same key left."""
    from pneumo.tracking import promotions

    return promotions.open_run(
        context.store,
        context.study,
        context.request.recorded,
        key=_promotion_key(context, nominee, reference),
        name="promotion-ensemble" if nominee.chosen.is_ensemble else f"promotion-{nominee.run.number:04d}",
        tags=_run_tags(context, nominee, reference) | {Tags.NOTE: describe_promotion(context, nominee)},
        params=_run_params(context, nominee),
    )


def log_model(context: PromotionContext, nominee: Nominee, run_id: str, folder: Path) -> str:
    """Log the model that takes pictures in the promotion's run, with its parameters. Return the model's id.

    The parameters are those of the promotion and the hyperparameters of the network, or of an ensemble's best member.
    """
    from pneumo.tracking.served import log_served

    params = {name: str(value) for name, value in _run_params(context, nominee).items()}
    tags = {Tags.STUDY: context.study, Tags.RUN: nominee.run.run_id}
    return log_served(context.store, run_id, folder, tags, {**nominee.run.parameters, **params})


def record_evaluation(
    context: PromotionContext,
    nominee: Nominee,
    evaluation: Evaluation,
    *,
    run_id: str,
    model_id: str,
) -> None:
    """Write everything that the test pictures show into the promotion's run.

    Args:
        context: The promotion.
        nominee: The model that was evaluated.
        evaluation: The result on the test pictures.
        run_id: The promotion's run.
        model_id: Id of the logged model that takes pictures.
    """
    from pneumo.evidence.model_card import model_card
    from pneumo.tracking import promotions

    evidence = {
        "figures": {name: interval.as_dict() for name, interval in evaluation.metrics.items()},
        "gate": evaluation.gate.as_dict(),
        "operating_point": nominee.point.as_dict(),
        "gain": {name: interval.as_dict() for name, interval in evaluation.gain.items()},
        "unreadable": dict(evaluation.unreadable),
        "model_id": model_id,
    }
    card = model_card(gather_facts(context, nominee), evaluation.metrics, evaluation.gate, evaluation.gain)
    promotions.record_judged(
        context.store,
        run_id,
        model_id=model_id,
        test=context.source.test_digest,
        source=context.experiment.data.path or context.source.description,
        counts=evaluation.counts,
        metrics=_run_metrics(nominee, evaluation),
        files=evaluation.files | {_EVIDENCE: json.dumps(evidence, indent=1), CARD: card},
        tags={Tags.GATE: "passed" if evaluation.gate.passed else "refused"},
    )


def read_evidence(store: Store, run_id: str) -> Evidence:
    """Return the evidence that `record_evaluation` stored in a promotion's run."""
    from pneumo.evidence.gate import Gate
    from pneumo.evidence.intervals import Interval
    from pneumo.tracking.runs import read_artifact

    document = json.loads(read_artifact(store, run_id, _EVIDENCE))
    metrics = {name: Interval.from_dict(interval) for name, interval in document["figures"].items()}
    # Earlier versions knew no ensembles.
    gain = {name: Interval.from_dict(interval) for name, interval in document.get("gain", {}).items()}
    return Evidence(run_id, metrics, Gate.from_dict(document["gate"]), gain, document["model_id"])


def _promotion_key(context: PromotionContext, nominee: Nominee, reference: Reference) -> str:
    """Return a hash that identifies a promotion. For a known key the test pictures are not evaluated again."""
    promote_block = context.experiment.promote
    evaluated = nominee.key(context.source)
    return hash_of([evaluated, reference.key, promote_block.gate, sorted(promote_block.floors.items()), context.model])


def _run_tags(context: PromotionContext, nominee: Nominee, reference: Reference) -> dict[str, str]:
    study_tags = context.request.recorded.tags
    copied = {key: study_tags[key] for key in (Tags.ENGINE, Tags.ALGORITHM) if key in study_tags}
    copied |= {Tags.MEMBERS: nominee.members} if nominee.chosen.is_ensemble else {}
    return copied | {
        Tags.VERSION: __version__,
        Tags.TRIAL: str(nominee.run.number),
        Tags.RUN: nominee.run.run_id,
        Tags.MODEL: context.model,
        Tags.AGAINST: reference.description,
        Tags.DATA: context.source.kind,
        Tags.DATA_TEST: context.source.test_digest,
    }


def _run_params(context: PromotionContext, nominee: Nominee) -> dict[str, Any]:
    promote_block, point = context.experiment.promote, nominee.point.point
    return {
        Params.ALIAS: context.alias,
        Params.ENSEMBLE: promote_block.ensemble or "none",
        Params.THRESHOLD_RULE: promote_block.threshold,
        Params.THRESHOLD: repr(point.threshold),
        Params.THRESHOLD_ON: nominee.point.on,
        Params.CALIBRATION: promote_block.calibration,
        Params.TEMPERATURE: repr(point.temperature),
        Params.GATE: promote_block.gate,
        Params.FLOORS: json.dumps(promote_block.floors),
    }


def _run_metrics(nominee: Nominee, evaluation: Evaluation) -> dict[str, float]:
    """Return the metrics of a promotion's run, without those that are not defined (NaN)."""
    gate, counts = evaluation.gate, evaluation.counts
    intervals: dict[str, Interval] = {
        f"{Metrics.TEST}{name}": interval for name, interval in evaluation.metrics.items()
    }
    if gate.auc_difference:
        intervals[Metrics.GATE_AUC_DIFFERENCE] = gate.auc_difference
    gain_metrics = {"auc": Metrics.GAIN_AUC, "accuracy": Metrics.GAIN_ACCURACY}
    intervals |= {gain_metrics[name]: interval for name, interval in evaluation.gain.items()}
    metrics: dict[str, float] = {}
    for name, interval in intervals.items():
        metrics |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    if gate.mcnemar:
        metrics[Metrics.GATE_MCNEMAR_P] = gate.mcnemar.p_value
    metrics |= {Metrics.TEST_PICTURES: counts["num_rows"], Metrics.TEST_PATIENTS: counts["patients"]}
    metrics[Metrics.TEST_UNREADABLE] = len(evaluation.unreadable)
    metrics |= _point_metrics(nominee)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _point_metrics(nominee: Nominee) -> dict[str, float]:
    """Return the accuracies of the operating point and of the alternative, without those that are not known."""
    point, other = nominee.point.point, nominee.point.other
    metrics = {Metrics.POINT_ACCURACY: point.accuracy, Metrics.POINT_STRESS_ACCURACY: point.stress_accuracy}
    if other:
        metrics[Metrics.OTHER_POINT_THRESHOLD] = other.threshold
        metrics[Metrics.OTHER_POINT_ACCURACY] = other.accuracy
        metrics[Metrics.OTHER_POINT_STRESS_ACCURACY] = other.stress_accuracy
    return {name: value for name, value in metrics.items() if value is not None}
