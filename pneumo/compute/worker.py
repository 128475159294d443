"""The inside of a worker process: takes tasks from a pipe, runs them, speaks back over it."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from typing import Any

from pneumo.compute.place import Channel, Ended, Progress, Report, Task

PROGRESS_SECONDS = 0.2
"""Progress is said at most this often."""

TrialFunction = Callable[[Any, Channel], AbstractContextManager[Any]]
"""Gives a trial's result; what it does on leaving is cleaning up, for which nobody waits."""


def work(
    pipe: Connection,
    run: TrialFunction,
    warm_up: Callable[[], None],
    environment: Mapping[str, str],
    output: str,
) -> None:
    """A worker process from start to end: until None comes through the pipe, or its parent is gone.

    `environment` is laid over the process's own before anything heavy is imported; `output` is the file that takes what
    is written to standard output and error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    faulthandler.enable()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        warm_up()
    except Exception as error:
        pipe.send(error if _pickles(error) else RuntimeError(repr(error)))
        raise
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        if task is None:
            return
        with run(task.payload, _PipeChannel(pipe, task)) as result:
            pipe.send(Ended(task.number, result))


class _PipeChannel:
    def __init__(self, pipe: Connection, task: Task) -> None:
        self._pipe = pipe
        self._number = task.number
        self._said = 0.0
        self._room = select.poll()
        self._room.register(pipe.fileno(), select.POLLOUT)

    def progress(self, epoch: int, step: int, steps: int) -> None:
        now = time.monotonic()
        # A parent that waits for something does not read: what it does not need must not hold up the training.
        if now - self._said >= PROGRESS_SECONDS and self._room.poll(0):
            self._said = now
            self._pipe.send(Progress(self._number, epoch, step, steps))

    def report(self, epoch: int, value: float, metrics: Mapping[str, float]) -> bool:
        self._pipe.send(Report(self._number, epoch, value, dict(metrics)))
        return bool(self._pipe.recv())


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _pickles(error: Exception) -> bool:
    import pickle

    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  (our own bytes)
    except Exception:
        traceback.print_exc()
        return False
    return True
