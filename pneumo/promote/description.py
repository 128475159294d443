"""The description at the head of a promotion's run in MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pneumo.promote.context import PromotionContext
from pneumo.promote.nominee import Nominee
from pneumo.spec.promotion import Promotion
from pneumo.spec.wording import markdown_table

if TYPE_CHECKING:
    from pneumo.promote.record import Evidence


def describe_promotion(
    context: PromotionContext, nominee: Nominee, evidence: Evidence | None = None, promotion: Promotion | None = None
) -> str:
    """Return the description as Markdown: what became of the model, its figures on the test pictures, where they come from.

    Args:
        context: The promotion.
        nominee: The model.
        evidence: What the promotion is decided by; None before the test pictures are opened.
        promotion: What it led to; None before the decision.
    """
    from pneumo.tracking.study import experiment_id
    from pneumo.tracking.views import run_page_address

    page = run_page_address(experiment_id(context.store, context.study), nominee.run.run_id)
    what = f"[{nominee.title}]({page}) of study {context.study}"
    lines = [_verdict(what, promotion) if promotion else f"A promotion of {what} to model {context.model} has begun."]
    if context.phantom:
        lines.append("The pictures are generated **phantoms**, not X-rays: the figures say nothing about patients.")
    if evidence:
        lines.append(_figures(evidence))
    lines += nominee.point.sentences
    return "\n\n".join(lines)


def _verdict(what: str, promotion: Promotion) -> str:
    version = f"[Version {promotion.version}](#/models/{promotion.model}/versions/{promotion.version})"
    version += f" of model {promotion.model}"
    if promotion.refused and not promotion.forced:
        reasons = "".join(f"\n- {line}" for line in promotion.refused)
        return f"**Refused by the gate**: {what}. {version} has only the alias challenger.\n{reasons}"
    forced = f" It was forced: {promotion.forced}." if promotion.forced else ""
    return f"**Promoted**: {what}. {version} has the alias **{promotion.alias}**.{forced}"


def _figures(evidence: Evidence) -> str:
    from pneumo.evidence.model_card import figure_label, format_interval

    rows = [(figure_label(name), *format_interval(interval)) for name, interval in evidence.metrics.items()]
    return markdown_table([("on the test pictures", "value", "95 % interval"), *rows])
