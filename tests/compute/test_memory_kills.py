"""Workers that are killed: a trial has failed only if its worker took the memory alone, or crashed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from pneumo.compute.place import Channel, Died, Ended, Report, Task
from pneumo.spec.errors import LESS_MEMORY
from tests.support.places import PATIENCE, Start, after, children


@contextmanager
def ends_badly(payload: str, channel: Channel) -> Iterator[str]:
    """Wait for an answer, then end with the signal that the payload names, or well."""
    channel.report(1, os.getpid(), {})
    if payload:
        os.kill(os.getpid(), signal.Signals[payload])
    yield payload


@pytest.fixture
def oom_kills(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Return a function that sets how many processes the kernel has ended for memory, as it counts them."""

    def set_(count: int | None) -> None:
        monkeypatch.setattr("pneumo.compute.local.count_oom_kills", lambda: count)

    set_(5)
    return set_


@pytest.mark.parametrize(
    ("ending", "others", "counted", "verdict"),
    [
        ("SIGKILL", 2, 6, "crowded"),
        ("SIGKILL", 1, 6, "crowded"),
        ("SIGKILL", 2, None, "crowded"),  # a kernel that does not count them
        ("SIGKILL", 2, 5, "outside"),  # a user ended it
        ("SIGKILL", 0, 5, "outside"),
        ("SIGKILL", 0, 6, "failed"),  # nobody else took memory
        ("SIGKILL", 0, None, "perhaps"),  # memory or a user; it is tried again, a few times
        ("SIGSEGV", 2, 6, "failed"),
        ("SIGTERM", 2, None, "outside"),
        ("SIGTERM", 0, 6, "outside"),  # the kernel sends SIGKILL
    ],
)
def test_a_worker_that_was_killed_is_its_trials_failure_only_if_it_took_the_memory_alone_or_crashed(
    start: Start, oom_kills: Callable[[int | None], None], ending: str, others: int, counted: int | None, verdict: str
) -> None:
    place = start(ends_badly, slots=4)
    for number in range(1 + others):
        place.submit(Task(number, "" if number else ending))
    for _ in range(1 + others):
        after(place, Report)
    oom_kills(counted)
    place.answer(0, True)
    died = after(place, Died)
    assert isinstance(died, Died)
    assert (died.number, died.retry) == (0, verdict != "failed")
    assert died.counted == (verdict != "crowded")
    if verdict in ("outside", "perhaps"):
        guess = f" (out of memory, perhaps; {LESS_MEMORY})" if verdict == "perhaps" else ""
        assert died.reason == f"the worker process was ended by {ending}{guess}"
    if verdict == "crowded":
        left = "is 1 worker" if others == 1 else f"are {others} workers"
        assert died.reason == f"memory ran out beside other workers; from now on there {left}"
    assert place.free == (0 if verdict == "crowded" else 4 - others)


def test_a_trial_that_is_killed_again_and_again_ends_as_a_failure_when_it_is_alone(
    start: Start, oom_kills: Callable[[int | None], None]
) -> None:
    oom_kills(None)
    place = start(ends_badly, slots=3)
    reasons, waiting = [], [1, 2]
    for number in (0, 1, 2):
        place.submit(Task(number, "SIGKILL" if number == 0 else ""))
    for _ in range(3):
        after(place, Report)
    place.answer(0, True)
    while (died := after(place, Died)) and not died.counted:  # type: ignore[union-attr]
        reasons.append(died.reason)  # type: ignore[union-attr]
        assert place.free == 0
        place.answer(waiting[0], True)
        assert after(place, Ended).number == waiting.pop(0)
        assert place.free == 1
        place.submit(Task(0, "SIGKILL"))
        after(place, Report)
        place.answer(0, True)
    assert [reason.rpartition("; ")[2] for reason in reasons] == [
        "from now on there are 2 workers",
        "from now on there is 1 worker",
    ]
    assert "a smaller batch_size" in died.reason  # type: ignore[union-attr]
    place.submit(Task(9, ""))
    after(place, Report)
    place.answer(9, True)
    assert after(place, Ended).number == 9


def test_workers_that_are_killed_at_once_are_all_run_again(
    start: Start, oom_kills: Callable[[int | None], None]
) -> None:
    place = start(ends_badly, slots=3)
    for number in range(3):
        place.submit(Task(number, ""))
    processes = []
    for _ in range(3):
        report = after(place, Report)
        assert isinstance(report, Report)
        processes.append(psutil.Process(int(report.value)))
    oom_kills(8)
    for process in processes:
        process.kill()
    until = time.monotonic() + PATIENCE
    while any(process.status() != psutil.STATUS_ZOMBIE for process in processes):
        assert time.monotonic() < until
        os.sched_yield()
    deaths = [after(place, Died) for _ in range(3)]
    assert [death.retry for death in deaths] == [True] * 3  # type: ignore[union-attr]
    assert place.free == 1
    place.submit(Task(3, "SIGKILL"))
    after(place, Report)
    oom_kills(9)
    place.answer(3, True)
    died = after(place, Died)
    assert isinstance(died, Died)
    assert not died.retry  # now it was alone


def test_idle_workers_make_room_first(start: Start, oom_kills: Callable[[int | None], None]) -> None:
    before = children()
    place = start(ends_badly, slots=4)
    place.start(4)
    place.submit(Task(0, "SIGKILL"))
    after(place, Report)
    oom_kills(6)
    place.answer(0, True)
    died = after(place, Died)
    assert isinstance(died, Died)
    assert died.retry
    assert children() - before == set()
    assert place.free == 1
