"""Worker processes of this machine, one GPU each."""

from __future__ import annotations

import contextlib
import itertools
import math
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from pneumo.compute.devices import find_devices
from pneumo.compute.memory import count_oom_kills
from pneumo.compute.place import Died, Ended, Event, PlaceError, Task
from pneumo.compute.worker import Started, TrialFunction, work
from pneumo.spec.cores import THREADS_VARIABLE, scheduled_cores, usable_cores
from pneumo.spec.errors import LESS_MEMORY

TRIALS_PER_WORKER = 20
"""Number of trials after which a worker is replaced, because TensorFlow leaks a few MB in each trial.

The next worker starts together with the last trial of the old one, so that nothing waits for its imports.
"""

MOST_DEATHS = 3
"""Number of workers that may die in a row before they start a trial until the place gives up."""

OUT_OF_MEMORY = ("MemoryError", "std::bad_alloc", "Cannot allocate memory", "cannot allocate memory", "Out of memory")
"""Messages of Python, C++ and the C library in the output of a process that ran out of memory."""

OUTSIDE_SIGNALS = (signal.SIGKILL, signal.SIGTERM)
"""Signals that end a process for somebody else: a user, a batch system, a machine that shuts down. A crash has others."""

OUTPUT_END = 4000
"""Largest number of characters of a dead worker's output that are reported."""


@dataclass(eq=False)
class _Worker:
    """A worker process.

    Attributes:
        process: The process.
        pipe: Connection to the process.
        output: File with the standard output and error of the process.
        slot: Index of the slot in which the worker runs.
        oom_kills: Number of processes that the kernel had ended for memory when the worker, or its last task, was started.
        submitted: Number of tasks that were submitted to it.
        task: The task that is under way; None if it is idle.
        started: Monotonic time in seconds when that task started; None before.
        was_crowded: Whether memory ran out while that task was under way beside others.
    """

    process: SpawnProcess
    pipe: Connection
    output: Path
    slot: int
    oom_kills: int | None
    submitted: int = 0
    task: Task | None = None
    started: float | None = None
    was_crowded: bool = False


