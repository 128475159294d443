"""Choose the model that a promotion compares with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.promote.context import PromotionContext
from pneumo.promote.operating_point import choose_operating_point
from pneumo.promote.package import package_trial

if TYPE_CHECKING:
    from pneumo.spec.run import RecordedRun
    from pneumo.tracking.registry import Version
    from pneumo.tracking.served import Served


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
    context: PromotionContext, runs: Sequence[RecordedRun], chosen: RecordedRun, champion: Version | None
) -> Reference:
    """Return the present champion, or without one the study's baseline, the tutorial's own network.

    Args:
        context: The promotion.
        runs: All runs of the study's trials, among them the baseline's.
        chosen: The run to promote.
        champion: The version that has the alias now.
    """
    from pneumo.tracking.served import load_served

    if champion is not None:
        description = f"the champion, version {champion.number}"
        key = f"version {champion.number}"
        return Reference(key, "champion", description, lambda _: load_served(context.store, champion.uri))
    if not context.experiment.search.baseline:
        return Reference("none", "", "there is no champion yet, and the study has no baseline")
    baseline = next((run for run in runs if run.number == 0 and run.state == "complete"), None)
    if baseline is None:
        return Reference("none", "", "there is no champion yet, and the study's baseline did not complete")
    # A baseline that is compared with itself is not better, so the gate refuses it.
    same = ", the same trial" if baseline.run_id == chosen.run_id else ""
    decision = choose_operating_point(context, baseline)
    load_baseline = partial(package_trial, context, baseline, decision)
    description = f"the study's baseline, trial {baseline.number}{same}"
    return Reference(f"run {baseline.run_id}", "baseline", description, load_baseline)
