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
from pneumo.promote.context import PromotionContext
from pneumo.promote.evaluate import evaluate
from pneumo.promote.nominee import Nominee, nominate
from pneumo.promote.package import package
from pneumo.promote.record import (
    Evidence,
    find_promotion_run,
    log_model,
    open_promotion_run,
    read_evidence,
    record_evaluation,
)
from pneumo.promote.reference import Reference, check_patients, choose_reference, load_reference
from pneumo.promote.register import register
from pneumo.spec.errors import RequestError
from pneumo.spec.names import Tags
from pneumo.spec.promotion import Promotion

if TYPE_CHECKING:
    from pneumo.tracking.promotions import Opening, PromotionRun
    from pneumo.tracking.registry import Version
    from pneumo.tracking.served import Served

Progress = Callable[[int, int], None]
"""Called with the number of test pictures that are predicted and the number of all test pictures."""


@dataclass(frozen=True)
class PromotionOutcome:
    """What a promotion led to, and why.

    Attributes:
        promotion: The version and its alias.
        evidence: Metrics and the gate's decision.
        nominee: The model with its operating point.
        openings: Every opening of the test pictures by this study, oldest first.
        openings_elsewhere: Number of openings of the same test pictures by other studies.
        from_record: Whether an earlier promotion led to it, so that nothing was written.
        can_roll_back: Whether another version had the alias before.
    """

    promotion: Promotion
    evidence: Evidence
    nominee: Nominee
    openings: list[Opening]
    openings_elsewhere: int
    from_record: bool
    can_roll_back: bool


def promote(context: PromotionContext, *, say: Callable[[str], None], progress: Progress) -> PromotionOutcome:
    """Evaluate the study's best trial, or the run that was named, and register it.

    Args:
        context: What to promote, and where to.
        say: Called with a line of text for each step that the user should know of.
        progress: Called while the test pictures are predicted.

    Raises:
        RequestError: The request is wrong. Nothing was written.
        CannotCompareError: The gate has nothing to compare with. Nothing was written.
    """
    from pneumo.tracking import promotions, registry
    from pneumo.tracking.study import trial_runs

    store = context.store
    check_test_pictures(context)
    check_model_kind(context)

    runs = trial_runs(store, context.study)
    nominee = nominate(context, runs)
    say(f"Study {context.study}: {nominee.chosen.reason}")
    for line in (*nominee.chosen.remarks, *nominee.point.sentences):
        say(line)

    registry.finish_move(store, context.model)
    champion = registry.version_at(store, context.model, context.alias)
    check_classes(context, champion)
    if champion and champion.tags.get(Tags.DECISION) == nominee.key(context.source):
        return _earlier_outcome(context, champion, context.alias, nominee)
    reference = choose_reference(context, runs, nominee.chosen, champion)
    earlier = find_promotion_run(context, nominee, reference)
    if earlier and (challenger := _refused_version(context, earlier)):
        return _earlier_outcome(context, challenger, registry.CHALLENGER, nominee)

    with tempfile.TemporaryDirectory() as folder:
        models = None
        if earlier is None or not earlier.judged:
            check_patients(context)
            reference, models = _load_models(context, nominee, reference, Path(folder))
        run = open_promotion_run(context, nominee, reference)
        try:
            if models and not run.judged:
                openings = promotions.record_opening(store, context.request.recorded, nominee.run_ids, run.run_id)
                say(f"Opening the sealed test pictures (opening {len(openings)} of this study).")
                _evaluate_and_record(context, nominee, models, reference, run.run_id, progress)
            evidence = read_evidence(store, run.run_id)
            promotion = register(context, nominee, evidence)
        except BaseException:
            promotions.abandon(store, run.run_id)
            raise
    return _outcome(context, promotion, evidence, nominee)


@dataclass(frozen=True, eq=False)
class _Models:
    """The model to promote, the folder that it was loaded from, the reference's model and an ensemble's best member."""

    model: Served
    folder: Path
    reference: Served | None
    best_member: Served | None


def _load_models(
    context: PromotionContext, nominee: Nominee, reference: Reference, folder: Path
) -> tuple[Reference, _Models]:
    """Load the model to promote and the reference's, before anything is written and the test pictures are opened.

    Returns the reference that was loaded and the models. Raises `RequestError` if a model is lost.
    """
    from pneumo.cnn.device import warm_up

    with silence_native_output():
        warm_up()
    model_folder = folder / "model"
    model = package(context, nominee.chosen.runs, nominee.decision, model_folder)
    best = nominee.best_member
    best_member = package(context, best.chosen.runs, best.decision, folder / "best-member") if best else None
    reference, reference_model = load_reference(context, reference, folder / "reference")
    return reference, _Models(model, model_folder, reference_model, best_member)


def _evaluate_and_record(
    context: PromotionContext,
    nominee: Nominee,
    models: _Models,
    reference: Reference,
    run_id: str,
    progress: Progress,
) -> None:
    """Evaluate the nominee on the opened test pictures, and record the result and the model in the promotion's run."""
    from pneumo.data.sealed import open_sealed_test

    evaluation = evaluate(
        models.model,
        models.reference,
        models.best_member,
        reference,
        open_sealed_test(context.source),
        context.experiment.promote,
        title=f"{context.study} {nominee.title}",
        progress=progress,
    )
    model_id = log_model(context, nominee, run_id, models.folder)
    record_evaluation(context, nominee, evaluation, run_id=run_id, model_id=model_id)


def _refused_version(context: PromotionContext, run: PromotionRun) -> Version | None:
    """Return the version that the gate refused in an earlier promotion, if this one would only repeat it."""
    from pneumo.tracking import registry

    if context.force_reason is not None or not run.judged or run.status != "FINISHED":
        return None
    challenger = registry.version_at(context.store, context.model, registry.CHALLENGER)
    return challenger if challenger and challenger.tags.get(Tags.PROMOTION) == run.run_id else None


def _earlier_outcome(context: PromotionContext, version: Version, alias: str, nominee: Nominee) -> PromotionOutcome:
    """Return the outcome of the promotion that made a version. Only a run that a kill left open is closed."""
    from pneumo.tracking import promotions

    store, run_id = context.store, version.tags[Tags.PROMOTION]
    try:
        evidence = read_evidence(store, run_id)
    except RequestError as error:
        raise RequestError(
            f"model {version.model}: version {version.number} has the alias {alias} already, but its promotion cannot be "
            f"read: {error}"
        ) from None
    promotions.close_if_open(store, run_id, {Tags.MODEL: version.model, Tags.MODEL_VERSION: version.number})
    forced = version.tags.get(Tags.FORCED)
    promotion = Promotion(version.model, version.number, alias, run_id, evidence.refusals, forced)
    return _outcome(context, promotion, evidence, nominee, from_record=True)


def _outcome(
    context: PromotionContext,
    promotion: Promotion,
    evidence: Evidence,
    nominee: Nominee,
    *,
    from_record: bool = False,
) -> PromotionOutcome:
    from pneumo.tracking import promotions, registry

    openings = promotions.read_openings(context.store, context.request.recorded)
    openings_elsewhere = promotions.count_openings_elsewhere(context.store, context.study, context.source.test_digest)
    previous = registry.version_at(context.store, context.model, registry.previous_of(context.alias))
    return PromotionOutcome(
        promotion, evidence, nominee, openings, openings_elsewhere, from_record, can_roll_back=previous is not None
    )
