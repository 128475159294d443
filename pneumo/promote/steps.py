"""The steps of a promotion, from the request to the alias.

Each step first checks whether it is done already, so the same command finishes a promotion that was interrupted or killed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.console.command import silence_native_output
from pneumo.promote.checks import check_classes, check_model_kind, check_test_pictures
from pneumo.promote.choose import ChosenRun, choose_run
from pneumo.promote.context import PromotionContext
from pneumo.promote.evaluate import evaluate
from pneumo.promote.operating_point import choose_operating_point
from pneumo.promote.package import package_trial
from pneumo.promote.record import Evidence, decision_key, open_promotion_run, read_evidence, record_evaluation
from pneumo.promote.reference import Reference, choose_reference
from pneumo.promote.register import register
from pneumo.spec.names import Tags
from pneumo.spec.promotion import Promotion

if TYPE_CHECKING:
    from pneumo.tracking.promotions import Opening
    from pneumo.tracking.registry import Version
    from pneumo.tracking.served import Decision

Progress = Callable[[int, int], None]
"""Called with the number of test pictures that are predicted and the number of all test pictures."""


@dataclass(frozen=True)
class PromotionOutcome:
    """What a promotion led to, and why.

    Attributes:
        promotion: The version and its alias.
        evidence: Metrics and the gate's decision.
        decision: The operating point.
        openings: Every opening of the test pictures by this study, oldest first.
        openings_elsewhere: Number of openings of the same test pictures by other studies.
    """

    promotion: Promotion
    evidence: Evidence
    decision: Decision
    openings: list[Opening]
    openings_elsewhere: int


def promote(context: PromotionContext, *, say: Callable[[str], None], progress: Progress) -> PromotionOutcome:
    """Evaluate the study's best trial, or the run that was named, and register it.

    Args:
        context: What to promote, and where to.
        say: Called with a line of text for each step that the user should know of.
        progress: Called while the test pictures are predicted.

    Raises:
        RequestError: The request is wrong. Nothing was written.
    """
    from pneumo.tracking import promotions, registry
    from pneumo.tracking.study import trial_runs

    store = context.store
    check_test_pictures(context)
    check_model_kind(context)

    runs = trial_runs(store, context.study)
    chosen = choose_run(store, context.request, context.experiment, runs)
    say(f"Study {context.study}: {chosen.reason}")
    decision = choose_operating_point(context, chosen.run)

    registry.finish_move(store, context.model)
    champion = registry.version_at(store, context.model, context.alias)
    check_classes(context, champion)
    if champion and champion.tags.get(Tags.DECISION) == decision_key(chosen.run, decision, context.source):
        say(f"Already promoted: version {champion.number} of {context.model} has the alias {context.alias}.")
        return _earlier_outcome(context, champion, decision)

    reference = choose_reference(context, runs, chosen.run, champion)
    run = open_promotion_run(context, chosen, decision, reference)
    try:
        if not run.judged:
            openings = promotions.record_opening(store, context.request.recorded, chosen.run.run_id, run.run_id)
            say(f"Opening the sealed test pictures (opening {len(openings)} of this study).")
            _evaluate_and_record(context, chosen, decision, reference, run.run_id, progress)
        evidence = read_evidence(store, run.run_id)
        promotion = register(context, chosen, decision, evidence)
    except BaseException:
        promotions.abandon(store, run.run_id)
        raise
    return _outcome(context, promotion, evidence, decision)


def _evaluate_and_record(
    context: PromotionContext,
    chosen: ChosenRun,
    decision: Decision,
    reference: Reference,
    run_id: str,
    progress: Progress,
) -> None:
    """Evaluate the chosen run on the opened test pictures, and record the result and the model in the promotion's run."""
    from pneumo.cnn.device import warm_up
    from pneumo.data.sealed import open_sealed_test
    from pneumo.tracking.served import log_served

    with silence_native_output():
        warm_up()
    with tempfile.TemporaryDirectory() as folder:
        model_folder, reference_folder = Path(folder, "model"), Path(folder, "reference")
        model = package_trial(context, chosen.run, decision, model_folder)
        evaluation = evaluate(
            model,
            reference,
            open_sealed_test(context.source),
            context.experiment.promote,
            title=f"{context.study} trial {chosen.run.number}",
            folder=reference_folder,
            progress=progress,
        )
        model_id = log_served(context.store, run_id, model_folder, {Tags.STUDY: context.study})
    record_evaluation(context, chosen, decision, evaluation, run_id=run_id, model_id=model_id)


def _earlier_outcome(context: PromotionContext, champion: Version, decision: Decision) -> PromotionOutcome:
    """Return the outcome of the promotion that made the champion, and close its run if a kill left it open."""
    from pneumo.tracking import promotions

    store, run_id = context.store, champion.tags[Tags.PROMOTION]
    evidence = read_evidence(store, run_id)
    promotions.record_end(store, run_id, {Tags.MODEL: champion.model, Tags.MODEL_VERSION: champion.number})
    forced = champion.tags.get(Tags.FORCED)
    promotion = Promotion(champion.model, champion.number, context.alias, run_id, evidence.refusals, forced)
    return _outcome(context, promotion, evidence, decision)


def _outcome(
    context: PromotionContext, promotion: Promotion, evidence: Evidence, decision: Decision
) -> PromotionOutcome:
    from pneumo.tracking import promotions

    openings = promotions.read_openings(context.store, context.request.recorded)
    openings_elsewhere = promotions.count_openings_elsewhere(context.store, context.study, context.source.test_digest)
    return PromotionOutcome(promotion, evidence, decision, openings, openings_elsewhere)
