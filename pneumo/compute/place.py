"""What a place is: it takes tasks, runs each as one trial in some process, and gives events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """One trial to run. `payload` goes to the trial function as it is and must pickle."""

    number: int
    payload: Any


@dataclass(frozen=True)
class Progress:
    """A trial is at `step` of the `steps` of `epoch` (both from 1)."""

    number: int
    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class Report:
    """A trial finished an epoch and waits for `Place.answer`. `value` is the objective's, as far as it is known."""

    number: int
    epoch: int
    value: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Ended:
    """The trial function gave its result. `last`: its process is fit for no further one."""

    number: int
    result: Any
    last: bool = False


@dataclass(frozen=True)
class Died:
    """The process that ran the trial died, or was ended since the trial took too long.

    `reason` is one line; `output` the end of what the process wrote.
    """

    number: int
    reason: str
    output: str


Event = Progress | Report | Ended | Died


class Channel(Protocol):
    """What the trial function is handed to speak to the study."""

    def progress(self, epoch: int, step: int, steps: int) -> None: ...

    def report(self, epoch: int, value: float, metrics: Mapping[str, float]) -> bool:
        """False: stop this trial now."""
        ...

    def retire(self) -> None:
        """This process is fit for no further trial, and is replaced after this one."""
        ...


class Place(Protocol):
    """Where trials run. Ready to take tasks from the moment it is made."""

    @property
    def free(self) -> int:
        """How many more tasks it takes now."""
        ...

    def submit(self, task: Task) -> None: ...

    def next_event(self, timeout: float) -> Event | None:
        """The next event of any trial; None if there was none for `timeout` seconds.

        Raises `PlaceError` where it cannot run trials at all.
        """
        ...

    def answer(self, number: int, go_on: bool) -> None:
        """Answers a `Report`."""
        ...

    def close(self) -> None:
        """Ends every process at once, also those with a trial under way."""
        ...


class PlaceError(Exception):
    """No trial can be run here; the message says why, in one line."""
