"""Worker processes of this machine, one GPU each."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from pneumo.compute.place import Died, Ended, Event, PlaceError, Task
from pneumo.compute.worker import Began, TrialFunction, work
from pneumo.spec.errors import LESS_MEMORY

TRIALS_PER_WORKER = 20
"""TensorFlow keeps a few MB of each trial, whatever is cleared; after this many trials a worker is replaced. The next one
starts with its predecessor's last trial, so that its imports cost no waiting."""

MOST_DEATHS = 3
"""Idle workers that may die one after the other before the place gives up."""

OUT_OF_MEMORY = ("MemoryError", "std::bad_alloc", "Cannot allocate memory", "cannot allocate memory", "Out of memory")
"""What Python, C++ and the C library write of it at the end of a process."""

OUTPUT_END = 4000
"""Letters of a dead worker's output that are kept."""


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that trials may use, as CUDA names them: CUDA_VISIBLE_DEVICES where it is set, else all there are."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(part.strip() for part in chosen.split(",") if part.strip() not in ("", "-1"))
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return ()  # no driver, no GPU, or not the extra: TensorFlow could not use one either
    try:
        return tuple(str(index) for index in range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    output: Path
    slot: int
    taken: int = 0
    number: int | None = None  # of the trial under way
    began: float | None = None  # when it was taken up


class LocalProcesses:
    """A `Place`: `slots` processes of this machine, started at once.

    `run` and `warm_up` are functions of a module (they go to the processes by name). Each slot has one of `gpus`, in
    turn; without GPUs the slots share the cores evenly. A trial that takes longer than `trial_timeout` seconds is ended.
    """

    def __init__(
        self,
        run: TrialFunction,
        warm_up: Callable[[], None],
        slots: int = 1,
        gpus: Sequence[str] | None = None,
        trial_timeout: float | None = None,
    ) -> None:
        self._run, self._warm_up, self._slots = run, warm_up, slots
        self._gpus = visible_gpus() if gpus is None else tuple(gpus)
        self._trial_timeout = trial_timeout
        self._watched = time.monotonic()
        self._context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(prefix="pneumo-workers-")
        self._deaths = 0
        self._started = 0
        self._workers = [self._start(slot) for slot in range(slots)]

    @property
    def free(self) -> int:
        return self._slots - sum(worker.number is not None for worker in self._workers)

    def submit(self, task: Task) -> None:
        busy = {w.slot for w in self._workers if w.number is not None}
        worker = next(w for w in self._workers if w.slot not in busy and w.taken < TRIALS_PER_WORKER)
        worker.number, worker.began, worker.taken = task.number, None, worker.taken + 1
        # A worker that died while idle shows at its sentinel: the task then ends as died there, not here.
        with contextlib.suppress(BrokenPipeError):
            worker.pipe.send(task)
        if worker.taken == TRIALS_PER_WORKER:
            self._workers.append(self._start(worker.slot))

    def next_event(self, timeout: float) -> Event | None:
        # Time in which nobody looked at the trials, since a server was away perhaps, is not theirs: they may have waited.
        away = time.monotonic() - self._watched
        for worker in self._workers:
            worker.began = None if worker.began is None else worker.began + away
        until = time.monotonic() + timeout
        try:
            event = self._next(until)
            while event is None and time.monotonic() < until:
                event = self._next(until)
            return event
        finally:
            self._watched = time.monotonic()

    def answer(self, number: int, go_on: bool) -> None:
        worker = next(w for w in self._workers if w.number == number)
        with contextlib.suppress(BrokenPipeError):
            worker.pipe.send(go_on)

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()
        self._folder.cleanup()

    def _start(self, slot: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        self._started += 1
        output = Path(self._folder.name) / f"worker-{self._started}.txt"
        arguments = (theirs, self._run, self._warm_up, self._environment(slot), str(output))
        process = self._context.Process(target=work, args=arguments, daemon=True)
        with _uninterrupted():
            process.start()
        theirs.close()
        return _Worker(process, ours, output, slot)

    def _environment(self, slot: int) -> dict[str, str]:
        ours = {"TMPDIR": self._folder.name}  # what a process leaves there when it is killed goes with the folder
        if self._gpus:
            return ours | {"CUDA_VISIBLE_DEVICES": self._gpus[slot % len(self._gpus)]}
        if self._slots == 1:
            return ours
        threads = str(max(1, (os.cpu_count() or 1) // self._slots))
        return ours | {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}

    def _next(self, until: float) -> Event | None:
        """What comes first: a message, a death, the limit of a trial's time, or `until`. None: it was no event."""
        pipes = {worker.pipe: worker for worker in self._workers}
        sentinels = {worker.process.sentinel: worker for worker in self._workers}
        wait = min([until, *map(self._limit, self._workers)]) - time.monotonic()
        ready = connection.wait([*pipes, *sentinels], max(0.0, wait))
        # A message that was sent before a death is read before the death is seen.
        for pipe in (one for one in ready if isinstance(one, Connection)):
            with contextlib.suppress(EOFError, ConnectionResetError):
                return self._received(pipes[pipe], pipe.recv())
        for one in ready:
            return self._buried(pipes[one] if isinstance(one, Connection) else sentinels[one])  # type: ignore[index]
        for worker in self._workers:
            if self._limit(worker) <= time.monotonic():
                worker.process.kill()
                return self._buried(worker, f"it took longer than trial_timeout, {self._trial_timeout:g} s")
        return None

    def _limit(self, worker: _Worker) -> float:
        """When the time of its trial is over."""
        if self._trial_timeout is None or worker.began is None:
            return math.inf
        return worker.began + self._trial_timeout

    def _received(self, worker: _Worker, message: object) -> Event | None:
        if isinstance(message, Exception):
            raise PlaceError(f"a worker process could not start: {type(message).__name__}: {message}") from message
        if isinstance(message, Began):
            worker.began = time.monotonic()
            return None
        if isinstance(message, Ended):
            worker.number = worker.began = None
            self._deaths = 0
            if message.last:
                worker.process.kill()  # its memory is free before the next one needs it
                self._replace(worker)
            elif worker.taken >= TRIALS_PER_WORKER:
                self._workers.remove(worker)
                with contextlib.suppress(BrokenPipeError):
                    worker.pipe.send(None)
                worker.pipe.close()
        return message  # type: ignore[return-value]

    def _buried(self, worker: _Worker, reason: str | None = None) -> Died | None:
        """The end of a worker's trial with the worker: of this reason, or of the one that its exit status tells."""
        worker.process.join()
        output = _end_of(worker.output)
        reason = reason or _cause(worker.process.exitcode, output)
        if worker.number is None:
            self._deaths += 1
            if self._deaths >= MOST_DEATHS:
                last = output.strip().splitlines()[-1:] or ["it wrote nothing"]
                raise PlaceError(f"worker processes die before their first trial: {reason}; {last[0]}")
        self._replace(worker)
        return None if worker.number is None else Died(worker.number, reason, output)

    def _replace(self, worker: _Worker) -> None:
        """Another worker for one that ends now, where its slot has none yet."""
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        if not any(w.slot == worker.slot and w.taken < TRIALS_PER_WORKER for w in self._workers):
            self._workers.append(self._start(worker.slot))


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Puts off Ctrl-C and SIGTERM to its end. A process that is started meanwhile never hears of a Ctrl-C.

    One that did would print a stack trace while it imports, and so would one whose start is broken off.
    """
    resource_tracker.ensure_running()  # it would unblock Ctrl-C if it had to be started in between
    asked: list[int] = []
    before = {
        one: signal.signal(one, lambda number, _: asked.append(number)) for one in (signal.SIGINT, signal.SIGTERM)
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for one, handler in before.items():
            signal.signal(one, handler)
    for number in asked:
        signal.raise_signal(number)


def _cause(exit_code: int | None, output: str) -> str:
    if exit_code is not None and exit_code < 0:
        how = f"was ended by {signal.Signals(-exit_code).name}"
    else:
        how = f"ended with exit status {exit_code}"
    if any(sign in output for sign in OUT_OF_MEMORY):
        return f"out of memory: the worker process {how}; {LESS_MEMORY}"
    # What the kernel ends when there is no memory left has no last word.
    perhaps = f" (out of memory, perhaps; {LESS_MEMORY})" if exit_code == -signal.SIGKILL else ""
    return f"the worker process {how}{perhaps}"


def _end_of(output: Path) -> str:
    try:
        lines = output.read_text(errors="replace").splitlines(keepends=True)
    except OSError:
        return ""
    # The list of all that is loaded, with which Python ends its word on a crash, is longer than the word.
    return "".join(line for line in lines if not line.startswith("Extension modules: "))[-OUTPUT_END:]
