"""Which trial an experiment calls the best: by its objective or its rule, and by what was confirmed."""

from __future__ import annotations

from collections.abc import Sequence

from pneumo.spec.experiment import Experiment
from pneumo.spec.objective import OBJECTIVES, Direction
from pneumo.spec.result import Trial
from pneumo.spec.selection import Confirmed, ranked


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
