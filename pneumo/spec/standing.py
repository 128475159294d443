"""How a study stands, kept up as its trials finish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pneumo.spec.best import baseline_trial, best_first
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import State, Trial
from pneumo.spec.selection import pareto_front


class Standing:
    """The few finished trials of a study that are shown, and how many there are of each state.

    Ranking all trials again whenever one finishes would take longer and longer. A trial that was neither among the best, nor
    on the front of several objectives, never will be.

    Args:
        experiment: The study's experiment.
        top: Number of the best trials that are kept.

    Attributes:
        leading: The best trials, those on the front, and the baseline, by number.
        states: Number of finished trials by state.
    """

    def __init__(self, experiment: Experiment, top: int) -> None:
        self._experiment, self._top = experiment, top
        self._numbers: set[int] = set()
        self.leading: tuple[Trial, ...] = ()
        self.states: Counter[State] = Counter()

    @property
    def finished(self) -> int:
        """Number of finished trials."""
        return self.states.total()

    def add(self, *trials: Trial) -> None:
        """Take trials that have finished."""
        self.states.update(trial.result.state for trial in trials)
        self._numbers.update(trial.number for trial in trials)
        known = [*self.leading, *trials]
        leading = best_first(known, self._experiment)[: self._top]
        if len(self._experiment.search.objectives) > 1:
            leading += pareto_front(known, self._experiment.search.objectives)
        if baseline := baseline_trial(known, self._experiment):
            leading.append(baseline)
        self.leading = tuple(
            sorted({trial.number: trial for trial in leading}.values(), key=lambda trial: trial.number)
        )

    def update(self, trials: Iterable[Trial]) -> None:
        """Take those of the trials that were not taken before."""
        self.add(*(trial for trial in trials if trial.number not in self._numbers))
