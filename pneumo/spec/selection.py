"""Which trial is best: by one objective, by a rule, on a Pareto front, or by its mean over several seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pneumo.spec.objective import OBJECTIVES, Direction, objective_metric, values_of
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.space import nearest

Limit = Annotated[float | None, Field(allow_inf_nan=False)]


class Bound(BaseModel):
    """What a metric may be, both ends included. Raises `ValueError` without an end, or where they cross."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: Annotated[Limit, Field(description="least value")] = None
    max: Annotated[Limit, Field(description="largest value")] = None

    @model_validator(mode="after")
    def _check(self) -> Bound:
        if self.min is None and self.max is None:
            raise ValueError("max: give min, max or both, as in {max: 500000}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min: at most max, got min {self.min:g} and max {self.max:g}")
        return self

    def holds(self, value: float) -> bool:
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


class Rule(BaseModel):
    """The metric that the best trial has most or least of, among the trials that keep some bounds.

    `{max: val_auc, subject_to: {parameters: {max: 500000}}}`. Metrics are those of `OBJECTIVES`. Raises `ValueError` on
    another name, and where not exactly one of `max` and `min` names one; the message begins with the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max: Annotated[str | None, Field(description="the best trial has most of this metric")] = None
    min: Annotated[str | None, Field(description="the best trial has least of this metric")] = None
    subject_to: Annotated[
        dict[str, Bound], Field(description="bounds of other metrics, as {parameters: {max: 50000}}")
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Rule:
        self._check_metrics()
        return self

    def _check_metrics(self) -> None:
        if (self.max is None) == (self.min is None):
            raise ValueError("max: exactly one of max and min names a metric, as in {max: val_auc}")
        named = [("max" if self.max is not None else "min", self.metric), *(("subject_to", n) for n in self.subject_to)]
        for key, name in named:
            if name not in OBJECTIVES:
                known = tuple(OBJECTIVES)
                raise ValueError(f"{key}: there is no {name!r}; there is {', '.join(known)}{nearest(name, known)}")

    @property
    def metric(self) -> str:
        return str(self.min if self.max is None else self.max)

    @property
    def direction(self) -> Direction:
        return "minimize" if self.max is None else "maximize"


def value_of(result: TrialResult, metric: str, objectives: Sequence[str]) -> float | None:
    """A result's value of a metric, whether or not the study aims at it; None where it is not known or not finite.

    The first of the study's `objectives` is the result's `value`, the others are among its metrics.
    """
    value = result.value if metric == objectives[0] else result.metrics.get(objective_metric(metric))
    return float(value) if value is not None and math.isfinite(value) else None


def ranked(trials: Iterable[Trial], objectives: Sequence[str], rule: Rule | None = None) -> list[Trial]:
    """The complete trials, best first; equal ones in the order of their numbers.

    By the rule's metric, of those that keep its bounds; without a rule by the first objective. A trial of which the
    metric, or a bounded one, is not known is left out.
    """
    metric, direction = (rule.metric, rule.direction) if rule else (objectives[0], OBJECTIVES[objectives[0]])
    sign = -1.0 if direction == "maximize" else 1.0
    keyed = []
    for trial in trials:
        value = value_of(trial.result, metric, objectives)
        if trial.result.state == "complete" and value is not None and _keeps(trial.result, rule, objectives):
            keyed.append((sign * value, trial.number, trial))
    return [trial for *_, trial in sorted(keyed, key=lambda k: k[:2])]


def _keeps(result: TrialResult, rule: Rule | None, objectives: Sequence[str]) -> bool:
    for metric, bound in rule.subject_to.items() if rule else ():
        value = value_of(result, metric, objectives)
        if value is None or not bound.holds(value):
            return False
    return True


def dominates(a: Sequence[float], b: Sequence[float], directions: Sequence[Direction]) -> bool:
    """Whether a is better than b in one objective and worse in none. All three have one entry an objective."""
    signed = [(x, y) if d == "maximize" else (-x, -y) for x, y, d in zip(a, b, directions, strict=True)]
    return all(x >= y for x, y in signed) and any(x > y for x, y in signed)


def pareto_front(trials: Iterable[Trial], objectives: Sequence[str]) -> list[Trial]:
    """The complete trials that no other dominates, by number; one without a finite value of each objective is left out."""
    directions = [OBJECTIVES[objective] for objective in objectives]
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    keyed = []
    for trial in trials:
        values = values_of(trial.result, objectives)
        if trial.result.state == "complete" and values is not None and all(map(math.isfinite, values)):
            keyed.append((tuple(s * v for s, v in zip(signs, values, strict=True)), values, trial))
    front: list[tuple[tuple[float, ...], Trial]] = []
    # Best first by one objective after the other, no trial is dominated by a later one, and whoever dominates it is on the
    # front or dominated by one that is: so comparing with the front so far is enough.
    for _, values, trial in sorted(keyed, key=lambda k: k[0]):
        if not any(dominates(other, values, directions) for other, _ in front):
            front.append((values, trial))
    return sorted((trial for _, trial in front), key=lambda t: t.number)


@dataclass(frozen=True)
class Confirmed:
    """A trial trained again: the first objective's value for each seed, and `first`, the value that the search found.

    Raises `ValueError` without values. One that is not finite makes the mean so.
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
        """Lower end of the 95 % t-interval of the mean; None from a single value."""
        return None if self._half_width is None else self.mean - self._half_width

    @property
    def high(self) -> float | None:
        """Upper end of the 95 % t-interval of the mean; None from a single value."""
        return None if self._half_width is None else self.mean + self._half_width

    def luck(self, direction: Direction) -> float:
        """By how much the search's value was better than the mean; below 0 where it was worse."""
        return self.first - self.mean if direction == "maximize" else self.mean - self.first

    @property
    def _half_width(self) -> float | None:
        n = len(self.values)
        if n == 1:
            return None
        deviation = math.dist(self.values, [self.mean] * n) / math.sqrt(n - 1)
        return t_quantile(n - 1) * deviation / math.sqrt(n)


def confirmed_ranking(confirmed: Iterable[Confirmed], direction: Direction) -> list[Confirmed]:
    """By mean, best first; equal ones in the order of their numbers, one without a finite mean last."""
    sign = -1.0 if direction == "maximize" else 1.0
    return sorted(confirmed, key=lambda c: (not math.isfinite(c.mean), sign * c.mean, c.number))


@cache
def t_quantile(freedom: int) -> float:
    """Student's t that 95 % of the distribution lie within either side of 0, for `freedom` degrees of freedom from 1."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halvings, to beyond a float's precision
        angle = (low + high) / 2
        low, high = (angle, high) if _share_within(angle, freedom) < 0.95 else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _share_within(angle: float, freedom: int) -> float:
    """The share of Student's distribution within t = sqrt(freedom) tan(angle) either side of 0, a finite series.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 (odd) and 26.7.4 (even).
    """
    odd = freedom % 2
    term, total = math.cos(angle) ** odd, 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
