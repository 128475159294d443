"""Whether a trial deserves promotion: a decision from probabilities of the test pictures, with its reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pneumo.evidence.intervals import RESAMPLES, Interval, McNemar, auc_difference, mcnemar
from pneumo.evidence.metrics import Array, auc, predicted
from pneumo.spec.promotion import FLOORS

SIGNIFICANCE = 0.05
"""A lower accuracy counts against a trial where McNemar's p-value is below it."""


@dataclass(frozen=True)
class Check:
    """`said` is one line with the figures that it was decided by."""

    name: str
    passed: bool
    said: str


@dataclass(frozen=True)
class Gate:
    """The decision: passed if every check is.

    `against` says what it was compared with; `auc_difference` (ours less theirs) and `mcnemar` are None where that was
    nothing.
    """

    passed: bool
    against: str
    checks: tuple[Check, ...]
    auc_difference: Interval | None
    mcnemar: McNemar | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it: None for NaN."""
        return {
            "passed": self.passed,
            "against": self.against,
            "checks": [asdict(check) for check in self.checks],
            "auc_difference": None if self.auc_difference is None else self.auc_difference.as_dict(),
            "mcnemar": None if self.mcnemar is None else asdict(self.mcnemar),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Gate:
        """What `as_dict` gave."""
        difference, divided = document["auc_difference"], document["mcnemar"]
        return cls(
            document["passed"],
            document["against"],
            tuple(Check(**check) for check in document["checks"]),
            None if difference is None else Interval.from_dict(difference),
            None if divided is None else McNemar(**divided),
        )


def apply_gate(
    labels: Array,
    patients: Array,
    ours: Array,
    theirs: Array | None,
    *,
    our_threshold: float,
    their_threshold: float | None,
    against: str,
    figures: Mapping[str, Interval],
    floors: Mapping[str, float],
    significant: bool,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Gate:
    """Compare `ours` with `theirs`, probabilities of the same test pictures, and `figures`, which are ours, with floors.

    `labels`, `patients`, `ours` and `theirs` have shape (n,). Without `theirs` the floors alone are checked. The checks, in
    this order:

    - `auc`: our area under the ROC curve is larger; with `significant`, the lower end of the difference's 95 % interval is
      above 0 too. An equal area is not larger, and one that is not defined (only one class) is not either.
    - `accuracy`: at the two operating points ours is not lower, or not by more than luck (McNemar's p >= `SIGNIFICANCE`).
    - for each floor, named as the figure with `_floor`: the figure is at least that. One that is NaN is not.

    Raises `ValueError` where a floor names none of `FLOORS`, where `theirs` comes without a threshold, and
    as `auc_difference` does.
    """
    for name in floors:
        if name not in FLOORS:
            raise ValueError(f"a floor must be of one of {', '.join(FLOORS)}, got {name!r}")
    checks = []
    difference, divided = None, None
    if theirs is not None:
        if their_threshold is None:
            raise ValueError("theirs needs their_threshold")
        difference = auc_difference(labels, ours, theirs, patients, resamples=resamples, seed=seed)
        checks.append(_auc_check(auc(labels, ours), auc(labels, theirs), difference, significant))
        calls = predicted(ours, our_threshold), predicted(theirs, their_threshold)
        divided = mcnemar(labels, *calls)
        right, their_right = (float(np.mean(each == labels)) for each in calls)
        checks.append(_accuracy_check(right, their_right, divided))
    checks += [_floor_check(name, figures[name], floor) for name, floor in floors.items()]
    return Gate(all(check.passed for check in checks), against, tuple(checks), difference, divided)


def _auc_check(ours: float, theirs: float, difference: Interval, significant: bool) -> Check:
    if math.isnan(difference.value):
        return Check("auc", False, "AUC not defined: only one class is present")
    passed = difference.value > 0 and (not significant or difference.low > 0)
    # As many as tell the areas apart, and the interval's ends from 0.
    told_apart = ((ours, theirs), (difference.low, 0.0), (difference.high, 0.0))
    decimals = max(_decimals(first, second, 4) for first, second in told_apart)
    apart = round(ours, decimals) - round(theirs, decimals)  # what a reader would get
    said = f"AUC {ours:.{decimals}f} against {theirs:.{decimals}f}: {apart:+.{decimals}f}"
    if math.isnan(difference.low):
        return Check("auc", passed, f"{said} (no interval)")
    luck = "within luck" if difference.low <= 0 <= difference.high else "beyond luck"
    interval = f"95 % interval {difference.low:+.{decimals}f} to {difference.high:+.{decimals}f}"
    return Check("auc", passed, f"{said} ({interval}), {luck}")


def _accuracy_check(ours: float, theirs: float, divided: McNemar) -> Check:
    passed = not (ours < theirs and divided.p_value < SIGNIFICANCE)
    decimals = _decimals(ours, theirs, 3)
    p = f"= {divided.p_value:.{_decimals(divided.p_value, SIGNIFICANCE, 2)}f}"
    said = (
        f"accuracy {ours:.{decimals}f} against {theirs:.{decimals}f}: right alone on {divided.only_ours_right:,} and "
        f"{divided.only_theirs_right:,} pictures, McNemar p {'< 0.001' if divided.p_value < 0.001 else p}"
    )
    return Check("accuracy", passed, said)


def _floor_check(name: str, figure: Interval, floor: float) -> Check:
    title = {"auc": "AUC", "f1": "F1"}.get(name, name.replace("_", " "))
    decimals = _decimals(figure.value, floor, 3)
    said = f"{title} not defined" if math.isnan(figure.value) else f"{title} {figure.value:.{decimals}f}"
    if not math.isnan(figure.low):
        said += f" (95 % interval {figure.low:.{decimals}f} to {figure.high:.{decimals}f})"
    return Check(f"{name}_floor", figure.value >= floor, f"{said}, floor {floor:g}")


def _decimals(first: float, second: float, least: int) -> int:
    """As few as tell two different numbers apart, from `least` on: what is said must not contradict what was decided."""
    decimals = least
    while first != second and decimals < 9 and round(first, decimals) == round(second, decimals):
        decimals += 1
    return decimals
