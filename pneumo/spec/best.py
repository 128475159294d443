"""Which trial an experiment calls the best: by its objective or its rule, and by what was confirmed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pneumo.spec.experiment import Experiment
from pneumo.spec.objective import OBJECTIVES, Direction, objective_metric
from pneumo.spec.result import Trial
from pneumo.spec.run import RecordedRun
from pneumo.spec.selection import Confirmed, confirmed_ranking, pareto_front, ranked, value_of


def best_metric(experiment: Experiment) -> tuple[str, Direction]:
    """What the best trial has most or least of: the rule's metric, or the first objective."""
    if rule := experiment.promote.rule:
        return rule.metric, rule.direction
    first = experiment.search.objectives[0]
    return first, OBJECTIVES[first]


def best_first(trials: Sequence[Trial], experiment: Experiment, confirmed: Sequence[Confirmed] = ()) -> list[Trial]:
    """The complete trials that keep the rule's bounds, best first; those that were confirmed before the others.

    `confirmed`: best first.
    """
    order = {one.number: place for place, one in enumerate(confirmed)}
    found = ranked(trials, experiment.search.objectives, experiment.promote.rule)
    return sorted(found, key=lambda trial: order.get(trial.number, len(order)))  # stable: the others as they were


def numbers_to_keep(trials: Sequence[Trial], experiment: Experiment, confirmed: Collection[int] = ()) -> set[int]:
    """The numbers of the trials whose models `search.keep` keeps; without it those of all.

    These are the best, of several objectives the whole front, the baseline, which a promotion may compare with, and those
    that are to be confirmed, or were.
    """
    search = experiment.search
    if search.keep is None:
        return {trial.number for trial in trials}
    best = best_first(trials, experiment)[: max(search.keep.best, search.confirm.top if search.confirm else 0)]
    front = pareto_front(trials, search.objectives) if len(search.objectives) > 1 else []
    return {trial.number for trial in [*best, *front]} | {*confirmed} | ({0} if search.baseline else set())


def baseline_of(trials: Sequence[Trial], experiment: Experiment) -> Trial | None:
    """The trial of the tutorial's own network, if there is one and it has ended."""
    return next((t for t in trials if t.number == 0 and experiment.search.baseline), None)


def confirmed_of(told: Sequence[Trial], experiment: Experiment, runs: Sequence[RecordedRun]) -> list[Confirmed]:
    """What MLflow's runs say of the trials that were trained again, best mean first."""
    metric, direction = best_metric(experiment)
    values: dict[int, list[float]] = {}
    for run in runs:
        if (value := run.metrics.get(objective_metric(metric))) is not None:
            values.setdefault(run.number, []).append(value)
    firsts = {trial.number: value_of(trial.result, metric, experiment.search.objectives) for trial in told}
    found = [
        Confirmed(number, tuple(some), first)
        for number, some in values.items()
        if (first := firsts.get(number)) is not None
    ]
    return confirmed_ranking(found, direction)
