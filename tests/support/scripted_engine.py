"""An engine without an algorithm: random candidates by number, and a file with the results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pneumo.engines.untried import skip_reason
from pneumo.spec.candidate import Candidate, Done, SkipReason, Wait
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.space import Range, Searched

MOST = 200
"""Number of candidates."""


class ScriptedEngine:
    """An `Engine` that ends after `MOST` candidates."""

    def __init__(self, experiment: Experiment, file: Path) -> None:
        self._experiment, self._file, self.id = experiment, file, str(file)
        stored = json.loads(file.read_text()) if file.exists() else []
        results = [TrialResult(**entry | {"history": tuple(entry["history"])}) for entry in stored]
        self._results = {result.number: result for result in results}
        self._proposed: set[int] = set(self._results)
        self._candidates: list[Candidate] = []
        self._skipped_before: list[Counter[SkipReason]] = []
        skipped: Counter[SkipReason] = Counter()
        for position in range(MOST):
            candidate = self._candidate(len(self._candidates), position)
            if reason := skip_reason(candidate, {earlier.key for earlier in self._candidates}):
                skipped[reason] += 1
            else:
                self._candidates.append(candidate)
                self._skipped_before.append(skipped.copy())

    def learn(self, trials: Sequence[Trial]) -> None:
        """Do nothing."""

    def ask(self) -> Candidate | Wait | Done:
        number = next(n for n in range(MOST + 1) if n not in self._proposed)
        if number >= len(self._candidates):
            return Done("all candidates were proposed")
        self._proposed.add(number)
        return self._candidates[number]

    def report(self, number: int, epoch: int, value: float) -> bool:
        return True

    def tell(self, result: TrialResult) -> None:
        self._results[result.number] = result
        self._file.write_text(json.dumps([asdict(result) for result in self._results.values()]))

    def trials(self) -> tuple[Trial, ...]:
        return tuple(Trial(self._candidates[number], self._results[number]) for number in sorted(self._results))

    def skipped(self) -> Counter[SkipReason]:
        return self._skipped_before[max(self._proposed)] if self._proposed else Counter()

    def _candidate(self, number: int, position: int) -> Candidate:
        space, first = self._experiment.space, self._experiment.first_candidates
        generator = np.random.default_rng([self._experiment.search.seed, position])

        def choose(dimension: Searched) -> Value:
            if dimension.values is not None:
                return dimension.values[int(generator.integers(len(dimension.values)))]
            assert isinstance(dimension, Range)
            return float(generator.uniform(dimension.low, dimension.high))

        values = first[position] if position < len(first) else space.draw(choose)
        return Candidate(number, values, frozenset(d.name for d in space.searched) & set(values))
