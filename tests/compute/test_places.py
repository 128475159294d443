"""One contract for every place: processes of this machine, Ray on this machine, a Ray cluster of two nodes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from pneumo.compute.local import LocalProcesses
from pneumo.compute.place import Died, Ended, Place, PlaceError, PlaceOutageError, Progress, Report, Task
from pneumo.compute.ray_cluster import Needs, RayCluster
from pneumo.compute.ray_place import RayPlace
from pneumo.compute.ray_worker import Sent
from tests.support.ray_clusters import Kept, two_nodes
from tests.support.small_trials import cannot_start, ready, small_trial

pytestmark = pytest.mark.slow

PATIENCE = 180
"""Seconds to wait for an event before a test fails. No event takes that long."""

Open = Callable[..., Any]


@pytest.fixture(
    scope="module",
    params=["processes", "ray local", "ray cluster"],
)
def kind(request: pytest.FixtureRequest) -> Iterator[Kept | None]:
    """Return the Ray cluster that all tests of a kind share; None for processes of this machine."""
    if request.param == "processes":
        yield None
    elif request.param == "ray local":
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "disabled")
            kept = Kept(RayCluster("local", 60.0, cores=2))
            yield kept
            kept.cluster.close()
    else:
        with two_nodes() as cluster:
            yield cluster


@pytest.fixture(scope="module")
def ray(kind: Kept | None) -> Kept:
    if kind is None:
        pytest.skip("of Ray only")
    return kind


@pytest.fixture
def place(kind: Kept | None) -> Iterator[Open]:
    """Return a function that opens a place of this kind."""
    places: list[Place] = []

    def open_place(slots: int = 1, limit: float | None = None, warm_up: Callable[[], None] = ready) -> Place:
        if kind is None:
            places.append(LocalProcesses(small_trial, warm_up, slots, (), limit))
        else:
            places.append(RayPlace(small_trial, warm_up, kind, Needs(1), slots, limit, 60.0))  # type: ignore[arg-type]
        places[-1].start(slots)
        return places[-1]

    yield open_place
    for opened in places:
        opened.close()


def event(place: Any, kind: type) -> Any:
    """Return the next event of this kind; other ones than progress fail."""
    while True:
        next_event = place.next_event(PATIENCE)
        assert next_event is not None
        if isinstance(next_event, kind):
            return next_event
        assert isinstance(next_event, Progress), next_event


def submit(place: Any, what: str, *numbers: int, value: object = None) -> None:
    """Submit tasks as soon as the place has a free worker for each."""
    for _ in range(PATIENCE):
        if place.free >= len(numbers):
            break
        assert place.next_event(1) is None
    for number in numbers:
        place.submit(Task(number, (what, value)))


def gone(process: int) -> bool:
    """Wait for a process to end, and return whether it has."""
    try:
        psutil.Process(process).wait(PATIENCE)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def test_results_come_back_and_reports_come_in_order(place: Open) -> None:
    opened = place()
    submit(opened, "double", 3, value=21)
    assert event(opened, Ended) == Ended(3, 42)
    submit(opened, "epochs", 4, value=4)
    for epoch in range(1, 5):
        assert event(opened, Report) == Report(4, epoch, epoch / 10, {"val_auc": epoch / 10})
        opened.answer(4, True)
    assert event(opened, Ended) == Ended(4, [True] * 4)


def test_a_pruned_trial_stops_at_once(place: Open) -> None:
    opened = place()
    submit(opened, "epochs", 0, value=5)
    for epoch in (1, 2):
        assert event(opened, Report).epoch == epoch
        opened.answer(0, epoch < 2)
    assert event(opened, Ended) == Ended(0, [True, False])


def test_trials_run_at_the_same_time_in_different_processes(place: Open) -> None:
    opened = place(2)
    submit(opened, "waits", 0, 1)
    assert opened.free == 0
    processes = {event(opened, Report).value for _ in range(2)}
    assert len(processes) == 2


def test_a_crash_is_told_and_the_next_trial_runs(place: Open) -> None:
    opened = place()
    submit(opened, "crash", 0)
    event(opened, Report)
    opened.answer(0, True)
    died = event(opened, Died)
    assert (died.number, died.retry) == (0, False)
    assert "last words" in died.output
    submit(opened, "double", 1, value=1)
    assert event(opened, Ended).result == 2


def test_a_trial_whose_worker_is_killed_is_to_run_again(place: Open) -> None:
    opened = place()
    submit(opened, "waits", 0)
    os.kill(int(event(opened, Report).value), signal.SIGKILL)
    died = event(opened, Died)
    assert (died.number, died.retry) == (0, True)
    submit(opened, "epochs", 1, value=1)
    event(opened, Report)
    opened.answer(1, True)
    assert event(opened, Ended).result == [True]


def test_a_trial_that_takes_too_long_is_ended(place: Open) -> None:
    opened = place(limit=2.0)
    submit(opened, "waits", 0)
    process = int(event(opened, Report).value)
    died = event(opened, Died)
    assert (died.reason, died.retry) == ("it took longer than trial_timeout, 2 s", False)
    assert gone(process)


def test_closing_leaves_no_process(place: Open) -> None:
    opened = place(2)
    submit(opened, "waits", 0, 1)
    processes = [int(event(opened, Report).value) for _ in range(2)]
    opened.close()
    assert all(map(gone, processes))


def test_a_worker_that_cannot_start_is_told(place: Open) -> None:
    opened = place(warm_up=cannot_start)
    with pytest.raises(PlaceError, match=r"could not start.*: ImportError: no module named tensorflow"):
        event(opened, Ended)


def test_what_a_trial_sends_comes_in_order_and_before_its_end(ray: Kept, place: Open) -> None:
    opened = place()
    submit(opened, "sends", 0, value=5)
    for number in range(5):
        assert event(opened, Sent) == Sent(0, ("message", number))
        assert event(opened, Report).epoch == number + 1
        opened.answer(0, True)
    assert len(event(opened, Sent).message) == 2_000_000
    assert event(opened, Ended) == Ended(0, 5)


def test_an_array_is_stored_once_and_mapped_by_the_workers(ray: Kept, place: Open) -> None:
    opened = place()
    stored = opened.put(np.ones((500, 64, 64), np.uint8))
    for number in (0, 1):
        submit(opened, "sums", number, value=stored)
        assert event(opened, Ended).result == (500 * 64 * 64, False, False)


def test_no_room_for_a_worker_is_waited_for_and_then_told(ray: Kept) -> None:
    place = RayPlace(small_trial, ready, ray, Needs(1000), 1, None, 1.0)  # type: ignore[arg-type]
    with pytest.raises(PlaceOutageError, match=r"room for a worker \(1000 cores\) for 1 s \(search.outage\)"):
        event(place, Ended)
    place.close()


def test_a_lost_node_costs_no_trial_and_a_new_one_is_used(ray: Kept, place: Open) -> None:
    if ray.add_node is None or ray.remove_node is None:
        pytest.skip("of a cluster only")
    opened = place(2)
    submit(opened, "waits", 0, 1)
    processes = {int(event(opened, Report).value) for _ in range(2)}
    ray.remove_node()
    died = event(opened, Died)
    assert died.retry
    assert sum(map(psutil.pid_exists, processes)) == 1
    assert opened.free == 0
    ray.add_node()
    submit(opened, "double", 2, value=1)
    assert event(opened, Ended) == Ended(2, 2)
