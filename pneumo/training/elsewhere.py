"""Trials on machines that share no disk with the search: what travels with a task, and what its worker sends back.

With the task go the pictures, once for each node, and the checkpoints that it may continue from. From the worker come the
operations for MLflow, with their files, and its checkpoints. The search stores both before it hears of the trial's next
event. So a trial counts as ended only when all of its record is in the search's own outbox.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from pneumo.compute import disk
from pneumo.compute.place import Channel, Event, Task
from pneumo.compute.ray_place import RayPlace
from pneumo.compute.ray_worker import Sent
from pneumo.spec.errors import FullDiskError
from pneumo.spec.result import TrialResult
from pneumo.training.task import TrialTask

if TYPE_CHECKING:
    from pneumo.data.prepare import Prepared

LOOK_SECONDS = 0.5
"""Seconds between two looks of a worker at whether it has written a checkpoint."""

MAX_SEND_SHARE = 0.03
"""Largest share of a training's time that sending checkpoints may take."""

_OWN, _CONTINUED = "own.npz", "continued.npz"


class SendingChannel(Channel, Protocol):
    """A channel that takes other messages too."""

    def send(self, message: Any, *, wait: bool = False) -> None:
        """Send a message, in the order of all events of the trial; with `wait`, return when it has arrived."""
        ...


@dataclass(frozen=True)
class DistantTask:
    """A trial as it travels to a worker.

    Attributes:
        task: The trial, without its pictures and its outbox.
        data: Returns the pictures.
        own: Contents of its own checkpoint, of a process that was killed; None if there is none.
        continued: Contents of the checkpoint of the trial that it continues; None if there is none.
    """

    task: TrialTask
    data: Callable[[], Prepared]
    own: bytes | None = field(default=None, repr=False)
    continued: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class SentCheckpoint:
    """A checkpoint on its way to the search."""

    content: bytes = field(repr=False)


class DistantTrials:
    """A `Place` of trials on machines that share no disk with this one.

    Args:
        place: Where they run. Its trial function is `run_distant_trial`.
        has_shared_cache: Whether all machines see the folder of the decoded pictures.
    """

    def __init__(self, place: RayPlace, *, has_shared_cache: bool = False) -> None:
        self._place, self._has_shared_cache = place, has_shared_cache
        self._tasks: dict[int, TrialTask] = {}
        self._stored: tuple[Prepared, Callable[[], Prepared]] | None = None

    @property
    def free(self) -> int:
        return self._place.free

    def start(self, workers: int) -> None:
        self._place.start(workers)

    def submit(self, task: Task) -> None:
        trial = cast(TrialTask, task.payload)
        self._tasks[task.number] = trial
        light = replace(trial, outbox=None, data=None)  # type: ignore[arg-type]
        payload = DistantTask(light, self._store(trial.data), _read(trial.checkpoint_path), _read(trial.continue_from))
        self._place.submit(Task(task.number, payload))

    def next_event(self, timeout: float) -> Event | None:
        until = time.monotonic() + timeout
        while True:
            event = self._place.next_event(max(0.0, until - time.monotonic()))
            if not isinstance(event, Sent):
                return event
            self._keep(self._tasks[event.number], event.message)

    def answer(self, number: int, go_on: bool) -> None:
        self._place.answer(number, go_on)

    def close(self) -> None:
        self._place.close()

    def _store(self, data: Prepared) -> Callable[[], Prepared]:
        """Put the pictures into the object store, once for all trials, and return what gets them there."""
        if self._stored is None or self._stored[0] is not data:
            light = data
            if not self._has_shared_cache:
                arrays = {size: self._place.put(np.asarray(data.pixels(size))) for size in data.sizes}
                light = replace(data, stored=arrays)
            self._stored = data, self._place.put(light)
        return self._stored[1]

    def _keep(self, task: TrialTask, message: object) -> None:
        """Store what a trial has sent.

        Raises:
            FullDiskError: The disk is full.
        """
        from pneumo.tracking.outbox import Outbox
        from pneumo.tracking.sent_outbox import SentOperation

        try:
            if isinstance(message, SentOperation):
                assert isinstance(task.outbox, Outbox)
                message.append_to(task.outbox)
            elif isinstance(message, SentCheckpoint) and task.checkpoint_path:
                _replace_file(Path(task.checkpoint_path), message.content)
        except OSError as error:
            if disk.is_full_disk(error):
                raise FullDiskError(disk.describe_full_disk(error)) from error
            raise


@contextmanager
def run_distant_trial(distant: DistantTask, channel: Channel) -> Iterator[TrialResult | FullDiskError]:
    """Run a trial as `run_trial` does, and send what it records and its checkpoints to the search.

    Args:
        distant: The trial.
        channel: The connection to the driver, a `SendingChannel`.

    Yields:
        What `run_trial` yields.
    """
    from pneumo.tracking.sent_outbox import SentOutbox
    from pneumo.training.trial import run_trial

    sending, data = cast(SendingChannel, channel), _get_once(distant.data)
    with tempfile.TemporaryDirectory(prefix="pneumo-trial-") as name:
        own, continued = Path(name, _OWN), Path(name, _CONTINUED)
        for path, content in ((own, distant.own), (continued, distant.continued)):
            if content is not None:
                path.write_bytes(content)
        task = replace(
            distant.task,
            data=data,
            outbox=SentOutbox(sending.send),
            checkpoint_path=str(own) if distant.task.checkpoint_path else None,
            continue_from=str(continued) if distant.task.continue_from else None,
        )
        courier = CheckpointCourier(own, lambda content: sending.send(SentCheckpoint(content), wait=True))
        with courier.running(), run_trial(task, channel) as result:
            courier.finish(with_last=distant.task.candidate.can_continue)
            yield result


class CheckpointCourier:
    """Sends a file whenever it was replaced, in a thread, so that sending takes a small share of the time.

    Args:
        path: The file. A file that is there already is not sent.
        send: Sends its contents, and returns when they have arrived.
    """

    def __init__(self, path: Path, send: Callable[[bytes], None]) -> None:
        self._path, self._send = path, send
        self._seen = self._version()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send in a thread while the context lasts."""
        self._thread.start()
        try:
            yield
        finally:
            self.finish(with_last=False)

    def finish(self, *, with_last: bool) -> None:
        """Wait for what is being sent, and end the thread. With `with_last`, the last version of the file is sent too."""
        self._ended.set()
        self._thread.join()
        if with_last:
            self._send_new()

    def _run(self) -> None:
        pause = LOOK_SECONDS
        while not self._ended.wait(pause):
            start = time.monotonic()
            is_sent = self._send_new()
            pause = max(LOOK_SECONDS, (time.monotonic() - start) / MAX_SEND_SHARE if is_sent else 0.0)

    def _send_new(self) -> bool:
        version = self._version()
        if version is None or version == self._seen:
            return False
        content = _read(str(self._path))
        if content is None:
            return False
        self._seen = version
        self._send(content)
        return True

    def _version(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


_prepared: dict[Any, Prepared] = {}
"""The pictures that this worker has got, by what got them. A worker trains on those of one study."""


def _get_once(data: Callable[[], Prepared]) -> Prepared:
    if data not in _prepared:
        _prepared.clear()
        _prepared[data] = data()
    return _prepared[data]


def _read(path: str | None) -> bytes | None:
    """Return the contents of a file, or None if there is none."""
    try:
        return Path(path).read_bytes() if path else None
    except FileNotFoundError:
        return None


def _replace_file(path: Path, content: bytes) -> None:
    """Replace a file by one that is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
