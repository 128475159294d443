"""Register the evaluated model as a version with its evidence, and give it the alias that it earned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pneumo import __version__
from pneumo.promote.choose import ChosenRun
from pneumo.promote.context import PromotionContext
from pneumo.promote.record import CARD, Evidence, decision_key
from pneumo.spec.promotion import Promotion
from pneumo.spec.result import PARTS

if TYPE_CHECKING:
    from pneumo.evidence.intervals import Interval
    from pneumo.tracking.registry import Version
    from pneumo.tracking.served import Decision


def register(context: PromotionContext, chosen: ChosenRun, decision: Decision, evidence: Evidence) -> Promotion:
    """Create the version if there is none yet, move the alias, and close the promotion's run.

    The alias moves last, to a version that has all its evidence. A refused version gets the alias `challenger`, unless the
    request gives a reason to force it.
    """
    from pneumo.tracking import promotions, registry

    store, model, run_id = context.store, context.model, evidence.run_id
    refusals = evidence.refusals
    forced = context.force_reason if refusals else None
    gate_result = "forced" if forced else "refused" if refusals else "passed"
    gate_tags = ({"pneumo.forced": forced} if forced else {}) | {"pneumo.gate": gate_result}
    version = registry.version_with(store, model, "pneumo.promotion", run_id)
    if version is None:
        version = _create_version(context, chosen, decision, evidence, gate_tags)
    elif forced:  # an earlier promotion without --force registered it as refused
        registry.tag(store, version, gate_tags)
    if refusals and not forced:
        registry.challenge(store, model, version.number)
        promotion = Promotion(model, version.number, registry.CHALLENGER, run_id, refusals)
    else:
        replaced = registry.move(store, model, context.alias, version.number)
        promotion = Promotion(model, version.number, context.alias, run_id, refusals, forced, replaced)
    promotions.record_end(
        store, run_id, {"pneumo.model": model, "pneumo.model_version": version.number, "pneumo.gate": gate_result}
    )
    return promotion


def _create_version(
    context: PromotionContext,
    chosen: ChosenRun,
    decision: Decision,
    evidence: Evidence,
    gate_tags: dict[str, str],
) -> Version:
    from pneumo.tracking import registry
    from pneumo.tracking.study import artifact

    return registry.create(
        context.store,
        context.model,
        model_id=evidence.model_id,
        run_id=evidence.run_id,
        tags=_version_tags(context, chosen, decision, evidence) | gate_tags,
        card=artifact(context.store, evidence.run_id, CARD),
    )


def _version_tags(
    context: PromotionContext, chosen: ChosenRun, decision: Decision, evidence: Evidence
) -> dict[str, str]:
    from pneumo.tracking import promotions

    gate, source, recorded = evidence.gate, context.source, context.request.recorded
    tags = {
        "pneumo.study": context.study,
        "pneumo.run": chosen.run.run_id,
        "pneumo.trial": str(chosen.run.number),
        "pneumo.promotion": evidence.run_id,
        "pneumo.version": __version__,
        "pneumo.data": source.kind,
        "pneumo.classes": context.class_names,
        "pneumo.data.test": source.test_digest,
        "pneumo.decision": decision_key(chosen.run, decision, source),
        "pneumo.threshold": repr(decision.threshold),
        "pneumo.temperature": repr(decision.temperature),
        "pneumo.against": gate.against,
        "pneumo.gate.said": "; ".join(check.said for check in gate.checks) or "nothing was checked",
        "pneumo.test_openings": str(len(promotions.openings(context.store, recorded))),
        # A version in the registry does not name its logged model.
        "pneumo.model_id": evidence.model_id,
    }
    part_tags = (f"pneumo.data.{part}" for part in PARTS)
    tags |= {tag: digest for tag in part_tags if (digest := recorded.tags.get(tag))}
    return tags | {f"test_{name}": _metric_tag(interval) for name, interval in evidence.metrics.items()}


def _metric_tag(interval: Interval) -> str:
    from pneumo.evidence.model_card import shown_interval

    value, ends = shown_interval(interval)
    return f"{value} ({ends})"
