"""Choose and load the model that a promotion compares with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.promote.choose import Chosen
from pneumo.promote.context import PromotionContext
from pneumo.promote.nominee import with_operating_point
from pneumo.promote.operating_point import NO_STRESS, chosen_on
from pneumo.promote.package import package
from pneumo.promote.validation import has_stress_predictions
from pneumo.spec.errors import RequestError

if TYPE_CHECKING:
    from pneumo.spec.run import RecordedRun
    from pneumo.tracking.registry import Version
    from pneumo.tracking.served import Served


class CannotCompareError(RequestError):
    """The gate refuses, because there is nothing that it can compare. Nothing was written."""


@dataclass(frozen=True, eq=False)
class Reference:
    """The model that a promotion compares with, or the reason why there is none.

    Attributes:
        key: Identifies the reference within the hash that identifies the promotion.
        name: Short name for the legends of plots.
        description: Name for people; without `load`, the reason why there is nothing to compare with.
        load: Loads the model and takes the path of a folder that it may create; None if there is no reference.
    """

    key: str
    name: str
    description: str
    load: Callable[[Path], Served] | None = None


def choose_reference(
    context: PromotionContext, runs: Sequence[RecordedRun], chosen: Chosen, champion: Version | None
) -> Reference:
    """Return the present champion, or without one the study's baseline, the tutorial's own network.

    Args:
        context: The promotion.
        runs: All runs of the study's trials, among them the baseline's.
        chosen: What is to be promoted.
        champion: The version that has the alias now.

    Raises:
        CannotCompareError: There is neither, and `context` has no reason to promote without a comparison.
    """
    from pneumo.tracking.served import load_served

    if champion is not None:
        return Reference(
            f"version {champion.number}",
            "champion",
            f"the champion, version {champion.number}",
            lambda _: load_served(context.store, champion.uri),
        )
    if not context.experiment.search.baseline:
        return _no_reference(context, "there is no champion yet, and the study has no baseline (search.baseline)")
    baseline_runs = [run for run in runs if run.number == 0]
    baseline = next((run for run in baseline_runs if run.state == "complete"), None)
    if baseline is None:
        return _no_reference(context, f"there is no champion yet, and {_missing_baseline(baseline_runs)}")
    # A baseline that is compared with itself is not better, so the gate refuses it.
    same = ", the same trial" if [baseline] == list(chosen.runs) else ""
    description = f"the study's baseline, trial {baseline.number}{same}"
    key = f"run {baseline.run_id}"
    on = chosen_on(context.experiment.promote, has_stress_predictions(context, baseline))
    if on == "stress":  # A promotion by an earlier version, which knew no other way, keeps its key.
        key += " on stress"
    elif on and on != context.experiment.promote.on:
        description += f", with an operating point of the plain validation pictures, because {NO_STRESS}"
    return Reference(key, "baseline", description, partial(_package_baseline, context, baseline))


def load_reference(context: PromotionContext, reference: Reference, folder: Path) -> tuple[Reference, Served | None]:
    """Load the reference's model.

    Args:
        context: The promotion.
        reference: The reference.
        folder: A new folder for the reference's model.

    Returns:
        The reference and its model. If the model is lost and `context` has a reason to promote without a comparison, a
        reference without a model, and None.

    Raises:
        CannotCompareError: The model is lost, and `context` has no such reason.
    """
    if reference.load is None:
        return reference, None
    try:
        return reference, reference.load(folder)
    except RequestError as error:
        return _no_reference(context, f"{reference.description}, cannot be loaded: {error}"), None


def check_patients(context: PromotionContext) -> None:
    """Raise `CannotCompareError` if the sealed test pictures have too few patients to prove a gain that must be significant."""
    from pneumo.evidence.gate import FEWEST_PATIENTS

    if context.force_reason is not None or context.experiment.promote.gate != "significant":
        return
    sealed, classes = context.source.sealed, context.source.classes
    for label, name in enumerate(classes):
        patients = len({picture.patient for picture in sealed if picture.label == label})
        if patients < FEWEST_PATIENTS:
            raise CannotCompareError(
                f"study {context.study}: {patients} test patients of {name} can prove no gain (promote.gate: significant needs "
                f"{FEWEST_PATIENTS} of each class); the test pictures stay sealed; --force REASON promotes without proof"
            )


def _no_reference(context: PromotionContext, reason: str) -> Reference:
    """Return a reference without a model. Raise `CannotCompareError` if the request does not force the promotion."""
    if context.force_reason is None:
        raise CannotCompareError(
            f"study {context.study}: the gate has nothing to compare with: {reason}; the test pictures stay sealed; --force "
            f"REASON promotes without a comparison"
        )
    return Reference("none", "", reason)


def _missing_baseline(runs: Sequence[RecordedRun]) -> str:
    """Say why the study's baseline cannot be compared with, given all its runs."""
    if not runs:
        return "the run of the study's baseline, trial 0, is not in MLflow: it was deleted"
    return f"the study's baseline, trial 0, is not complete but {runs[-1].state or runs[-1].status}"


def _package_baseline(context: PromotionContext, baseline: RecordedRun, folder: Path) -> Served:
    decision = with_operating_point(context, Chosen.single(baseline, "the baseline")).decision
    return package(context, [baseline], decision, folder)
