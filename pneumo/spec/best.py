"""The best trials of an experiment: by its objective or its rule, and by the confirmation."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pneumo.spec.experiment import Experiment
from pneumo.spec.objective import OBJECTIVES, Direction, objective_metric
from pneumo.spec.result import Trial
from pneumo.spec.run import RecordedRun
from pneumo.spec.selection import Confirmation, metric_value, pareto_front, rank_confirmations, rank_trials


def best_metric(experiment: Experiment) -> tuple[str, Direction]:
    """Return the metric that decides which trial is the best, and its direction: the rule's, or the first objective."""
    if rule := experiment.promote.rule:
        return rule.metric, rule.direction
    objective = experiment.search.objectives[0]
    return objective, OBJECTIVES[objective]


def best_first(
    trials: Sequence[Trial], experiment: Experiment, confirmations: Sequence[Confirmation] = ()
) -> list[Trial]:
    """Return the complete trials that keep the rule's bounds, best first.

    Args:
        trials: Finished trials.
        experiment: The experiment.
        confirmations: Confirmations of some of the trials, best first. Confirmed trials come before all others.
    """
    order = {confirmation.number: position for position, confirmation in enumerate(confirmations)}
    ranking = rank_trials(trials, experiment.search.objectives, experiment.promote.rule)
    return sorted(ranking, key=lambda trial: order.get(trial.number, len(order)))  # a stable sort


def numbers_to_keep(trials: Sequence[Trial], experiment: Experiment, confirmed: Collection[int] = ()) -> set[int]:
    """Return the numbers of the trials whose models `search.keep` keeps; of all trials if it is not set.

    These are the best trials, the whole front of several objectives, the baseline (a promotion may compare with it), and
    the trials that will be or were confirmed.

    Args:
        trials: Finished trials.
        experiment: The experiment.
        confirmed: Numbers of the trials that were confirmed.
    """
    search = experiment.search
    if search.keep is None:
        return {trial.number for trial in trials}
    best = best_first(trials, experiment)[: max(search.keep.best, search.confirm.top if search.confirm else 0)]
    front = pareto_front(trials, search.objectives) if len(search.objectives) > 1 else []
    return {trial.number for trial in [*best, *front]} | {*confirmed} | ({0} if search.baseline else set())


def baseline_trial(trials: Sequence[Trial], experiment: Experiment) -> Trial | None:
    """Return the finished trial of the tutorial's own network; None if there is none."""
    return next((t for t in trials if t.number == 0 and experiment.search.baseline), None)


def rank_confirmed_trials(
    finished_trials: Sequence[Trial], experiment: Experiment, runs: Sequence[RecordedRun]
) -> list[Confirmation]:
    """Return the confirmations of a study, best mean first.

    Args:
        finished_trials: Finished trials of the study.
        experiment: The experiment.
        runs: MLflow runs of the trainings with other seeds.
    """
    metric, direction = best_metric(experiment)
    values: dict[int, list[float]] = {}
    for run in runs:
        if (value := run.metrics.get(objective_metric(metric))) is not None:
            values.setdefault(run.number, []).append(value)
    search_values = {
        trial.number: metric_value(trial.result, metric, experiment.search.objectives) for trial in finished_trials
    }
    confirmations = [
        Confirmation(number, tuple(repeated), first)
        for number, repeated in values.items()
        if (first := search_values.get(number)) is not None
    ]
    return rank_confirmations(confirmations, direction)
