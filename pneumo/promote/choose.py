"""Which run a promotion is of: the one that was named, or a study's best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pneumo.spec.best import best_first, best_metric, rank_confirmed_trials
from pneumo.spec.candidate import Candidate
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.objective import objective_metric
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.selection import metric_value

if TYPE_CHECKING:
    from pneumo.spec.run import TrialRun
    from pneumo.tracking.promotions import Asked
    from pneumo.tracking.store import Store


@dataclass(frozen=True)
class ChosenRun:
    """The trial's run that is to be promoted, and why it is this one."""

    run: TrialRun
    why: str


def choose_run(store: Store, asked: Asked, experiment: Experiment, runs: list[TrialRun]) -> ChosenRun:
    """The run that was named, or of `runs` the best trial by the study's rule. Raises `RequestError` where there is none."""
    from pneumo.tracking.study import confirmations

    confirming = confirmations(store, asked.study)
    if asked.run_id:
        run = next((one for one in [*runs, *confirming] if one.run_id == asked.run_id), None)
        if run is None or run.state != "complete":
            state = run.state or run.status if run else "of another kind"
            raise RequestError(f"{asked.run_id}: this run is {state}; wants a trial that is complete")
        return ChosenRun(run, f"trial {run.number}, named by its run")
    objectives = experiment.search.objectives
    told = {run.number: _told(run, objectives[0]) for run in runs if run.state == "complete"}
    confirmed = rank_confirmed_trials(list(told.values()), experiment, confirming)
    best = best_first(list(told.values()), experiment, confirmed)
    if not best:
        bounds = " that keeps the bounds of promote.subject_to" if experiment.promote.subject_to else ""
        raise RequestError(f"study {asked.study}: has no complete trial{bounds}, so there is nothing to promote")
    metric, _ = best_metric(experiment)
    by = f"{metric} {metric_value(best[0].result, metric, objectives):.4f}"
    if confirmed and confirmed[0].number == best[0].number:
        by = f"mean {metric} {confirmed[0].mean:.4f} over {len(confirmed[0].values)} other seeds"
    run = next(run for run in runs if run.run_id == best[0].result.run_id)
    return ChosenRun(run, f"trial {run.number}, the best of {len(told)} by {by}")


def _told(run: TrialRun, objective: str) -> Trial:
    value = run.metrics.get(objective_metric(objective))
    return Trial(Candidate(run.number, {}), TrialResult(run.number, run.run_id, "complete", value, run.metrics))
