"""Choose the run to promote: the run that was named, or the study's best trial. `ensemble` chooses several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pneumo.spec.best import best_first, best_metric, rank_confirmed_trials
from pneumo.spec.candidate import Candidate
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.names import Params
from pneumo.spec.objective import objective_metric
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.selection import Confirmation, metric_value

if TYPE_CHECKING:
    from pneumo.spec.run import RecordedRun
    from pneumo.tracking.promotions import PromotionRequest
    from pneumo.tracking.store import Store


@dataclass(frozen=True)
class Chosen:
    """The runs to promote: one, or the members of an ensemble.

    Attributes:
        runs: The runs, the best first.
        weights: The weight of each run; they sum to 1.
        reason: Why they were chosen, for example `trial 3, the best of 5 by val_auc 0.8754`.
        remarks: What else the user should know of the choice, a line each.
    """

    runs: tuple[RecordedRun, ...]
    weights: tuple[float, ...]
    reason: str
    remarks: tuple[str, ...] = ()

    @classmethod
    def single(cls, run: RecordedRun, reason: str, remarks: tuple[str, ...] = ()) -> Chosen:
        """Return the choice of one run."""
        return cls((run,), (1.0,), reason, remarks)

    @property
    def run(self) -> RecordedRun:
        """The run; of an ensemble its best member's."""
        return self.runs[0]

    @property
    def is_ensemble(self) -> bool:
        return len(self.runs) > 1


def describe_run(run: RecordedRun) -> str:
    """Return `trial 3`, or `trial 3 with seed 1001` for a confirmation."""
    seed = f" with seed {run.parameters[Params.SEED]}" if run.role == "confirm" else ""
    return f"trial {run.number}{seed}"


def choose_run(store: Store, request: PromotionRequest, experiment: Experiment, runs: Sequence[RecordedRun]) -> Chosen:
    """Return the run that the request names, or else the best trial.

    The best trial is the first by the rule of the `promote` block or by the objective; means over confirmation trainings
    replace the values of the search if there are any.

    Args:
        store: The tracking store, which holds the confirmation trainings.
        request: The study and, optionally, one of its runs.
        experiment: The study's experiment.
        runs: All runs of the study's trials.

    Raises:
        RequestError: The named run is not a complete trial, or the study has no complete trial within the bounds.
    """
    from pneumo.tracking.study import confirmations

    confirmation_runs = confirmations(store, request.study)
    if request.run_id:
        return _named_run(request.run_id, [*runs, *confirmation_runs])
    return _best_run(request.study, experiment, runs, confirmation_runs)


def _named_run(run_id: str, runs: Sequence[RecordedRun]) -> Chosen:
    run = next((run for run in runs if run.run_id == run_id), None)
    if run is None:
        raise RequestError(f"{run_id}: not a run of a trial; expected a complete trial")
    if run.state != "complete":
        raise RequestError(f"{run_id}: this run is {run.state or run.status}; expected a complete trial")
    return Chosen.single(run, f"trial {run.number}, chosen by its run id")


def _best_run(
    study: str, experiment: Experiment, runs: Sequence[RecordedRun], confirmation_runs: Sequence[RecordedRun]
) -> Chosen:
    complete, ranking, confirmed = rank_runs(study, experiment, runs, confirmation_runs)
    best, objectives = ranking[0], experiment.search.objectives
    metric, _ = best_metric(experiment)
    if confirmed and confirmed[0].number == best.number:
        value = f"mean {metric} {confirmed[0].mean:.4f} over {len(confirmed[0].values)} other seeds"
    else:
        value = f"{metric} {metric_value(best.result, metric, objectives):.4f}"
    run = complete[best.number]
    return Chosen.single(run, f"trial {run.number}, the best of {len(complete)} by {value}")


def rank_runs(
    study: str, experiment: Experiment, runs: Sequence[RecordedRun], confirmation_runs: Sequence[RecordedRun]
) -> tuple[dict[int, RecordedRun], list[Trial], list[Confirmation]]:
    """Return the run of each complete trial by its number, the trials within the bounds, best first, and confirmations.

    Raises:
        RequestError: The study has no complete trial within the bounds.
    """
    objectives = experiment.search.objectives
    # A trial can have several runs; the last complete one counts.
    complete = {run.number: run for run in runs if run.state == "complete"}
    trials = [_as_trial(run, objectives[0]) for run in complete.values()]
    confirmed = rank_confirmed_trials(trials, experiment, confirmation_runs)
    ranking = best_first(trials, experiment, confirmed)
    if not ranking:
        bounds = " within the bounds of promote.subject_to" if experiment.promote.subject_to else ""
        raise RequestError(f"study {study}: has no complete trial{bounds}, so there is nothing to promote")
    return complete, ranking, confirmed


def _as_trial(run: RecordedRun, objective: str) -> Trial:
    """Return a run as the trial that the ranking takes. It needs the metrics only, not the hyperparameters."""
    value = run.metrics.get(objective_metric(objective))
    return Trial(Candidate(run.number, {}), TrialResult(run.number, run.run_id, "complete", value, run.metrics))
