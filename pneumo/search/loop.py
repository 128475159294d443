"""The loop of a study: ask the engine, let a place train, tell the engine; until the budget is spent."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from pneumo.compute.place import Died, Ended, Event, Place, Progress, Report, Task
from pneumo.console.display import Screen
from pneumo.engines.protocol import Engine
from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.errors import FullDiskError
from pneumo.spec.hyperparameters import unbuildable
from pneumo.spec.objective import EPOCH_OBJECTIVES
from pneumo.spec.result import State, Trial, TrialResult
from pneumo.spec.search import SearchSpec
from pneumo.spec.stopping import common_cause, trials_since_improvement

TICK = 0.2
"""Seconds after which an interruption is noticed at the latest."""


class Record(Protocol):
    """Where trials are recorded (see `tracking`)."""

    def begin(self, candidate: Candidate) -> str:
        """A new run for the candidate; its id."""
        ...

    def end(self, run_id: str, state: State | Literal["killed"], error: str | None = None, output: str = "") -> None:
        """Close a run: complete, pruned, failed or killed. `output` is what a process that died last wrote."""
        ...


@dataclass(frozen=True)
class Ending:
    """Why a search ended: interrupted, exhausted (nothing more is to be expected of it), broken (trial after trial
    failed), or its budget was spent."""

    reason: str
    interrupted: bool = False
    exhausted: bool = False
    broken: bool = False


@dataclass(frozen=True)
class _UnderWay:
    candidate: Candidate
    run_id: str
    started: float
    began: float  # by a clock that nobody sets
    history: list[float]


class Study:
    """One study at work. The engine, the place and the record are handed in; the study owns none of their ideas.

    `payload` makes what the place's trial function is handed, of a candidate and its run id. The place stays open, but
    where trials are under way at the end.
    """

    def __init__(
        self,
        search: SearchSpec,
        *,
        engine: Engine,
        place: Place,
        record: Record,
        payload: Callable[[Candidate, str], Any],
        screen: Screen,
    ) -> None:
        self._search, self._engine, self._place, self._record = search, engine, place, record
        self._payload, self._screen = payload, screen
        self._told = list(engine.trials())
        self._under_way: dict[int, _UnderWay] = {}
        self._failures: list[str] = []
        self._began = time.monotonic()

    def run(self, interrupted: Callable[[], bool]) -> Ending:
        """Run trials until the budget is spent, the engine is done, or `interrupted` says so.

        A trial that is under way at an interruption is ended at once, its run closed as killed, and the engine proposes
        it again when the study is taken up. So it is where a trial finds the disk full, which raises `FullDiskError`.
        """
        try:
            while not interrupted():
                ending = self._hand_out()
                if ending and not self._under_way:
                    return ending
                event = self._place.next_event(TICK)
                if isinstance(event, Died) and interrupted():
                    break  # the signal went to the worker too
                if event:
                    self._handle(event)
            return Ending("interrupted", interrupted=True)
        finally:
            if self._under_way:
                self._place.close()
            for one in self._under_way.values():
                with contextlib.suppress(Exception):  # the first error is the one to be seen
                    self._record.end(one.run_id, "killed")

    def _hand_out(self) -> Ending | None:
        """Give every free worker a candidate. Why no further one is given, if none will be."""
        while self._place.free:
            if len(self._told) + len(self._under_way) >= self._search.trials:
                return Ending(f"all {self._search.trials} trials are done")
            if len(self._failures) >= self._search.max_failures:
                cause, times = common_cause(self._failures)
                failed = f"{len(self._failures)} trials in a row failed"
                return Ending(
                    f"{failed}, {times} of them: {cause}" if times > 1 else f"{failed}, first: {cause}", broken=True
                )
            patience = self._search.patience
            if patience is not None and trials_since_improvement(self._told, self._search.objectives) >= patience:
                return Ending(f"no better value in the last {patience} finished trials", exhausted=True)
            if self._search.timeout is not None and time.monotonic() - self._began >= self._search.timeout:
                return Ending(f"the time of {self._search.timeout:.0f} s is over")
            proposal = self._engine.ask()
            if isinstance(proposal, Done):
                return Ending(proposal.reason, exhausted=True)
            if isinstance(proposal, Wait):
                break
            run_id = self._record.begin(proposal)
            self._under_way[proposal.number] = _UnderWay(proposal, run_id, self._now(), time.monotonic(), [])
            self._screen.begun(proposal)
            if why_not := unbuildable(proposal.values):
                self._end(TrialResult(proposal.number, run_id, "failed", error=why_not))
                break  # to where an interruption is noticed
            self._place.submit(Task(proposal.number, self._payload(proposal, run_id)))
        return None

    def _handle(self, event: Event) -> None:
        match event:
            case Progress():
                self._screen.step(event.number, event.epoch, event.step, event.steps)
            case Report():
                self._screen.epoch(event.number, event.metrics)
                self._place.answer(event.number, self._goes_on(event))
            case Ended(result=FullDiskError() as error):
                raise error  # not told: the trial is run again where there is room
            case Ended():
                # By the number of the task: one that trains a trial again knows itself by that trial's.
                self._finish(replace(event.result, number=event.number))
            case Died():
                run_id = self._under_way[event.number].run_id
                self._finish(TrialResult(event.number, run_id, "failed", error=event.reason), event.output)

    def _goes_on(self, report: Report) -> bool:
        if self._search.objectives[0] not in EPOCH_OBJECTIVES:
            return True  # not known before the trial's end
        self._under_way[report.number].history.append(report.value)
        return self._engine.report(report.number, report.epoch, report.value)

    def _finish(self, result: TrialResult, output: str = "") -> None:
        """Ends a trial that was trained; one that could not be built says nothing of the next ones."""
        self._failures = [*self._failures, result.error or ""] if result.state == "failed" else []
        self._end(result, output)

    def _end(self, result: TrialResult, output: str = "") -> None:
        one = self._under_way[result.number]
        ended = one.started + time.monotonic() - one.began
        result = replace(result, history=tuple(one.history), started=one.started, ended=ended)
        # The engine first: it is what says, after a kill between the two, how the run is to be closed.
        self._engine.tell(result)
        self._record.end(one.run_id, result.state, result.error, output)
        del self._under_way[result.number]
        self._told.append(Trial(one.candidate, result))
        self._screen.ended(self._told[-1], self._told, self._search.trials)

    def _now(self) -> float:
        """Seconds since 1970, never before the end of a trial that was told: the machine's clock may be put back."""
        return max(time.time(), *(trial.result.ended for trial in self._told), 0.0)