class LocalProcesses:
    """A `Place` of worker processes on this machine.

    One worker is started at once, and the others when a task or `start` needs them, so that there are never more workers
    than tasks. If memory runs out while several workers are there, the place goes on with fewer.

    Args:
        run: Function that runs a trial. It must be importable from a module.
        warm_up: Function that imports what trials need. It must be importable from a module.
        slots: Number of trials that run at the same time.
        gpus: GPUs to assign to the slots in turn, as CUDA_VISIBLE_DEVICES names them; None for all that trials can use.
            Without GPUs, the slots share the cores evenly.
        trial_timeout: Seconds after which a trial is killed; None for no limit.
        shares: Number of workers among which the cores are divided; None for `slots`.
        environment: Further environment variables of each worker; None for those of `find_devices`, or none if `gpus` is given.

    Raises:
        RequestError: CUDA_VISIBLE_DEVICES names a GPU that is not there, and `gpus` is None.
    """

    def __init__(
        self,
        run: TrialFunction,
        warm_up: Callable[[], None],
        slots: int = 1,
        gpus: Sequence[str] | None = None,
        trial_timeout: float | None = None,
        shares: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._run, self._warm_up, self._slots, self._shares = run, warm_up, slots, shares or slots
        if gpus is None:
            devices = find_devices()
            gpus, environment = devices.ids, {**devices.environment, **(environment or {})}
        self._gpus, self._variables = tuple(gpus), dict(environment or {})
        self._trial_timeout = trial_timeout
        self._last_watched = time.monotonic()
        self._context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(prefix="pneumo-workers-")
        self._deaths = 0
        self._started_workers = 0
        self._workers: list[_Worker] = []
        self.start(1)

    @property
    def free(self) -> int:
        return self._slots - sum(worker.task is not None for worker in self._workers)

    def start(self, workers: int) -> None:
        """Start workers ahead of their tasks, until there are `workers`, or one for each slot."""
        while len(self._workers) < min(workers, self._slots):
            self._start_worker()

    def submit(self, task: Task) -> None:
        busy_slots = {w.slot for w in self._workers if w.task}
        idle = [w for w in self._workers if w.slot not in busy_slots and w.submitted < TRIALS_PER_WORKER]
        self._hand(idle[0] if idle else self._start_worker(), task)

    def _hand(self, worker: _Worker, task: Task) -> None:
        worker.task, worker.started, worker.submitted = task, None, worker.submitted + 1
        worker.oom_kills, worker.was_crowded = count_oom_kills(), False
        # If the worker died while it was idle, its sentinel shows that, and next_event submits the task again.
        with contextlib.suppress(BrokenPipeError):
            worker.pipe.send(task)
        if worker.submitted == TRIALS_PER_WORKER:
            self._start_worker(worker.slot)

    def next_event(self, timeout: float) -> Event | None:
        # Between two calls, for example while the driver waits for a server, trials may wait for an answer. That time does
        # not count for trial_timeout.
        unwatched = time.monotonic() - self._last_watched
        for worker in self._workers:
            worker.started = None if worker.started is None else worker.started + unwatched
        until = time.monotonic() + timeout
        try:
            event = self._next(until)
            while event is None and time.monotonic() < until:
                event = self._next(until)
            return event
        finally:
            self._last_watched = time.monotonic()

    def answer(self, number: int, go_on: bool) -> None:
        worker = next(w for w in self._workers if w.task and w.task.number == number)
        with contextlib.suppress(BrokenPipeError):
            worker.pipe.send(go_on)

    def close(self) -> None:
        self._end(tuple(self._workers))
        self._folder.cleanup()

    def _start_worker(self, slot: int | None = None) -> _Worker:
        """Start a worker, by default in the first slot that has none."""
        if slot is None:
            slot = next(slot for slot in itertools.count() if slot not in {worker.slot for worker in self._workers})
        driver_end, worker_end = self._context.Pipe()
        self._started_workers += 1
        output = Path(self._folder.name) / f"worker-{self._started_workers}.txt"
        arguments = (worker_end, self._run, self._warm_up, self._environment(slot), str(output))
        process = self._context.Process(target=work, args=arguments, daemon=True)
        oom_kills = count_oom_kills()
        with _deferred_interruption():
            process.start()
        worker_end.close()
        worker = _Worker(process, driver_end, output, slot, oom_kills)
        self._workers.append(worker)
        return worker

    def _end(self, workers: Sequence[_Worker]) -> None:
        """Kill workers and forget them."""
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()
            self._workers.remove(worker)

    def _environment(self, slot: int) -> dict[str, str]:
        # What a killed process leaves in TMPDIR is removed with the folder.
        environment = self._variables | {"TMPDIR": self._folder.name}
        if self._gpus:
            return environment | {"CUDA_VISIBLE_DEVICES": self._gpus[slot % len(self._gpus)]}
        cores = usable_cores()
        if self._shares == 1 and (cores >= scheduled_cores() or os.environ.get(THREADS_VARIABLE)):
            return environment  # TensorFlow starts as many threads by itself, or as many as the caller wants
        threads = str(max(1, cores // self._shares))
        return environment | {THREADS_VARIABLE: threads, "OMP_NUM_THREADS": threads}

    def _next(self, until: float) -> Event | None:
        """Wait for a message, the death of a worker, a trial's deadline or `until`, and return its event if it has one."""
        pipes = {worker.pipe: worker for worker in self._workers}
        sentinels = {worker.process.sentinel: worker for worker in self._workers}
        wait = min([until, *map(self._deadline, self._workers)]) - time.monotonic()
        ready = connection.wait([*pipes, *sentinels], max(0.0, wait))
        # Read messages first, so that what a worker sent before it died is not lost.
        for pipe in (source for source in ready if isinstance(source, Connection)):
            with contextlib.suppress(EOFError, ConnectionResetError):
                return self._receive(pipes[pipe], pipe.recv())
        for source in ready:
            dead = pipes[source] if isinstance(source, Connection) else sentinels[source]  # type: ignore[index]
            return self._bury(dead)
        for worker in self._workers:
            if self._deadline(worker) <= time.monotonic():
                worker.process.kill()
                return self._bury(worker, f"it took longer than trial_timeout, {self._trial_timeout:g} s")
        return None

    def _deadline(self, worker: _Worker) -> float:
        """Return the monotonic time in seconds at which the worker's trial is killed; infinity if there is none."""
        if self._trial_timeout is None or worker.started is None:
            return math.inf
        return worker.started + self._trial_timeout

    def _receive(self, worker: _Worker, message: object) -> Event | None:
        """Handle a worker's message, and return it if it is an event."""
        if isinstance(message, Exception):
            raise PlaceError(f"a worker process could not start: {type(message).__name__}: {message}") from message
        if isinstance(message, Started):
            worker.started, self._deaths = time.monotonic(), 0
            return None
        if isinstance(message, Ended):
            worker.task = worker.started = None
            if message.last:
                self._end([worker])  # at once, so that the next worker has its memory
            elif worker.submitted >= TRIALS_PER_WORKER:
                self._workers.remove(worker)
                with contextlib.suppress(BrokenPipeError):
                    worker.pipe.send(None)
                worker.pipe.close()
        return message  # type: ignore[return-value]

    def _bury(self, worker: _Worker, reason: str | None = None) -> Died | None:
        """Remove a dead worker and return the end of its trial; `reason` defaults to what the exit status means.

        A task that the worker had not started is submitted again.
        """
        worker.process.join()
        output, task = _read_end(worker.output), worker.task
        self._end([worker])
        if reason is None and task and (self._workers or worker.was_crowded) and _was_killed_for_memory(worker):
            return Died(task.number, self._retreat(), output, retry=True, counted=False)
        was_killed = reason is None and _was_killed_from_outside(worker, output)
        reason = reason or _describe_death(worker, output)
        if worker.started is not None and task:
            return Died(task.number, reason, output, retry=was_killed)
        self._deaths += 1
        if self._deaths >= MOST_DEATHS:
            last_line = output.strip().splitlines()[-1:] or ["it wrote nothing"]
            raise PlaceError(f"worker processes die before their first trial: {reason}; {last_line[0]}")
        if task:
            self._hand(self._start_worker(worker.slot), task)
        return None

    def _retreat(self) -> str:
        """End the idle workers, go on with those that are busy, and return what happened."""
        self._end([worker for worker in self._workers if worker.task is None])
        for worker in self._workers:
            worker.was_crowded = True  # it may have been killed too, or may be before the memory is free
        self._slots = max(1, sum(worker.process.is_alive() for worker in self._workers))
        left = "is 1 worker" if self._slots == 1 else f"are {self._slots} workers"
        return f"memory ran out beside other workers; from now on there {left}"


@contextlib.contextmanager
def _deferred_interruption() -> Iterator[None]:
    """Handle Ctrl-C, SIGTERM and SIGHUP after the `with` block. A process that is started in it receives SIGTERM only.

    Otherwise a worker that is interrupted while it imports modules, or whose start is interrupted, would print a traceback,
    and a closed terminal would end the workers before this process can say what became of their trials.
    """
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()  # a process too; starting it unblocks Ctrl-C
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for received_number in received:
        signal.raise_signal(received_number)


def _was_killed_for_memory(worker: _Worker) -> bool:
    """Return whether the kernel ended a process because memory ran out, or may have if the kernel does not count that."""
    return worker.process.exitcode == -signal.SIGKILL and _count_new_oom_kills(worker) != 0


def _was_killed_from_outside(worker: _Worker, output: str) -> bool:
    """Return whether somebody ended a process, or may have if the kernel does not count whom it ends for memory."""
    if worker.process.exitcode not in [-number for number in OUTSIDE_SIGNALS] or _ran_out_of_memory(output):
        return False
    return worker.process.exitcode != -signal.SIGKILL or not _count_new_oom_kills(worker)


def _count_new_oom_kills(worker: _Worker) -> int | None:
    """Return how many processes the kernel has ended for memory since a worker got its task; None if it does not count."""
    now = count_oom_kills()
    return None if now is None or worker.oom_kills is None else now - worker.oom_kills


def _ran_out_of_memory(output: str) -> bool:
    return any(message in output for message in OUT_OF_MEMORY)


def _describe_death(worker: _Worker, output: str) -> str:
    """Return why a process died, in one line, from its exit status and its output."""
    exit_code = worker.process.exitcode
    if exit_code is not None and exit_code < 0:
        how = f"was ended by {signal.Signals(-exit_code).name}"
    else:
        how = f"ended with exit status {exit_code}"
    if _ran_out_of_memory(output):
        return f"out of memory: the worker process {how}; {LESS_MEMORY}"
    # The kernel kills a process with SIGKILL if memory runs out. Such a process cannot write a message.
    guess = f" (out of memory, perhaps; {LESS_MEMORY})" if _was_killed_for_memory(worker) else ""
    return f"the worker process {how}{guess}"


def _read_end(output: Path) -> str:
    """Return the last characters of a worker's output."""
    try:
        lines = output.read_text(errors="replace").splitlines(keepends=True)
    except OSError:
        return ""
    # Python ends its report of a crash with a line that lists all extension modules. It is longer than the report.
    return "".join(line for line in lines if not line.startswith("Extension modules: "))[-OUTPUT_END:]
