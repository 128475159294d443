"""Real worker processes that run small functions instead of trainings."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path

import psutil
import pytest

from pneumo.compute import worker
from pneumo.compute.local import TRIALS_PER_WORKER
from pneumo.compute.place import Channel, Died, Ended, PlaceError, Progress, Report, Task
from pneumo.spec.errors import LESS_MEMORY
from tests.support.places import PATIENCE, Start, after, children, event, ready

STEPS = 20_000


def cannot_start() -> None:
    raise ImportError("no module named tensorflow")


def dies_early() -> None:
    os.write(2, b"cannot allocate memory\n")
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def double(payload: int, channel: Channel) -> Iterator[int]:
    yield 2 * payload


@contextmanager
def pid(payload: object, channel: Channel) -> Iterator[tuple[int, str | None, str | None]]:
    yield os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("TF_NUM_INTRAOP_THREADS")


@contextmanager
def epochs(payload: int, channel: Channel) -> Iterator[list[bool]]:
    answers = []
    for epoch in range(1, payload + 1):
        channel.progress(epoch, 1, 2)
        answers.append(channel.report(epoch, epoch / 10, {"val_auc": epoch / 10}))
    yield answers


@contextmanager
def takes(payload: str, channel: Channel) -> Iterator[str]:
    if payload == "long":
        os.write(2, b"what it did last\n")
        signal.pause()
    yield payload


@contextmanager
def crash(payload: str, channel: Channel) -> Iterator[str]:
    if payload == "exit":
        os._exit(7)
    if payload == "abort":
        os.write(2, b"last words: terminate called after throwing an instance of 'std::bad_alloc'\n")
        os.abort()
    if payload != "fine":
        print("before the crash")
        os.write(2, b"last words\n")
        os.kill(os.getpid(), signal.Signals[payload])
    yield payload


@contextmanager
def runs_out(payload: bool, channel: Channel) -> Iterator[int]:
    if payload:
        channel.retire()
    yield os.getpid()
    if payload:
        signal.pause()  # the process is killed all the same


@contextmanager
def talks(payload: str, channel: Channel) -> Iterator[str]:
    """Send more than fits into a pipe, then create the file that the payload names."""
    worker.PROGRESS_SECONDS = 0
    for step in range(1, STEPS + 1):
        channel.progress(1, step, STEPS)
    Path(payload).touch()
    yield "done"


@contextmanager
def never_ends(payload: object, channel: Channel) -> Iterator[None]:
    channel.report(1, os.getpid(), {})
    signal.pause()
    yield


def test_a_task_runs_elsewhere_and_its_result_comes_back(start: Start) -> None:
    place = start(double)
    assert place.free == 1
    place.submit(Task(3, 21))
    assert place.free == 0
    ended = event(place)
    assert isinstance(ended, Ended)
    assert (ended.number, ended.result) == (3, 42)
    assert place.free == 1


def test_reports_wait_for_their_answers(start: Start) -> None:
    place = start(epochs)
    place.submit(Task(0, 3))
    seen = []
    while not isinstance(next_event := event(place), Ended):
        seen.append(next_event)
        if isinstance(next_event, Report):
            place.answer(0, next_event.epoch < 2)
    assert [e for e in seen if isinstance(e, Report)] == [Report(0, n, n / 10, {"val_auc": n / 10}) for n in (1, 2, 3)]
    assert Progress(0, 1, 1, 2) in seen
    assert next_event.result == [True, False, False]


def test_slots_work_at_once_each_on_a_gpu_of_its_own(start: Start) -> None:
    place = start(pid, slots=2, gpus=("0", "GPU-7"))
    for number in (0, 1):
        place.submit(Task(number, None))
    results = [after(place, Ended).result for _ in range(2)]  # type: ignore[union-attr]
    assert len({process for process, _, _ in results}) == 2
    assert {gpu for _, gpu, _ in results} == {"0", "GPU-7"}


@pytest.mark.parametrize(
    ("slots", "scheduled", "usable", "threads"),
    [
        (2, 64, 64, "32"),
        (2, 64, 5, "2"),  # a container of 5 cores on a machine of 64
        (2, 1, 1, "1"),  # taskset -c 0
        (1, 64, 1, "1"),
        (1, 64, 64, None),  # TensorFlow starts as many by itself
    ],
)
def test_without_gpus_slots_share_the_cores_that_the_process_may_use(
    start: Start, monkeypatch: pytest.MonkeyPatch, slots: int, scheduled: int, usable: int, threads: str | None
) -> None:
    monkeypatch.setattr("pneumo.compute.local.scheduled_cores", lambda: scheduled)
    monkeypatch.setattr("pneumo.compute.local.usable_cores", lambda: usable)
    place = start(pid, slots=slots)
    place.submit(Task(0, None))
    assert after(place, Ended).result[2] == threads  # type: ignore[union-attr]


def test_a_worker_is_replaced_after_its_trials(start: Start) -> None:
    place = start(pid)
    processes = []
    for number in range(TRIALS_PER_WORKER + 2):
        place.submit(Task(number, None))
        processes.append(after(place, Ended).result[0])  # type: ignore[union-attr]
    assert len(set(processes[:TRIALS_PER_WORKER])) == 1
    assert len(set(processes[TRIALS_PER_WORKER:])) == 1
    assert processes[-1] != processes[0]


def test_a_successor_that_dies_early_is_replaced_too(start: Start) -> None:
    place = start(epochs)
    for number in range(TRIALS_PER_WORKER - 1):
        place.submit(Task(number, 0))
        after(place, Ended)
    before = set(psutil.Process().children())
    place.submit(Task(100, 1))  # the worker's last: its successor starts
    (successor,) = set(psutil.Process().children()) - before
    successor.kill()
    last = after(place, Report)
    assert isinstance(last, Report)
    place.answer(100, True)
    after(place, Ended)
    while place.next_event(0.1):
        pass
    place.submit(Task(101, 0))
    ended = after(place, Ended)
    assert isinstance(ended, Ended)
    assert ended.number == 101


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("SIGSEGV", "the worker process was ended by SIGSEGV"),
        ("abort", f"out of memory: the worker process was ended by SIGABRT; {LESS_MEMORY}"),
        ("exit", "the worker process ended with exit status 7"),
    ],
)
def test_a_crash_costs_one_trial(start: Start, payload: str, reason: str) -> None:
    place = start(crash)
    place.submit(Task(0, payload))
    died = after(place, Died)
    assert isinstance(died, Died)
    assert (died.number, died.reason, died.retry) == (0, reason, False)
    assert ("last words" in died.output) == (payload != "exit")
    place.submit(Task(1, "fine"))
    ended = after(place, Ended)
    assert isinstance(ended, Ended)
    assert ended.result == "fine"


def test_a_process_that_ran_out_of_memory_takes_no_further_trial(start: Start) -> None:
    place = start(runs_out)
    processes = []
    for number, payload in enumerate((False, True, False, False)):
        place.submit(Task(number, payload))
        ended = after(place, Ended)
        assert isinstance(ended, Ended)
        assert psutil.pid_exists(ended.result) != payload
        processes.append(ended.result)
    first, out, *others = processes
    assert first == out
    assert out not in others
    assert len(set(others)) == 1


def test_a_trial_that_takes_too_long_is_ended_and_the_others_go_on(start: Start) -> None:
    place = start(takes, slots=2, limit=2.0)
    place.submit(Task(0, "long"))
    place.submit(Task(1, "short"))
    ended, died = event(place), event(place)
    assert ended == Ended(1, "short")
    assert isinstance(died, Died)
    assert (died.number, died.reason, died.retry) == (0, "it took longer than trial_timeout, 2 s", False)
    assert "what it did last" in died.output
    for number in (2, 3):
        place.submit(Task(number, "short"))
    assert {event(place).number, event(place).number} == {2, 3}
    assert place.next_event(2.5) is None  # an idle worker has no timeout


def test_time_between_two_calls_does_not_count_for_the_timeout(start: Start) -> None:
    place = start(epochs, limit=2.0)
    place.submit(Task(0, 2))
    assert isinstance(after(place, Report), Report)
    time.sleep(2.5)  # as if the driver waited for an unreachable server
    assert place.next_event(0) is None
    place.answer(0, True)
    assert isinstance(after(place, Report), Report)
    place.answer(0, True)
    assert isinstance(after(place, Ended), Ended)


def test_a_worker_that_cannot_start_is_reported(start: Start) -> None:
    place = start(double, cannot_start)
    with pytest.raises(PlaceError, match="could not start: ImportError: no module named tensorflow"):
        event(place)


def test_a_worker_that_the_system_does_not_start_leaves_the_signals_as_they_were(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(resource_tracker, "ensure_running", refuse)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(BlockingIOError):
        start(double)
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == set()


def test_workers_that_die_before_their_first_trial_are_not_replaced_for_ever(start: Start) -> None:
    place = start(double, dies_early)
    place.submit(Task(0, 1))
    with pytest.raises(PlaceError, match=r"die before their first trial: .*SIGKILL.*; cannot allocate memory"):
        after(place, Ended)


def test_closing_ends_a_trial_under_way(start: Start) -> None:
    place = start(never_ends)
    place.submit(Task(0, None))
    report = after(place, Report)
    assert isinstance(report, Report)
    worker = psutil.Process(int(report.value))
    place.close()
    assert not worker.is_running()


class Interrupting:
    """A warm-up function that sends Ctrl-C to this process when it is pickled for a new process."""

    def __reduce__(self) -> tuple[object, ...]:
        os.kill(os.getpid(), signal.SIGINT)
        return partial, (ready,)


def test_ctrl_c_while_a_worker_is_started_is_not_lost(start: Start) -> None:
    with pytest.raises(KeyboardInterrupt):
        start(double, Interrupting())


def test_ctrl_c_leaves_workers_alone(start: Start) -> None:
    place = start(epochs)
    place.submit(Task(0, 1))
    report = after(place, Report)
    child = psutil.Process().children()
    for process in child:
        process.send_signal(signal.SIGINT)
    assert isinstance(report, Report)
    place.answer(0, True)
    ended = after(place, Ended)
    assert isinstance(ended, Ended)
    assert ended.result == [True]


def test_a_trial_continues_while_nobody_reads_its_progress(start: Start, tmp_path: Path) -> None:
    place, marker = start(talks), tmp_path / "marker"
    place.submit(Task(1, str(marker)))
    until = time.monotonic() + PATIENCE
    while not marker.exists():
        assert time.monotonic() < until
        os.sched_yield()
    steps = []
    while isinstance(event := place.next_event(PATIENCE), Progress):
        steps.append(event.step)
    assert event == Ended(1, "done")
    assert 0 < len(steps) < STEPS
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("slots", "ahead", "tasks", "workers"), [(50, 0, 1, 1), (50, 3, 2, 3), (2, 9, 2, 2), (3, 0, 3, 3)]
)
def test_there_are_no_more_workers_than_tasks_or_slots(
    start: Start, slots: int, ahead: int, tasks: int, workers: int
) -> None:
    before = children()
    place = start(never_ends, slots=slots)
    place.start(ahead)
    for number in range(tasks):
        place.submit(Task(number, None))
    for _ in range(tasks):
        after(place, Report)
    assert len(children() - before) == workers
    assert place.free == slots - tasks


def test_a_worker_that_has_ended_is_not_replaced_without_a_task(start: Start) -> None:
    before = children()
    place = start(crash, slots=3)
    for number in range(3):
        place.submit(Task(number, "exit" if number else "fine"))
    assert {type(event(place)) for _ in range(3)} == {Ended, Died}
    assert len(children() - before) == 1
    place.submit(Task(4, "fine"))
    place.submit(Task(5, "fine"))
    assert {event(place).number, event(place).number} == {4, 5}


def dies_once() -> None:
    """Die in the first worker that calls this in a folder."""
    with suppress(FileExistsError):
        Path(os.environ["PNEUMO_DIED"]).mkdir()
        os._exit(1)


def test_a_worker_that_dies_before_it_starts_its_trial_does_not_cost_the_trial(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PNEUMO_DIED", str(tmp_path / "died"))
    place = start(double, dies_once)
    place.submit(Task(3, 21))
    assert after(place, Ended) == Ended(3, 42)
