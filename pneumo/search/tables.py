"""The tables of a study at its end, as files of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pneumo.spec.best import best_metric
from pneumo.spec.experiment import Experiment
from pneumo.spec.names import Artifacts, Params
from pneumo.spec.objective import objective_metric
from pneumo.spec.result import Trial
from pneumo.spec.run import RecordedRun


def study_tables(
    experiment: Experiment, trials: Sequence[Trial], confirmations: Sequence[RecordedRun]
) -> dict[str, str | bytes]:
    """Return the tables of a study by their path in its run; none without trials.

    Args:
        experiment: The study's experiment.
        trials: The finished trials.
        confirmations: The runs of the confirmations; none if no trial was confirmed.
    """
    from pneumo.evidence.tables import confirm_csv, pareto_csv, trials_csv

    if not trials:
        return {}
    objectives = experiment.search.objectives
    files: dict[str, str | bytes] = {Artifacts.TRIALS: trials_csv([_trial_row(trial) for trial in trials])}
    if len(objectives) > 1:
        files[Artifacts.PARETO] = pareto_csv(trials, objectives)
    if confirmations:
        metric = objective_metric(best_metric(experiment)[0])
        files[Artifacts.CONFIRM] = confirm_csv([_confirmation_row(run, metric) for run in confirmations])
    return files


def _confirmation_row(run: RecordedRun, metric: str) -> dict[str, object]:
    seed = int(run.parameters[Params.SEED])
    return {"trial": run.number, "seed": seed, "value": run.metrics.get(metric), "run_id": run.run_id}


def _trial_row(trial: Trial) -> dict[str, Any]:
    result = trial.result
    row: Mapping[str, Any] = {
        "trial": trial.number,
        "state": result.state,
        "value": result.value,
        "run_id": result.run_id,
        "seconds": round(result.ended - result.started, 1),
        "error": result.error,
    }
    return {**row, **trial.candidate.hyperparameters, **result.metrics}
