"""Decide whether a model may be promoted, from its probabilities of the test pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pneumo.evidence.intervals import RESAMPLES, Interval, McNemar, auc_difference, mcnemar
from pneumo.evidence.metrics import Array, auc, predict_labels
from pneumo.spec.promotion import FLOORS

SIGNIFICANCE = 0.05
"""McNemar's p-value below which a lower accuracy refuses the model."""

FEWEST_PATIENTS = 10
"""Number of patients of each class from which on an interval can prove a gain.

A bootstrap draws patients, and from a handful of them its intervals are too short: A. C. Cameron, J. B. Gelbach, D. L. Miller,
Bootstrap-based improvements for inference with clustered errors, Review of Economics and Statistics 90(3), 2008, find it with 5
to 10 clusters. With one patient of each class an interval has no length at all.
"""


@dataclass(frozen=True)
class Check:
    """One check of the gate.

    Attributes:
        name: `reference`, `auc`, `accuracy`, or the name of a figure with `_floor`.
        passed: Whether the model passed.
        message: One line with the figures that decided.
    """

    name: str
    passed: bool
    message: str


@dataclass(frozen=True)
class Gate:
    """The decision about a model.

    Attributes:
        passed: Whether all checks passed.
        against: What the model was compared with, or why there was nothing to compare it with.
        checks: The checks, in order.
        auc_difference: The model's AUC minus the reference's; None without a reference.
        mcnemar: The test of the two accuracies; None without a reference.
    """

    passed: bool
    against: str
    checks: tuple[Check, ...]
    auc_difference: Interval | None
    mcnemar: McNemar | None

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as JSON values, with None for NaN. A check's message has the key `said`."""
        return {
            "passed": self.passed,
            "against": self.against,
            "checks": [{"name": c.name, "passed": c.passed, "said": c.message} for c in self.checks],
            "auc_difference": None if self.auc_difference is None else self.auc_difference.as_dict(),
            "mcnemar": None if self.mcnemar is None else asdict(self.mcnemar),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Gate:
        """Return the decision that `as_dict` converted."""
        difference, test = document["auc_difference"], document["mcnemar"]
        return cls(
            document["passed"],
            document["against"],
            tuple(Check(check["name"], check["passed"], check["said"]) for check in document["checks"]),
            None if difference is None else Interval.from_dict(difference),
            None if test is None else McNemar(**test),
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
    """Compare two models on the same test pictures, and one of them with floors.

    The checks, in this order:

    - `reference`: Only without a reference, and it fails: nothing shows that the model is better than another.
    - `auc`: Our area under the ROC curve is larger. With `significant` the lower end of the difference's 95 % interval must
      be above 0 too, and each class must have at least `FEWEST_PATIENTS` patients. The check fails if the areas are equal,
      or not defined because only one class is present.
    - `accuracy`: Our accuracy at our threshold is not lower than theirs at their threshold, or McNemar's p-value is at least
      `SIGNIFICANCE`.
    - For each floor: the figure is at least the floor. The check fails if the figure or its interval is NaN.

    Args:
        labels: 0 or 1, shape (n,).
        patients: The patient of each picture, shape (n,).
        ours: Probabilities of the model in question, shape (n,).
        theirs: Probabilities of the reference, shape (n,); None without a reference.
        our_threshold: Operating point of the model.
        their_threshold: Operating point of the reference.
        against: What the reference is, or why there is none.
        figures: Our figures with their intervals.
        floors: Smallest accepted values, by figure.
        significant: Whether the gain in AUC must be significant.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        The decision.

    Raises:
        ValueError: A floor is not one of `FLOORS`, `theirs` has no threshold, or `auc_difference` refuses the arrays.
    """
    for name in floors:
        if name not in FLOORS:
            raise ValueError(f"a floor must be for one of {', '.join(FLOORS)}, got {name!r}")
    checks = []
    difference, test = None, None
    if theirs is None:
        checks.append(Check("reference", False, "the model was compared with no other"))
    else:
        if their_threshold is None:
            raise ValueError("theirs needs their_threshold")
        difference = auc_difference(labels, ours, theirs, patients, resamples=resamples, seed=seed)
        fewest = min(len(np.unique(patients[labels == label])) for label in (0, 1))
        too_few = fewest if significant and fewest < FEWEST_PATIENTS else None
        checks.append(_auc_check(auc(labels, ours), auc(labels, theirs), difference, significant, too_few))
        our_labels, their_labels = predict_labels(ours, our_threshold), predict_labels(theirs, their_threshold)
        test = mcnemar(labels, our_labels, their_labels)
        our_accuracy, their_accuracy = float(np.mean(our_labels == labels)), float(np.mean(their_labels == labels))
        checks.append(_accuracy_check(our_accuracy, their_accuracy, test))
    checks += [_floor_check(name, figures[name], floor) for name, floor in floors.items()]
    return Gate(all(check.passed for check in checks), against, tuple(checks), difference, test)


def _auc_check(ours: float, theirs: float, difference: Interval, significant: bool, too_few: int | None) -> Check:
    """Return the check of the two areas. `too_few` is the number of patients of a class if it is too small to prove a gain."""
    if math.isnan(difference.value):
        return Check("auc", False, "AUC not defined: only one class is present")
    passed = difference.value > 0 and (not significant or (difference.low > 0 and too_few is None))
    # Enough decimals to show that the areas differ, and on which side of 0 the interval's ends are.
    compared = ((ours, theirs), (difference.low, 0.0), (difference.high, 0.0))
    decimals = max(_decimals(first, second, 4) for first, second in compared)
    rounded_difference = round(ours, decimals) - round(theirs, decimals)  # of the two areas as they are printed
    message = f"AUC {ours:.{decimals}f} against {theirs:.{decimals}f}: {rounded_difference:+.{decimals}f}"
    if math.isnan(difference.low):
        return Check("auc", passed, f"{message} (no interval)")
    if too_few is not None:
        patients = f"{too_few} patient{'s' if too_few != 1 else ''} of a class"
        return Check("auc", False, f"{message}, {patients} can prove no gain; expected at least {FEWEST_PATIENTS}")
    luck = "within luck" if difference.low <= 0 <= difference.high else "beyond luck"
    interval = f"95 % interval {difference.low:+.{decimals}f} to {difference.high:+.{decimals}f}"
    return Check("auc", passed, f"{message} ({interval}), {luck}")


def _accuracy_check(ours: float, theirs: float, test: McNemar) -> Check:
    passed = not (ours < theirs and test.p_value < SIGNIFICANCE)
    decimals = _decimals(ours, theirs, 3)
    p = "< 0.001" if test.p_value < 0.001 else f"= {test.p_value:.{_decimals(test.p_value, SIGNIFICANCE, 2)}f}"
    message = (
        f"accuracy {ours:.{decimals}f} against {theirs:.{decimals}f} (only this model right on {test.only_ours_right:,} "
        f"pictures, only the other on {test.only_theirs_right:,}), McNemar p {p}"
    )
    return Check("accuracy", passed, message)


def _floor_check(name: str, figure: Interval, floor: float) -> Check:
    title = {"auc": "AUC", "f1": "F1"}.get(name, name.replace("_", " "))
    decimals = _decimals(figure.value, floor, 3)
    message = f"{title} not defined" if math.isnan(figure.value) else f"{title} {figure.value:.{decimals}f}"
    if not math.isnan(figure.low):
        message += f" (95 % interval {figure.low:.{decimals}f} to {figure.high:.{decimals}f})"
    else:
        message += " (no interval)" if not math.isnan(figure.value) else ""
    passed = figure.value >= floor and not math.isnan(figure.low)
    return Check(f"{name}_floor", passed, f"{message}, floor {floor:g}")


def _decimals(first: float, second: float, least: int) -> int:
    """Return the fewest decimals, at least `least`, with which two different numbers print differently."""
    decimals = least
    while first != second and decimals < 9 and round(first, decimals) == round(second, decimals):
        decimals += 1
    return decimals
