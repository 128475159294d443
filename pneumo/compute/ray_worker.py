"""The code of an actor of Ray: it runs trials, and keeps what they send until the driver takes it.

`ray_place` makes the actors.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import platform
import queue
import re
import shutil
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumo import __version__
from pneumo.compute.place import Ended, Progress, Report
from pneumo.compute.worker import Started, TrialFunction

PROGRESS_SECONDS = 1.0
"""Seconds between two progress events of a trial, at least. The driver of many workers reads each of them."""

POLL_SECONDS = 30.0
"""Longest time for which an actor holds back an answer while it has nothing to send, in seconds."""

CRASHED = "pneumo: the worker process ended by an error"
"""A line in the output of a worker that ended itself."""

_FOLDER = "pneumo-worker-"

_FRAME = re.compile(r" @ +0x|^Extension modules: ")

_OUTPUT, _LOCK = "output.txt", ".lock"


@dataclass(frozen=True)
class About:
    """What an actor says of itself when it has started.

    Attributes:
        version: Version of pneumo on its node.
        host: Name of its machine.
        node: Ray's id of its node.
        folder: Its folder for temporary files, with its output.
    """

    version: str
    host: str
    node: str
    folder: str


@dataclass(frozen=True)
class Sent:
    """A message of a trial function for the driver, see `RayChannel.send`."""

    number: int
    message: Any


class Outgoing:
    """Messages for the driver, in order. The driver has got a message when it asks for the next ones."""

    def __init__(self) -> None:
        self._messages: deque[Any] = deque()
        self._changed = threading.Condition()
        self._put = self._handed = self._arrived = 0

    def put(self, message: Any, *, wait: bool = False) -> None:
        """Append a message; with `wait`, return when the driver has got it."""
        with self._changed:
            if isinstance(message, Progress) and self._messages and isinstance(self._messages[-1], Progress):
                self._messages[-1] = message
            else:
                self._messages.append(message)
                self._put += 1
            number = self._put
            self._changed.notify_all()
            if wait:
                self._changed.wait_for(lambda: self._arrived >= number)

    def take(self, seconds: float) -> list[Any]:
        """Return all messages that wait; if there is none, wait for one, at most `seconds`."""
        with self._changed:
            self._arrived = self._handed
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._messages, seconds)
            messages = list(self._messages)
            self._messages.clear()
            self._handed = self._put
        return messages


class RayChannel:
    """A `Channel` through an actor of Ray."""

    def __init__(self, number: int, outgoing: Outgoing) -> None:
        self._number, self._outgoing = number, outgoing
        self._answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._last_progress = 0.0
        self.retired = False

    def progress(self, epoch: int, step: int, steps: int) -> None:
        now = time.monotonic()
        if now - self._last_progress >= PROGRESS_SECONDS:
            self._last_progress = now
            self._outgoing.put(Progress(self._number, epoch, step, steps))

    def report(self, epoch: int, value: float, metrics: Mapping[str, float]) -> bool:
        self._outgoing.put(Report(self._number, epoch, value, dict(metrics)))
        return self._answers.get()

    def retire(self) -> None:
        self.retired = True

    def send(self, message: Any, *, wait: bool = False) -> None:
        """Send a message to whoever submitted the task, in the order of all events of the trial.

        With `wait`, return when it has arrived.
        """
        self._outgoing.put(Sent(self._number, message), wait=wait)

    def answer(self, go_on: bool) -> None:
        """Answer the report that waits."""
        self._answers.put(go_on)


class RayWorker:
    """An actor that runs one trial at a time, in a thread of its own, while others answer the driver.

    Args:
        run: Function that runs a trial.
        warm_up: Function that imports what trials need.
        environment: Environment variables to set before anything heavy is imported.
    """

    def __init__(self, run: TrialFunction, warm_up: Callable[[], None], environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._run, self._warm_up = run, warm_up
        self._outgoing = Outgoing()
        self._tasks: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._channel: RayChannel | None = None
        self._folder, self._lock = _make_folder()
        descriptor = os.open(self._folder / _OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        faulthandler.enable()
        threading.Thread(target=self._work, name="trials", daemon=True).start()

    def about(self) -> About:
        """Return what the driver has to know of this actor."""
        import ray

        return About(__version__, platform.node(), ray.get_runtime_context().get_node_id(), str(self._folder))

    def submit(self, number: int, payload: Any) -> None:
        """Start a task."""
        self._tasks.put((number, payload))

    def answer(self, number: int, go_on: bool) -> None:
        """Answer the report of a trial."""
        if self._channel:
            self._channel.answer(go_on)

    def receive(self) -> list[Any]:
        """Return what trials have sent since the last call; wait for something if there is nothing."""
        return self._outgoing.take(POLL_SECONDS)

    def _work(self) -> None:
        try:
            self._warm_up()
        except Exception as error:
            traceback.print_exc()
            self._outgoing.put(RuntimeError(f"{type(error).__name__}: {error}"))
            return
        try:
            while True:
                number, payload = self._tasks.get()
                self._channel = RayChannel(number, self._outgoing)
                self._outgoing.put(Started())
                with self._run(payload, self._channel) as result:
                    self._outgoing.put(Ended(number, result, self._channel.retired))
                del payload, result
        except BaseException:
            traceback.print_exc()
            print(CRASHED, flush=True)
            os._exit(1)


def read_output(folder: str) -> str:
    """Return the end of what a dead worker of this machine wrote, and remove its folder."""
    from pneumo.compute.local import OUTPUT_END

    try:
        lines = Path(folder, _OUTPUT).read_text(errors="replace").splitlines(keepends=True)
    except OSError:
        lines = []
    shutil.rmtree(folder, ignore_errors=True)
    # After a crash, Ray writes each frame of its own code twice, and Python a line with all extension modules. Both are longer
    # than the report, and what the trial wrote last stands before them.
    return "".join(line for line in lines if not _FRAME.search(line))[-OUTPUT_END:]


def _make_folder() -> tuple[Path, int]:
    """Make this process' folder for temporary files, and remove those of processes that are gone.

    Returns:
        The folder, and the descriptor of the lock that is held as long as this process lives.
    """
    tempfile.tempdir = None  # what TMPDIR was before
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        with suppress(OSError):
            descriptor = os.open(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    return folder, lock
