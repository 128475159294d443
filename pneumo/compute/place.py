"""The interface of a place, which runs each task as one trial in some process, and the events of trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """One trial to run.

    Attributes:
        number: Number of the trial.
        payload: Argument of the trial function. It must be picklable.
    """

    number: int
    payload: Any


@dataclass(frozen=True)
class Progress:
    """A trial has reached a training step.

    Attributes:
        number: Number of the trial.
        epoch: Current epoch, counted from 1.
        step: Last step of the epoch that has ended, counted from 1.
        steps: Number of steps in the epoch.
    """

    number: int
    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class Report:
    """A trial has finished an epoch and waits for `Place.answer`.

    Attributes:
        number: Number of the trial.
        epoch: The epoch, counted from 1.
        value: Value of the objective after this epoch, if it is known after every epoch.
        metrics: Metrics of this epoch by name.
    """

    number: int
    epoch: int
    value: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Ended:
    """The trial function has returned.

    Attributes:
        number: Number of the trial.
        result: Result of the trial function.
        last: Whether the process cannot run another trial.
    """

    number: int
    result: Any
    last: bool = False


@dataclass(frozen=True)
class Died:
    """The process of a trial died, or was killed because the trial took too long.

    Attributes:
        number: Number of the trial.
        reason: The reason in one line.
        output: End of what the process wrote to standard output and error.
        retry: Whether the cause lies outside the trial: its process was killed by somebody else, or its machine is gone. The
            trial has not failed. Whoever submitted it runs it again, from its last checkpoint, at most `search.retries` times,
            and counts it as failed after that. False for what the trial itself did: a crash, memory that it alone took, more
            time than `trial_timeout`.
        counted: Whether that retry counts towards `search.retries`. False if the place sees to it that there is an end of
            retries, because it goes on with fewer processes after each.
    """

    number: int
    reason: str
    output: str
    retry: bool = False
    counted: bool = True


Event = Progress | Report | Ended | Died


class Channel(Protocol):
    """The connection of a trial function to the driver."""

    def progress(self, epoch: int, step: int, steps: int) -> None:
        """Send a `Progress` event. It may be dropped."""
        ...

    def report(self, epoch: int, value: float, metrics: Mapping[str, float]) -> bool:
        """Send a `Report` event and wait for its answer. Return False if the trial must stop now."""
        ...

    def retire(self) -> None:
        """Have this process replaced after the trial, because it cannot run another one."""
        ...


class Place(Protocol):
    """Where trials run. It accepts tasks as soon as it is constructed."""

    @property
    def free(self) -> int:
        """Number of further tasks that it accepts now."""
        ...

    def start(self, workers: int) -> None:
        """Start processes for this number of tasks ahead of them, at most as many as run at the same time."""
        ...

    def submit(self, task: Task) -> None:
        """Start a task. `free` must be at least 1."""
        ...

    def next_event(self, timeout: float) -> Event | None:
        """Return the next event of any trial; None if there is none within `timeout` seconds.

        Raises:
            PlaceError: The place cannot run trials at all.
        """
        ...

    def answer(self, number: int, go_on: bool) -> None:
        """Answer a `Report`: whether the trial may continue."""
        ...

    def close(self) -> None:
        """Kill all processes at once, including those with a trial under way."""
        ...


class PlaceError(Exception):
    """No trial can be run at this place. The message gives the reason in one line."""


class PlaceOutageError(Exception):
    """A place that could run trials has been away for too long. The message gives the reason in one line."""
