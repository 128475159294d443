"""Worker processes of this machine, one GPU each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from pneumo.compute.place import Died, Ended, Event, PlaceError, Task
from pneumo.compute.worker import TrialFunction, work

TRIALS_PER_WORKER = 20
"""TensorFlow keeps a few MB of each trial, whatever is cleared; after this many trials a worker is replaced. The next one
starts with its predecessor's last trial, so that its imports cost no waiting."""

MOST_DEATHS = 3
"""Idle workers that may die one after the other before the place gives up."""

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


class LocalProcesses:
    """A `Place`: `slots` processes of this machine, started at once.

    `run` and `warm_up` are functions of a module (they go to the processes by name). Each slot has one of `gpus`, in
    turn; without GPUs the slots share the cores evenly.
    """

    def __init__(
        self, run: TrialFunction, warm_up: Callable[[], None], slots: int = 1, gpus: Sequence[str] | None = None
    ) -> None:
        self._run, self._warm_up, self._slots = run, warm_up, slots
        self._gpus = visible_gpus() if gpus is None else tuple(gpus)
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
        worker.number, worker.taken = task.number, worker.taken + 1
        # A worker that died while idle shows at its sentinel: the task then ends as died there, not here.
        with contextlib.suppress(BrokenPipeError):
            worker.pipe.send(task)
        if worker.taken == TRIALS_PER_WORKER:
            self._workers.append(self._start(worker.slot))

    def next_event(self, timeout: float) -> Event | None:
        pipes = {worker.pipe: worker for worker in self._workers}
        sentinels = {worker.process.sentinel: worker for worker in self._workers}
        ready = connection.wait([*pipes, *sentinels], timeout)
        # A message that was sent before a death is read before the death is seen.
        for pipe in (one for one in ready if isinstance(one, Connection)):
            with contextlib.suppress(EOFError, ConnectionResetError):
                return self._received(pipes[pipe], pipe.recv())
        dead = [pipes[one] if isinstance(one, Connection) else sentinels[one] for one in ready]  # type: ignore[index]
        return self._buried(dead[0]) if dead else None

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
        # Ignored from the first instruction on: a Ctrl-C while the process imports would print a stack trace.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, before)
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

    def _received(self, worker: _Worker, message: object) -> Event:
        if isinstance(message, Exception):
            raise PlaceError(f"a worker process could not start: {type(message).__name__}: {message}") from message
        if isinstance(message, Ended):
            worker.number = None
            self._deaths = 0
            if worker.taken >= TRIALS_PER_WORKER:
                self._workers.remove(worker)
                with contextlib.suppress(BrokenPipeError):
                    worker.pipe.send(None)
                worker.pipe.close()
        return message  # type: ignore[return-value]

    def _buried(self, worker: _Worker) -> Died | None:
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        reason, output = _cause(worker.process.exitcode), _end_of(worker.output)
        replaced = any(w.slot == worker.slot and w.taken < TRIALS_PER_WORKER for w in self._workers)
        if worker.number is None:
            self._deaths += 1
            if self._deaths >= MOST_DEATHS:
                last = output.strip().splitlines()[-1:] or ["it wrote nothing"]
                raise PlaceError(f"worker processes die before their first trial: {reason}; {last[0]}")
        if not replaced:
            self._workers.append(self._start(worker.slot))
        return None if worker.number is None else Died(worker.number, reason, output)


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        more = " (out of memory, perhaps)" if name == "SIGKILL" else ""
        return f"the worker process was ended by {name}{more}"
    return f"the worker process ended with exit status {exit_code}"


def _end_of(output: Path) -> str:
    try:
        return output.read_text(errors="replace")[-OUTPUT_END:]
    except OSError:
        return ""
