"""Sentences and numbers that stand both on the screen and in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pneumo.spec.best import best_metric
from pneumo.spec.candidate import Candidate, SkipReason
from pneumo.spec.comparison import Comparison
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.names import Metrics
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.result import Trial
from pneumo.spec.selection import Bound, Confirmation


def describe_gain(best: Trial, baseline: Trial, objective: str, comparison: Comparison | None = None) -> str:
    """Return a sentence that compares the best trial with the tutorial's network.

    Args:
        best: The best trial.
        baseline: The tutorial's network.
        objective: The objective that both are compared by.
        comparison: The same comparison with an interval, if there is one.
    """
    value, baseline_value = best.result.value, baseline.result.value
    if baseline.result.state != "complete" or value is None or baseline_value is None:
        return f"The tutorial's network (trial {baseline.number}) {baseline.result.state}: nothing to compare with."
    baseline_text = format_value(baseline_value)
    if best.number == baseline.number:
        return f"The tutorial's own network (trial {baseline.number}) is still the best: {objective} {baseline_text}."
    if comparison is not None and comparison.metric == objective:
        gain = value - baseline_value
        return (
            f"Trial {best.number} reaches {objective} {format_value(value)}, {format_value(abs(gain))} "
            f"{'above' if gain >= 0 else 'below'} the tutorial's network ({describe_interval(comparison)})."
        )
    gain = value - baseline_value if OBJECTIVES[objective] == "maximize" else baseline_value - value
    return (
        f"Trial {best.number} reaches {objective} {format_value(value)}, {format_value(abs(gain))} "
        f"{'better' if gain >= 0 else 'worse'} than the tutorial's network ({baseline_text}, trial {baseline.number})."
    )


def describe_interval(comparison: Comparison) -> str:
    """Return the interval of a comparison, as `95 % interval by patient -0.001 to +0.014`."""
    interval = f"95 % interval {comparison.unit} {comparison.low:+.3f} to {comparison.high:+.3f}"
    if comparison.is_same_pictures:
        return interval
    return f"{comparison.difference:+.4f} on the {comparison.pictures:,} pictures that both were judged on, {interval}"


def describe_stress(best: Trial) -> str | None:
    """Return a sentence with the best trial's figures on the stress suite; None if it was not judged on it."""
    names = (Metrics.VAL_STRESS_AUC, Metrics.VAL_STRESS_ACCURACY, Metrics.VAL_STRESS_WORST)
    values = {name: best.result.metrics[name] for name in names if name in best.result.metrics}
    if not values:
        return None
    figures = ", ".join(f"{name} {format_value(value)}" for name, value in values.items())
    return f"Under the changes of the stress suite, trial {best.number} reaches {figures}."


def describe_confirmation(best: Confirmation, experiment: Experiment) -> str:
    """Return a sentence that compares the best trial's mean over new seeds with the value that the search found."""
    metric, direction = best_metric(experiment)
    luck = best.luck(direction)
    interval = "" if best.low is None else f" (95 % interval {format_value(best.low)} to {format_value(best.high)})"
    seeds = count_of(len(best.values), "other seed")
    return (
        f"Trial {best.number} over {seeds}: mean {metric} {format_value(best.mean)}{interval}. "
        f"The search found {format_value(best.first)}, which is {format_value(abs(luck))} "
        f"{'better' if luck >= 0 else 'worse'}."
    )


def describe_candidate(candidate: Candidate) -> str:
    """Return the searched hyperparameters of a candidate, as `layers=2 learning_rate=0.00034`."""
    values = candidate.hyperparameters
    return " ".join(f"{name}={format_hyperparameter(values[name])}" for name in values if name in candidate.searched)


def describe_skipped(skipped: Mapping[SkipReason, int]) -> list[str]:
    """Return a sentence for each reason for which proposals were not trained. They do not count as trials."""
    sentences: Mapping[SkipReason, str] = {
        "repeat": "{} not trained: an earlier one has the same network; search.confirm trains the best again with other seeds.",
        "unbuildable": "{} not trained because the layers would pool the picture to nothing.",
    }
    return [
        sentence.format(f"{count_of(times, 'proposal')} {'was' if times == 1 else 'were'}")
        for reason, sentence in sentences.items()
        if (times := skipped.get(reason, 0))
    ]


def describe_bound(bound: Bound) -> str:
    """Return a bound as `at least 0.9 and at most 1`."""
    ends = (("at least", bound.min), ("at most", bound.max))
    return " and ".join(f"{words} {value:,g}" for words, value in ends if value is not None)


def format_hyperparameter(value: Value) -> str:
    """Return a hyperparameter with three significant digits if it is a float."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def format_value(value: float | None) -> str:
    """Return an objective's value with four decimals, or with none if it is a count or at least 1,000."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or (abs(value) > 1 and value.is_integer()) else f"{value:.4f}"


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, as `1 trial` or `1,200 trials`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown for MLflow's pages, whose cells have no margin. The first row is the head."""
    head, *others = rows
    lines = [head, ["---"] * len(head), *others]
    cells = [lines[1] if row is lines[1] else [f"{cell}&nbsp;&nbsp;" for cell in row] for row in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
