"""The choice of the best trials: by one objective, by a rule, on a Pareto front, or by the mean over several seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pneumo.spec.errors import Fault, SettingError, check_known, check_known_key
from pneumo.spec.objective import OBJECTIVES, Direction, ObjectiveName, objective_metric, objective_values
from pneumo.spec.result import Trial, TrialResult

Metric = Annotated[ObjectiveName, BeforeValidator(lambda name: check_known(name, OBJECTIVES))]
"""Name of the metric of a rule."""


class Bound(BaseModel):
    """The allowed values of a metric, both ends included. At least one end must be given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: Annotated[
        float | None,
        Field(allow_inf_nan=False, description="Smallest allowed value of the metric. null means no limit."),
    ] = None
    max: Annotated[
        float | None,
        Field(allow_inf_nan=False, description="Largest allowed value of the metric. null means no limit."),
    ] = None

    @model_validator(mode="after")
    def _check(self) -> Bound:
        if self.min is None and self.max is None:
            raise SettingError(Fault(("max",), "give min, max or both, as in {max: 500000}"))
        if self.min is not None and self.max is not None and self.min > self.max:
            raise SettingError(Fault(("min",), f"at most max, got min {self.min:g} and max {self.max:g}"))
        return self

    def contains(self, value: float) -> bool:
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


