"""Places of real worker processes, and what a test asks of them. The places are made by a fixture."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator

import pytest

from pneumo.compute.local import LocalProcesses
from pneumo.compute.place import Event

PATIENCE = 60
"""Seconds to wait for an event before a test fails. No event takes that long."""


def ready() -> None:
    """Nothing to warm up."""


Start = Callable[..., LocalProcesses]


@pytest.fixture
def start() -> Iterator[Start]:
    places: list[LocalProcesses] = []

    def make(
        run: object, warm_up: object = ready, slots: int = 1, gpus: tuple[str, ...] = (), limit: float | None = None
    ) -> LocalProcesses:
        places.append(LocalProcesses(run, warm_up, slots, gpus, limit))  # type: ignore[arg-type]
        return places[-1]

    yield make
    for place in places:
        place.close()


def event(place: LocalProcesses) -> Event:
    next_event = place.next_event(PATIENCE)
    assert next_event is not None
    return next_event


def after(place: LocalProcesses, kind: type) -> Event:
    """The next event of this kind."""
    while True:
        next_event = event(place)
        if isinstance(next_event, kind):
            return next_event


def children() -> set[int | None]:
    """Return the ids of the worker processes of this process that are alive."""
    return {process.pid for process in multiprocessing.active_children()}
