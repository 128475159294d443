"""The sentences that both the screen and the record say."""

from __future__ import annotations

from pneumo.spec.best import best_metric
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.result import Trial
from pneumo.spec.selection import Bound, Confirmation


def describe_gain(best: Trial, baseline: Trial, objective: str) -> str:
    """How far the best trial is beyond the tutorial's network, in a sentence."""
    value, base = best.result.value, baseline.result.value
    if baseline.result.state != "complete" or value is None or base is None:
        return f"The tutorial's network (trial {baseline.number}) {baseline.result.state}: nothing to compare with."
    if best.number == baseline.number:
        return (
            f"The tutorial's own network (trial {baseline.number}) is still the best: {objective} {format_value(base)}."
        )
    gain = value - base if OBJECTIVES[objective] == "maximize" else base - value
    return (
        f"Trial {best.number} reaches {objective} {format_value(value)}, {format_value(abs(gain))} "
        f"{'better' if gain >= 0 else 'worse'} than the tutorial's network ({format_value(base)}, trial {baseline.number})."
    )


def describe_confirmation(best: Confirmation, experiment: Experiment) -> str:
    """What was confirmed of the best trial, in a sentence."""
    metric, direction = best_metric(experiment)
    lucky = best.luck(direction)
    interval = "" if best.low is None else f" (95 % interval {format_value(best.low)} to {format_value(best.high)})"
    said = f"{format_value(abs(lucky))} {'better' if lucky >= 0 else 'worse'}"
    return (
        f"Trial {best.number} over {len(best.values)} other seeds: mean {metric} {format_value(best.mean)}{interval}; the "
        f"value that the search saw, {format_value(best.first)}, was {said}."
    )


def describe_candidate(candidate: Candidate) -> str:
    """What was searched in a candidate, as `layers=2 learning_rate=0.00034`."""
    values = candidate.hyperparameters
    return " ".join(f"{name}={format_hyperparameter(values[name])}" for name in values if name in candidate.searched)


def describe_bound(bound: Bound) -> str:
    ends = (("at least", bound.min), ("at most", bound.max))
    return " and ".join(f"{end} {value:,g}" for end, value in ends if value is not None)


def format_hyperparameter(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def format_value(value: float | None) -> str:
    """A value of an objective: four places, or none where it is a count or large."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or (abs(value) > 1 and value.is_integer()) else f"{value:.4f}"
