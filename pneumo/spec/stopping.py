"""Figures by which a search decides to end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pneumo.spec.objective import OBJECTIVES, objective_values
from pneumo.spec.result import Trial


def trials_since_improvement(trials: Sequence[Trial], objectives: Sequence[str]) -> int:
    """Return how many trials finished (complete or pruned) after the last one that was better than all before it.

    With several objectives, a trial is better if no earlier trial is at least as good in all of them.

    Args:
        trials: Finished trials in any order. They are counted in the order in which they ended.
        objectives: Objectives of the study.
    """
    signs = [1.0 if OBJECTIVES[objective] == "maximize" else -1.0 for objective in objectives]
    front: list[list[float]] = []
    count = 0
    for trial in sorted(trials, key=lambda trial: (trial.result.ended, trial.number)):
        if trial.result.state == "failed":
            continue
        count += 1
        values = objective_values(trial.result, objectives) if trial.result.state == "complete" else None
        if values is None:
            continue
        signed = [sign * value for sign, value in zip(signs, values, strict=True)]
        if not any(all(a >= b for a, b in zip(other, signed, strict=True)) for other in front):
            front = [other for other in front if not all(b >= a for a, b in zip(other, signed, strict=True))] + [signed]
            count = 0
    return count


def common_cause(errors: Sequence[str]) -> tuple[str, int]:
    """Return the first error of the most frequent kind, and the number of errors of this kind.

    Errors that differ only in their numbers are of one kind.
    """
    kinds = [re.sub(r"\b(nan|inf|\d[\d.,e+-]*)", "", error) for error in errors]
    kind, times = Counter(kinds).most_common(1)[0]
    return errors[kinds.index(kind)], times
