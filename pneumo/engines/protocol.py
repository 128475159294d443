"""The interface of an engine, which proposes the candidates of a study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from pneumo.spec.candidate import Candidate, Done, SkipReason, Wait
from pneumo.spec.result import Trial, TrialResult


class Engine(Protocol):
    """Proposes candidates and learns from their results.

    An engine stores its state after each call, so that a study can be resumed after a crash. Trial numbers count from 0
    without gaps. A candidate that was proposed but has no result yet is proposed again, first and under its own number,
    when the study is resumed. A candidate depends only on the experiment's seed, the candidate's number and the results
    told before it. An interrupted study therefore proposes the same candidates as an uninterrupted one.

    No candidate repeats an earlier one, finished or under way: candidates with the same `key` would differ by luck only.
    Every candidate can be built. If the algorithm proposes another one, the engine skips the proposal, which gets no
    number, and asks the algorithm again. If there is no candidate left, the answer is `Done`.
    """

    id: str
    """Random id of the study. MLflow's record carries the same id."""

    def learn(self, trials: Sequence[Trial]) -> None:
        """Learn from the trials of an earlier study before the first `ask`, as far as the algorithm can.

        The call has no effect on a study that has begun already.

        Args:
            trials: Complete trials that have a value for every objective and lie in this study's space. They get no
                numbers in this study.
        """
        ...

    def ask(self) -> Candidate | Wait | Done:
        """Return the next candidate."""
        ...

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Report the objective's value after an epoch and return whether the trial may continue.

        Args:
            number: Number of the trial.
            epoch: Epoch that has ended, counted from 1.
            value: Value of the objective after this epoch.

        Returns:
            False if the trial is pruned and must stop now. After the candidate's last epoch always True: the trial is
            complete, and the value serves to judge later trials.
        """
        ...

    def tell(self, result: TrialResult) -> None:
        """Store how a trial ended. The trial is never proposed again."""
        ...

    def trials(self) -> tuple[Trial, ...]:
        """Return all finished trials, ordered by number."""
        ...

    def skipped(self) -> Counter[SkipReason]:
        """Return how many proposals of the study were skipped, by reason."""
        ...
