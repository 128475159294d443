"""The loop of a search: take a training from a schedule, let a place run it, hand back its result."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal, Protocol

from pneumo.compute.place import Died, Ended, Event, Place, Progress, Report, Task
from pneumo.spec.candidate import Candidate, Wait
from pneumo.spec.errors import FullDiskError, TakenOverError
from pneumo.spec.result import State, TrialResult
from pneumo.spec.search import RETRIES

TICK = 0.2
"""Longest time until an interruption is noticed, seconds."""


@dataclass(frozen=True)
class Training:
    """A network to train: a trial of the search, or a trial again with another seed to confirm it.

    `seed` is set for a confirmation only. A trial's seed follows from its number.
    """

    candidate: Candidate
    seed: int | None = None


@dataclass(frozen=True)
class Ending:
    """Why a search ended.

    Args:
        reason: One line for the user.
        interrupted: The user asked for the end.
        exhausted: More trials would bring nothing new.
        broken: Too many trials in a row failed.
    """

    reason: str
    interrupted: bool = False
    exhausted: bool = False
    broken: bool = False


class Schedule(Protocol):
    """What is trained, and what the results are for."""

    def next(self, running: int) -> Training | Wait | Ending:
        """Return the next training while `running` others are under way, or why there is no further one."""
        ...

    def report(self, training: Training, epoch: int, value: float) -> bool:
        """Take the objective after an epoch (from 1). False: stop this training now, it is pruned."""
        ...

    def finish(self, training: Training, result: TrialResult) -> None:
        """Take the result of a training."""
        ...


class Recorder(Protocol):
    """Where trainings are recorded (see `search.recorder`)."""

    def begin(self, training: Training) -> str:
        """Open a run for a training and return its id."""
        ...

    def task(self, training: Training, run_id: str) -> Any:
        """Return what a worker is handed for a training."""
        ...

    def end(self, run_id: str, state: State | Literal["killed"], error: str | None = None, output: str = "") -> None:
        """Close a run. `output` is the last output of a worker process that died."""
        ...


class Listener(Protocol):
    """Hears how the trainings progress. `number` identifies a training from `start` to `finish`."""

    def start(self, number: int, training: Training) -> None: ...

    def step(self, number: int, epoch: int, step: int, steps: int) -> None:
        """A training is at `step` of the `steps` of `epoch`, both counted from 1."""
        ...

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None: ...

    def finish(self, number: int, training: Training, result: TrialResult) -> None: ...

    def run_again(self, number: int, training: Training, reason: str) -> None:
        """A training was broken off for a reason that is not its own. It starts again, with another number."""
        ...


@dataclass(frozen=True)
class _UnderWay:
    """A training under way. `started` is in seconds since 1970, `started_at` by a clock that nobody sets."""

    training: Training
    run_id: str
    started: float
    started_at: float
    history: list[float] = field(default_factory=list)


class TrainingLoop:
    """Keeps a place's workers busy with the trainings of a schedule.

    The place stays open after `run`, unless trainings were under way at its end.

    Args:
        latest_end: The end of the last training before this loop, in seconds since 1970. No training starts earlier in
            the record, since the machine's clock may have been put back.
        retries: How often a training is run again whose process was killed from outside, before it counts as failed.
        is_recorded: Returns whether a training, given its run, may count as finished, although what it wrote is still to be
            sent to MLflow.
    """

    def __init__(
        self,
        schedule: Schedule,
        place: Place,
        recorder: Recorder,
        listener: Listener,
        latest_end: float = 0.0,
        retries: int = RETRIES,
        is_recorded: Callable[[str], bool] = lambda run_id: True,
    ) -> None:
        self._schedule, self._place, self._recorder, self._listener = schedule, place, recorder, listener
        self._latest_end, self._retries, self._is_recorded = latest_end, retries, is_recorded
        self._ended: list[tuple[int, TrialResult, str]] = []  # trainings that do not count as finished yet
        self._numbers = count()
        self._under_way: dict[int, _UnderWay] = {}
        self._again: deque[Training] = deque()
        self._retried: Counter[tuple[int, int | None]] = Counter()

    def run(self, interrupted: Callable[[], bool]) -> Ending:
        """Run trainings until the schedule has no further one, or until `interrupted` returns True.

        After an interruption, trainings under way are ended at once and their runs are closed as killed. The schedule
        hears nothing of them, so a later search runs them again. The same holds after an error.

        Raises:
            FullDiskError: A training found the disk full. It does not count as failed.
        """
        try:
            while not interrupted():
                ending = self._fill_place()
                if ending and not self._under_way:
                    return ending
                event = self._place.next_event(TICK)
                if isinstance(event, Died) and interrupted():
                    break  # the signal reached the worker too
                if event:
                    self._handle(event)
                self._finish_recorded(self._is_recorded)
            self._finish_recorded(lambda run_id: True)
            return Ending("interrupted", interrupted=True)
        finally:
            if self._under_way:
                self._place.close()
            for running in self._under_way.values():
                with contextlib.suppress(Exception):  # it would hide the first error
                    self._recorder.end(running.run_id, "killed")

    def _fill_place(self) -> Ending | None:
        """Give each free worker a training. Return why there is no further one, if there is none."""
        while self._place.free:
            training = self._again.popleft() if self._again else self._schedule.next(len(self._under_way))
            if isinstance(training, Ending):
                return training
            if isinstance(training, Wait):
                return None
            number, run_id = next(self._numbers), self._recorder.begin(training)
            now = max(time.time(), self._latest_end)
            self._under_way[number] = _UnderWay(training, run_id, now, time.monotonic())
            self._listener.start(number, training)
            self._place.submit(Task(number, self._recorder.task(training, run_id)))
        return None

    def _handle(self, event: Event) -> None:
        running = self._under_way[event.number]
        match event:
            case Progress():
                self._listener.step(event.number, event.epoch, event.step, event.steps)
            case Report():
                self._listener.epoch(event.number, event.metrics)
                running.history.append(event.value)
                go_on = self._schedule.report(running.training, event.epoch, event.value)
                self._place.answer(event.number, go_on)
            case Ended(result=FullDiskError() as error):
                raise error
            case Ended():
                self._finish(event.number, event.result)
            case Died(retry=True, counted=False):
                self._run_again(event, event.reason)
            case Died(retry=True):
                training = running.training
                key = (training.candidate.number, training.seed)
                if self._retried[key] < self._retries:
                    self._retried[key] += 1
                    self._run_again(event, f"{event.reason} (retry {self._retried[key]} of {self._retries})")
                else:
                    used_up = f" (no retry of {self._retries} is left)" if self._retries else ""
                    self._fail(event, event.reason + used_up)
            case Died():
                self._fail(event, event.reason)

    def _run_again(self, death: Died, reason: str) -> None:
        """Close the run of a training whose process died, and put it before all that is not under way."""
        running = self._under_way.pop(death.number)
        self._recorder.end(running.run_id, "killed", output=death.output)
        self._again.append(running.training)
        self._listener.run_again(death.number, running.training, reason)

    def _fail(self, death: Died, error: str) -> None:
        running = self._under_way[death.number]
        failure = TrialResult(running.training.candidate.number, running.run_id, "failed", error=error)
        self._finish(death.number, failure, death.output)

    def _finish(self, number: int, result: TrialResult, output: str = "") -> None:
        running = self._under_way[number]
        ended = running.started + time.monotonic() - running.started_at
        self._latest_end = max(self._latest_end, ended)
        result = replace(result, history=tuple(running.history), started=running.started, ended=ended)
        self._ended.append((number, result, output))
        self._finish_recorded(self._is_recorded)

    def _finish_recorded(self, is_recorded: Callable[[str], bool]) -> None:
        """Hand back the results of the trainings that have ended and are recorded."""
        for number, result, output in self._ended.copy():
            if is_recorded(self._under_way[number].run_id):
                self._hand_back(number, result, output)
                self._ended = [ended for ended in self._ended if ended[0] != number]

    def _hand_back(self, number: int, result: TrialResult, output: str) -> None:
        running = self._under_way[number]
        # The schedule first: after a kill between the two, its engine says how the run is to be closed.
        try:
            self._schedule.finish(running.training, result)
        except TakenOverError:
            self._recorder.end(running.run_id, "killed", output=output)
            del self._under_way[number]
            self._listener.run_again(number, running.training, "in another search, which has taken it over")
            return
        self._recorder.end(running.run_id, result.state, result.error, output)
        del self._under_way[number]
        self._listener.finish(number, running.training, result)
