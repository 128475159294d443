"""Which candidates of a study are left to train: none that was tried before, and none that cannot be built."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from functools import cached_property

import numpy as np

from pneumo.spec.candidate import Candidate, Done, SkipReason
from pneumo.spec.hyperparameters import Value
from pneumo.spec.network import unbuildable
from pneumo.spec.space import Range, Searched, Space

ATTEMPTS = 10
"""Largest number of proposals in a row that are skipped. Then a random candidate that was not tried is taken."""

DRAWS = 1000
"""Random draws without a new candidate after which a space that is too large to count is exhausted."""

MOST_COMBINATIONS = 10_000
"""Largest number of combinations of a space that are counted."""

EXHAUSTED = "every combination of the space was tried"
"""Reason of the end of a study whose combinations are counted."""

ALMOST_EXHAUSTED = f"(almost) {EXHAUSTED}: {DRAWS} random draws gave no new one"
"""Reason of the end of a study whose combinations are not counted."""


def skip_reason(candidate: Candidate, tried: Container[object]) -> SkipReason | None:
    """Return why a proposal is not trained; None if it is. `tried` has the keys of the earlier candidates."""
    if unbuildable(candidate.values):
        return "unbuildable"
    return "repeat" if candidate.key in tried else None


def split_first_candidates(
    candidates: Sequence[Mapping[str, Value]],
) -> tuple[dict[object, dict[str, Value]], list[SkipReason]]:
    """Return the candidates that are trained before the algorithm proposes, by key, and why the others are skipped.

    Args:
        candidates: The hyperparameters of the baseline and of `search.try`.
    """
    first: dict[object, dict[str, Value]] = {}
    skipped: list[SkipReason] = []
    for values in candidates:
        candidate = Candidate(0, values)
        if reason := skip_reason(candidate, first):
            skipped.append(reason)
        else:
            first[candidate.key] = dict(values)
    return first, skipped


def trainable_combinations(space: Space, most: int) -> dict[object, dict[str, Value]] | None:
    """Return the hyperparameters of the candidates of a space that can be built, by key.

    None if a range is continuous, or if the space has more than `most` combinations.
    """
    combinations = space.combinations(most)
    if combinations is None:
        return None
    candidates = [Candidate(0, values) for values in combinations]
    return {
        candidate.key: dict(candidate.hyperparameters) for candidate in candidates if not unbuildable(candidate.values)
    }


class UntriedCandidates:
    """The candidates of a space that can be built and were not tried."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def draw(self, tried: Container[object], generator: np.random.Generator) -> dict[str, Value] | Done:
        """Return the hyperparameters of a random one, or why there is none.

        Args:
            tried: Keys of the earlier candidates.
            generator: Source of randomness.
        """
        if self._combinations is not None:
            left = [values for key, values in self._combinations.items() if key not in tried]
            return left[generator.integers(len(left))] if left else Done(EXHAUSTED)
        for _ in range(DRAWS):
            values = self._space.draw(lambda dimension: _draw_value(dimension, generator))
            if skip_reason(Candidate(0, values), tried) is None:
                return values
        return Done(ALMOST_EXHAUSTED)

    @cached_property
    def _combinations(self) -> dict[object, dict[str, Value]] | None:
        return trainable_combinations(self._space, MOST_COMBINATIONS)


def _draw_value(dimension: Searched, generator: np.random.Generator) -> Value:
    if dimension.values is not None:
        return dimension.values[int(generator.integers(len(dimension.values)))]
    assert isinstance(dimension, Range)
    low, high = dimension.low, dimension.high
    if not dimension.log:
        return float(generator.uniform(low, high))
    return min(max(math.exp(generator.uniform(math.log(low), math.log(high))), low), high)