class Rule(BaseModel):
    """The metric by which the best trial is chosen, and bounds that the trial must keep.

    Exactly one of `max` and `min` must be given, for example `{max: val_auc, subject_to: {parameters: {max: 500000}}}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max: Annotated[
        Metric | None,
        Field(description="Metric of which the best trial has the largest value: any objective."),
    ] = None
    min: Annotated[
        Metric | None,
        Field(description="Metric of which the best trial has the smallest value: any objective."),
    ] = None
    subject_to: Annotated[
        dict[Annotated[str, AfterValidator(lambda name: check_known_key(name, OBJECTIVES))], Bound],
        Field(
            description="Bounds of metrics, by metric name. A trial outside a bound cannot be the best.",
            json_schema_extra={"propertyNames": {"enum": list(OBJECTIVES)}},
        ),
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Rule:
        self._check_metrics()
        return self

    def _check_metrics(self) -> None:
        """Raise `SettingError` if not exactly one of max and min is given."""
        if (self.max is None) == (self.min is None):
            raise SettingError(Fault(("max",), "exactly one of max and min names a metric, as in {max: val_auc}"))

    @property
    def metric(self) -> str:
        return str(self.min if self.max is None else self.max)

    @property
    def direction(self) -> Direction:
        return "minimize" if self.max is None else "maximize"


def metric_value(result: TrialResult, metric: str, objectives: Sequence[str]) -> float | None:
    """Return a result's value of a metric; None if it is unknown or not finite.

    Args:
        result: The result of a trial.
        metric: Name of the metric, which need not be an objective of the study.
        objectives: Objectives of the study. The result's `value` is that of the first one.
    """
    value = result.value if metric == objectives[0] else result.metrics.get(objective_metric(metric))
    return float(value) if value is not None and math.isfinite(value) else None


def rank_trials(trials: Iterable[Trial], objectives: Sequence[str], rule: Rule | None = None) -> list[Trial]:
    """Return the complete trials, best first; trials with equal values are ordered by number.

    Args:
        trials: Finished trials.
        objectives: Objectives of the study. Without a rule, the first one decides.
        rule: Rule that decides instead. Trials outside its bounds are left out.

    Returns:
        The trials of which the deciding metric and all bounded metrics are known and finite.
    """
    metric, direction = (rule.metric, rule.direction) if rule else (objectives[0], OBJECTIVES[objectives[0]])
    sign = -1.0 if direction == "maximize" else 1.0
    keyed = []
    for trial in trials:
        value = metric_value(trial.result, metric, objectives)
        if trial.result.state == "complete" and value is not None and _keeps_bounds(trial.result, rule, objectives):
            keyed.append((sign * value, trial.number, trial))
    return [trial for *_, trial in sorted(keyed, key=lambda key: key[:2])]


def _keeps_bounds(result: TrialResult, rule: Rule | None, objectives: Sequence[str]) -> bool:
    for metric, bound in rule.subject_to.items() if rule else ():
        value = metric_value(result, metric, objectives)
        if value is None or not bound.contains(value):
            return False
    return True


def dominates(a: Sequence[float], b: Sequence[float], directions: Sequence[Direction]) -> bool:
    """Return whether `a` is better than `b` in at least one objective and worse in none.

    Args:
        a: Values of the objectives.
        b: Values of the objectives, in the same order.
        directions: Directions of the objectives, in the same order.
    """
    signed = [(x, y) if d == "maximize" else (-x, -y) for x, y, d in zip(a, b, directions, strict=True)]
    return all(x >= y for x, y in signed) and any(x > y for x, y in signed)


def pareto_front(trials: Iterable[Trial], objectives: Sequence[str]) -> list[Trial]:
    """Return the complete trials that no other trial dominates, ordered by number.

    Trials without a finite value of every objective are left out.
    """
    directions = [OBJECTIVES[objective] for objective in objectives]
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    keyed = []
    for trial in trials:
        values = objective_values(trial.result, objectives)
        if trial.result.state == "complete" and values is not None and all(map(math.isfinite, values)):
            keyed.append((tuple(s * v for s, v in zip(signs, values, strict=True)), values, trial))
    front: list[tuple[tuple[float, ...], Trial]] = []
    # In this order (best first by the first objective, ties by the next ones) a later trial never dominates an earlier one.
    # A dominated trial is therefore dominated by a member of the front so far, and comparing with the front is enough.
    for _, values, trial in sorted(keyed, key=lambda key: key[0]):
        if not any(dominates(other, values, directions) for other, _ in front):
            front.append((values, trial))
    return sorted((trial for _, trial in front), key=lambda trial: trial.number)


@dataclass(frozen=True)
class Confirmation:
    """The confirmation of a trial: its values when it was trained again with other seeds.

    Attributes:
        number: Number of the trial.
        values: Value of the metric for each other seed. If one is not finite, the mean is not finite either.
        first: Value of the metric in the search.

    Raises:
        ValueError: There are no values.
    """

    number: int
    values: tuple[float, ...]
    first: float

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"trial {self.number}: a confirmation needs at least one value")

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def low(self) -> float | None:
        """Lower end of the 95 % t-interval of the mean; None if there is a single value."""
        return None if self._half_width is None else self.mean - self._half_width

    @property
    def high(self) -> float | None:
        """Upper end of the 95 % t-interval of the mean; None if there is a single value."""
        return None if self._half_width is None else self.mean + self._half_width

    def luck(self, direction: Direction) -> float:
        """Return by how much the value in the search was better than the mean; negative if it was worse."""
        return self.first - self.mean if direction == "maximize" else self.mean - self.first

    @property
    def _half_width(self) -> float | None:
        n = len(self.values)
        if n == 1:
            return None
        deviation = math.dist(self.values, [self.mean] * n) / math.sqrt(n - 1)
        return t_quantile(n - 1) * deviation / math.sqrt(n)


def rank_confirmations(confirmations: Iterable[Confirmation], direction: Direction) -> list[Confirmation]:
    """Return the confirmations, best mean first; ties are ordered by number, means that are not finite come last."""
    sign = -1.0 if direction == "maximize" else 1.0
    return sorted(confirmations, key=lambda c: (not math.isfinite(c.mean), sign * c.mean, c.number))


@cache
def t_quantile(freedom: int) -> float:
    """Return the t for which 95 % of Student's distribution lie in [-t, t].

    Args:
        freedom: Degrees of freedom, at least 1.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # enough bisections for the precision of a float
        angle = (low + high) / 2
        low, high = (angle, high) if _share_within(angle, freedom) < 0.95 else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _share_within(angle: float, freedom: int) -> float:
    """Return the share of Student's distribution in [-t, t] with t = sqrt(freedom) * tan(angle), by a finite series.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 (odd) and 26.7.4 (even).
    """
    odd = freedom % 2
    term, total = math.cos(angle) ** odd, 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
