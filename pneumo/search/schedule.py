"""A study as a schedule: the engine proposes trials until the budget is spent."""

from __future__ import annotations

import time
from dataclasses import replace

from pneumo.engines.protocol import Engine
from pneumo.search.loop import Ending, Training
from pneumo.spec.candidate import Done, Wait
from pneumo.spec.objective import EPOCH_OBJECTIVES
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.search import SearchSpec
from pneumo.spec.stopping import common_cause, trials_since_improvement
from pneumo.spec.wording import count_of


class FailureStreak:
    """The failed trainings in a row."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._errors: list[str] = []

    def add(self, result: TrialResult) -> None:
        """Count a finished training."""
        self._errors = [*self._errors, result.error or ""] if result.state == "failed" else []

    @property
    def ending(self) -> Ending | None:
        """Why the search ends, if too many trainings in a row failed."""
        if len(self._errors) < self._most:
            return None
        cause, times = common_cause(self._errors)
        share = f"{times} of them: {cause}" if times > 1 else f"first: {cause}"
        return Ending(f"{count_of(len(self._errors), 'trial')} in a row failed, {share}", broken=True)


class Study:
    """A `Schedule` of the trials that an engine proposes.

    Args:
        search: The budget.
        engine: The engine.
        elapsed: Seconds of `search.timeout` that are over when it is made.
    """

    def __init__(self, search: SearchSpec, engine: Engine, elapsed: float = 0.0) -> None:
        self._search, self._engine = search, engine
        self._finished_trials = list(engine.trials())
        self._failures = FailureStreak(search.max_failures)
        self._started_at = time.monotonic() - elapsed

    def next(self, running: int) -> Training | Wait | Ending:
        if ending := self._ending(running):
            return ending
        proposal = self._engine.ask()
        if isinstance(proposal, Done):
            return Ending(proposal.reason, exhausted=proposal.exhausted)
        return proposal if isinstance(proposal, Wait) else Training(proposal)

    def report(self, training: Training, epoch: int, value: float) -> bool:
        if self._search.objectives[0] not in EPOCH_OBJECTIVES:
            return True  # its value is not known before the trial's end
        return self._engine.report(training.candidate.number, epoch, value)

    def finish(self, training: Training, result: TrialResult) -> None:
        if self._search.objectives[0] not in EPOCH_OBJECTIVES:
            result = replace(result, history=())  # what was reported is another metric
        self._engine.tell(result)
        self._failures.add(result)
        if self._search.shared:
            self._finished_trials = list(self._engine.trials())
        else:
            self._finished_trials.append(Trial(training.candidate, result))

    def _ending(self, running: int) -> Ending | None:
        """Return why no further trial is started, if the budget is spent or trial after trial failed."""
        search = self._search
        if search.shared:
            running = 0  # the engine counts what is under way, here and elsewhere
        if len(self._finished_trials) + running >= search.trials:
            return Ending("the only trial is done" if search.trials == 1 else f"all {search.trials} trials are done")
        if ending := self._failures.ending:
            return ending
        if (
            search.patience is not None
            and trials_since_improvement(self._finished_trials, search.objectives) >= search.patience
        ):
            return Ending(f"no better value in the last {count_of(search.patience, 'finished trial')}", exhausted=True)
        if search.timeout is not None and time.monotonic() - self._started_at >= search.timeout:
            return Ending(f"the time of {search.timeout:.0f} s is over")
        return None
