"""Register the evaluated model as a version with its evidence, and give it the alias that it earned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pneumo import __version__
from pneumo.promote.context import PromotionContext
from pneumo.promote.description import describe_promotion
from pneumo.promote.nominee import Nominee
from pneumo.promote.record import CARD, Evidence
from pneumo.spec.names import Metrics, Tags
from pneumo.spec.promotion import Promotion
from pneumo.spec.result import PARTS

if TYPE_CHECKING:
    from pneumo.evidence.intervals import Interval
    from pneumo.tracking.registry import Version


def register(context: PromotionContext, nominee: Nominee, evidence: Evidence) -> Promotion:
    """Create the version if there is none yet, move the alias, and close the promotion's run.

    The alias moves last, to a version that has all its evidence. A refused version gets the alias `challenger`, unless the
    request gives a reason to force it.
    """
    from pneumo.tracking import promotions, registry

    store, model, run_id = context.store, context.model, evidence.run_id
    refusals = evidence.refusals
    forced = context.force_reason if refusals else None
    gate_result = "forced" if forced else "refused" if refusals else "passed"
    gate_tags = ({Tags.FORCED: forced} if forced else {}) | {Tags.GATE: gate_result}
    version = registry.version_with(store, model, Tags.PROMOTION, run_id)
    if version is None:
        version = _create_version(context, nominee, evidence, gate_tags)
    elif forced:  # an earlier promotion without --force registered it as refused
        registry.tag(store, version, gate_tags)
    if refusals and not forced:
        registry.challenge(store, model, version.number)
        promotion = Promotion(model, version.number, registry.CHALLENGER, run_id, refusals)
    else:
        replaced = registry.move(store, model, context.alias, version.number)
        promotion = Promotion(model, version.number, context.alias, run_id, refusals, forced, replaced)
    tags = {Tags.MODEL: model, Tags.MODEL_VERSION: version.number, Tags.GATE: gate_result}
    description = describe_promotion(context, nominee, evidence, promotion)
    promotions.record_end(store, run_id, tags | {Tags.NOTE: description})
    return promotion


def _create_version(
    context: PromotionContext,
    nominee: Nominee,
    evidence: Evidence,
    gate_tags: dict[str, str],
) -> Version:
    from pneumo.tracking import registry
    from pneumo.tracking.runs import read_artifact

    return registry.create(
        context.store,
        context.model,
        model_id=evidence.model_id,
        run_id=evidence.run_id,
        tags=_version_tags(context, nominee, evidence) | gate_tags,
        card=read_artifact(context.store, evidence.run_id, CARD),
    )


def _version_tags(context: PromotionContext, nominee: Nominee, evidence: Evidence) -> dict[str, str]:
    from pneumo.tracking import promotions

    gate, source, recorded = evidence.gate, context.source, context.request.recorded
    tags = {
        Tags.STUDY: context.study,
        Tags.RUN: nominee.run.run_id,
        Tags.TRIAL: str(nominee.run.number),
        Tags.PROMOTION: evidence.run_id,
        Tags.VERSION: __version__,
        Tags.DATA: source.kind,
        Tags.CLASSES: context.class_names,
        Tags.DATA_TEST: source.test_digest,
        Tags.DECISION: nominee.key(source),
        Tags.THRESHOLD: repr(nominee.decision.threshold),
        Tags.TEMPERATURE: repr(nominee.decision.temperature),
        Tags.THRESHOLD_ON: nominee.point.on,
        Tags.AGAINST: gate.against,
        Tags.GATE_SAID: "; ".join(check.message for check in gate.checks) or "nothing was checked",
        Tags.TEST_OPENINGS: str(len(promotions.read_openings(context.store, recorded))),
        # A version in the registry does not name its logged model.
        Tags.MODEL_ID: evidence.model_id,
    }
    if nominee.chosen.is_ensemble:
        tags[Tags.MEMBERS] = nominee.members
    part_tags = (Tags.data(part) for part in PARTS)
    tags |= {tag: digest for tag in part_tags if (digest := recorded.tags.get(tag))}
    return tags | {f"{Metrics.TEST}{name}": _metric_tag(interval) for name, interval in evidence.metrics.items()}


def _metric_tag(interval: Interval) -> str:
    from pneumo.evidence.model_card import format_interval

    value, ends = format_interval(interval)
    return f"{value} ({ends})"
