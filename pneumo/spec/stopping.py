"""When a search has gone on for long enough."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pneumo.spec.objective import OBJECTIVES, values_of
from pneumo.spec.result import Trial


def since_better(trials: Sequence[Trial], objectives: Sequence[str]) -> int:
    """How many trials finished (complete or pruned) after the last one that was better than all before it.

    With several objectives better means: none before was as good in all of them. `trials` in any order; they are counted
    in the order of their ends.
    """
    signs = [1.0 if OBJECTIVES[objective] == "maximize" else -1.0 for objective in objectives]
    best: list[list[float]] = []
    since = 0
    for trial in sorted(trials, key=lambda trial: (trial.result.ended, trial.number)):
        if trial.result.state == "failed":
            continue
        since += 1
        values = values_of(trial.result, objectives) if trial.result.state == "complete" else None
        if values is None:
            continue
        signed = [sign * value for sign, value in zip(signs, values, strict=True)]
        if not any(all(a >= b for a, b in zip(one, signed, strict=True)) for one in best):
            best = [one for one in best if not all(b >= a for a, b in zip(one, signed, strict=True))] + [signed]
            since = 0
    return since


def common_cause(errors: Sequence[str]) -> tuple[str, int]:
    """The first error of the most frequent kind, and how many are of that kind. Figures make no difference."""
    kinds = [re.sub(r"\b(nan|inf|\d[\d.,e+-]*)", "", error) for error in errors]
    kind, times = Counter(kinds).most_common(1)[0]
    return errors[kinds.index(kind)], times
