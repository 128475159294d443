"""The code that runs in a worker process: it receives tasks from a pipe, runs them, and sends events back."""

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
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from typing import Any

from pneumo.compute.place import Channel, Ended, Progress, Report, Task

PROGRESS_SECONDS = 0.2
"""Seconds between two progress events of a trial, at least."""

TrialFunction = Callable[[Any, Channel], AbstractContextManager[Any]]
"""A function that runs a trial, called with the task's payload and a channel.

The context manager that it returns yields the trial's result. When it exits, it cleans up after the result was sent.
"""


@dataclass(frozen=True)
class Started:
    """A worker has started a task. It may have received the task earlier, while it was still importing modules."""


def work(
    pipe: Connection,
    run: TrialFunction,
    warm_up: Callable[[], None],
    environment: Mapping[str, str],
    output: str,
) -> None:
    """Run a worker process until None comes through the pipe, or its parent process is gone.

    Args:
        pipe: Connection to the parent process.
        run: Function that runs a trial.
        warm_up: Function that imports what trials need.
        environment: Environment variables to set before anything heavy is imported.
        output: Path of the file that receives standard output and error.
    """
    # Ctrl-C and a closed terminal reach all processes of the terminal; the parent handles them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    faulthandler.enable()
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        warm_up()
    except Exception as error:
        pipe.send(error if _is_picklable(error) else RuntimeError(repr(error)))
        raise
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        if task is None:
            return
        pipe.send(Started())
        channel = _PipeChannel(pipe, task)
        with run(task.payload, channel) as result:
            pipe.send(Ended(task.number, result, channel.retired))


class _PipeChannel:
    """A `Channel` through the worker's pipe."""

    def __init__(self, pipe: Connection, task: Task) -> None:
        self._pipe = pipe
        self._number = task.number
        self._last_progress = 0.0
        self.retired = False
        self._poll = select.poll()
        self._poll.register(pipe.fileno(), select.POLLOUT)

    def progress(self, epoch: int, step: int, steps: int) -> None:
        now = time.monotonic()
        # The parent does not read while it waits for something else. Progress is dropped then, so that training continues.
        if now - self._last_progress >= PROGRESS_SECONDS and self._poll.poll(0):
            self._last_progress = now
            self._pipe.send(Progress(self._number, epoch, step, steps))

    def report(self, epoch: int, value: float, metrics: Mapping[str, float]) -> bool:
        self._pipe.send(Report(self._number, epoch, value, dict(metrics)))
        return bool(self._pipe.recv())

    def retire(self) -> None:
        self.retired = True


def _exit_with_parent() -> None:
    """Wait for the parent process to end, then end this process."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _is_picklable(error: Exception) -> bool:
    import pickle

    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  (bytes of this process)
    except Exception:
        traceback.print_exc()
        return False
    return True
