"""The thread that sends an outbox to MLflow, in order, and tries again while MLflow is away."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Self

from mlflow.exceptions import MlflowException

from pneumo.spec.errors import RequestError
from pneumo.spec.names import Tags
from pneumo.tracking.delivery import Attempts, RefusedError, deliver
from pneumo.tracking.failures import failure_reason
from pneumo.tracking.joining import join, joined
from pneumo.tracking.operations import PLOT_VALUES, CreateRun
from pneumo.tracking.outbox import Outbox, QueuedOperation
from pneumo.tracking.store import Store

POLL = 0.2
"""Seconds between two looks at the outbox, to which workers append."""

LONGEST_PAUSE = 5.0
"""Largest number of seconds between two attempts, reached after pauses of 0.5, 1, 2 and 4 seconds."""

RUN_ID_TIMEOUT = 1.0
"""Seconds to wait for the id of a new run. Without an answer, the run goes by its key."""

INTERRUPTED_TIMEOUT = 3.0
"""Seconds that an interrupted search may spend on sending, in all calls of `flush` together."""

PROGRESS_AFTER = 3.0
"""Seconds to wait before the first progress message while flushing."""

UPLOAD_TIMEOUT = 30
"""Least number of seconds for a server's answer to an upload. It may have to store the file elsewhere first."""

_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
_BATCH = 500
"""Most operations that are read from the outbox at once, and so the most that can be joined."""

MOST_AHEAD = 200
"""Operations in the outbox beyond which nobody waits for the id of a new run. It would take long, and a worker is idle."""


Draw = Callable[[bytes], Mapping[str, bytes]]
"""Returns plots as PNG by their path in the run, given the values to draw them from."""


def _draws_nothing(values: bytes) -> Mapping[str, bytes]:
    raise ValueError("this sender draws no plots")


@dataclass(frozen=True)
class Outage:
    """A time in which MLflow accepts nothing.

    Attributes:
        since: When it began, by `time.monotonic`.
        reason: Why, in one line without passwords.
    """

    since: float
    reason: str


def check_same_store(outbox: Outbox, store: Store) -> None:
    """Raise `RequestError` if the outbox's operations belong to runs that this MLflow does not have."""
    for queued in outbox.first(1):
        run_id = outbox.run_id(queued.run)
        if run_id is None and isinstance(queued.operation, CreateRun):
            run_id = queued.operation.tags.get(Tags.PARENT)
        if run_id is None:
            return
        try:
            store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise RequestError(
                f"{outbox.path}: has {outbox.remaining():,} writes for another MLflow than {store.display_uri}; set "
                f"MLFLOW_TRACKING_URI as it was, or take another --name, or delete that folder and its contents"
            ) from None


class Sender:
    """A context in which the operations of an outbox are delivered by a thread. An outbox has one sender at a time.

    Writes into one run that follow each other are joined. The order within each run is that of the outbox.

    A second thread draws plots. The operations of a run that follow its plots wait until these are drawn; those of other
    runs do not. Leaving the context waits for plots that are being drawn, and for nothing else: operations that were not sent
    remain in the outbox.

    Args:
        outbox: The outbox.
        store: The MLflow to send to.
        say: Called with a line when MLflow goes away, and with another when it is back.
        complain: Called with a line for the first operation that MLflow refuses, or whose plots cannot be drawn.
        draw: Returns plots by their path in the run, given the values that a worker logged (`TrialLog.plots`).
    """

    def __init__(
        self,
        outbox: Outbox,
        store: Store,
        *,
        say: Callable[[str], None],
        complain: Callable[[str], None],
        draw: Draw = _draws_nothing,
    ) -> None:
        self.outage: Outage | None = None
        self._outbox, self._store, self._say, self._complain = outbox, store, say, complain
        self._draw, self._has_complained = draw, False
        self._interrupted_seconds = 0.0
        self._stopped, self._wake, self._changed = threading.Event(), threading.Event(), threading.Condition()
        self._thread = threading.Thread(target=self._run, name="pneumo-sender", daemon=True)
        # No daemon: a thread that ends with the process within Matplotlib's C++ code ends the process by SIGABRT.
        self._drawing_thread = threading.Thread(target=self._run_drawing, name="pneumo-drawing")
        self._environment = {name: os.environ[name] for name in (_RETRIES, _TIMEOUT)}

    def __enter__(self) -> Self:
        # MLflow's client reads both variables at each call. This thread tries again, so the client must not.
        os.environ[_RETRIES] = "0"
        self._client, self._attempts = self._store.client, Attempts(self._outbox.last_number())
        self._thread.start()
        self._drawing_thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()
        self._wake.set()
        self._thread.join(1.0)  # A thread that waits for a server ends with the process, and nothing is lost.
        self._drawing_thread.join()
        os.environ.update(self._environment)

    def run_id(self, run: str) -> str:
        """Return the run's id in MLflow if MLflow answers at once, else its key."""
        self._wake.set()
        end = time.monotonic() + (0 if self._outbox.has_more_than(MOST_AHEAD) else RUN_ID_TIMEOUT)
        while True:
            run_id = self._outbox.run_id(run)
            seconds = end - time.monotonic()
            if run_id or self.outage or seconds <= 0:
                return run_id or run
            with self._changed:
                self._changed.wait(min(seconds, POLL))

    def flush(
        self,
        patience: float,
        *,
        interrupted: Callable[[], bool] = lambda: False,
        show_progress: Callable[[Outage | None], None] = lambda outage: None,
    ) -> bool:
        """Wait until all operations have arrived.

        Args:
            patience: Seconds to wait for an MLflow that is away, from now on.
            interrupted: Whether the search was interrupted. If so, `flush` does not wait for an MLflow that is away, nor
                longer than `INTERRUPTED_TIMEOUT`.
            show_progress: Called once with the outage if MLflow is away, and once with None if sending takes long.

        Returns:
            Whether all operations have arrived.
        """
        self._wake.set()
        began, shown = time.monotonic(), set[bool]()
        while self._outbox.remaining():
            at, outage, is_interrupted = time.monotonic(), self.outage, interrupted()
            if not self._thread.is_alive():
                return False
            if is_interrupted and (outage or self._interrupted_seconds >= INTERRUPTED_TIMEOUT):
                return False
            if outage and at - max(outage.since, began) >= patience:
                return False
            if (outage or at - began >= PROGRESS_AFTER) and bool(outage) not in shown:
                shown.add(bool(outage))
                show_progress(outage)
            with self._changed:
                self._changed.wait(POLL)
            self._interrupted_seconds += time.monotonic() - at if is_interrupted else 0.0
        return True

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            self._wake.clear()
            try:
                sent = self._send_batch()
            except Exception as error:  # of MLflow, its database or a cloud's storage; any of them may be temporary
                self._set_outage(failure_reason(error))
                failures += 1
                self._stopped.wait(min(0.25 * 2**failures, LONGEST_PAUSE))
                continue
            failures = 0
            if not sent:
                self._wake.wait(POLL)

    def _run_drawing(self) -> None:
        while not self._stopped.is_set():
            try:
                drawn = self._draw_next()
            except OSError as error:  # of the disk, which may be full
                self._set_outage(failure_reason(error))
                drawn = False
            if drawn:
                self._wake.set()
            else:
                self._stopped.wait(POLL)

    def _draw_next(self) -> bool:
        """Draw the next plots and return whether there were any. Raise `OSError` if the disk cannot be read or written."""
        if (queued := self._outbox.first_to_draw()) is None:
            return False
        assert queued.folder is not None
        values = (queued.folder / PLOT_VALUES).read_bytes()
        try:
            plots = self._draw(values)
        except Exception as error:  # A plot is not worth a search.
            reason = f"{type(error).__name__}: {error}"
            self._report_refusal(f"The plots of a trial cannot be drawn: {reason}")
            self._outbox.refuse(queued, reason)
        else:
            self._outbox.store_drawn(queued, plots)
        return True

    def _send_batch(self) -> int:
        """Deliver the next operations and return their number."""
        groups = join(self._outbox.first(_BATCH), cache(lambda run: self._outbox.run_id(run) or run))
        for group in groups:
            if self._stopped.is_set():
                break
            timeout = int(self._environment[_TIMEOUT])
            os.environ[_TIMEOUT] = str(max(timeout, UPLOAD_TIMEOUT) if group[0].folder else timeout)
            self._send(group)
            self._set_outage(None)
        return len(groups)

    def _send(self, group: list[QueuedOperation]) -> None:
        """Deliver operations in one call. If MLflow refuses it, deliver each, so that only what is wrong is refused."""
        try:
            deliver(self._client, self._outbox, joined(group), self._attempts)
        except RefusedError as error:
            if len(group) > 1:
                for queued in group:
                    self._send([queued])
                return
            reason = failure_reason(error)
            self._report_refusal(f"MLflow refuses a write: {reason}")
            self._outbox.refuse(group[0], reason)
        else:
            self._outbox.remove(*group)

    def _set_outage(self, reason: str | None) -> None:
        if self._stopped.is_set():
            return  # The context was left: its owner expects no more calls.
        if reason is not None and self.outage is None:
            self.outage = Outage(time.monotonic(), reason)
            self._say(f"MLflow is away ({reason}). Writes are kept in {self._outbox.path}; no trial waits for it.")
        elif reason is None and self.outage is not None:
            self.outage = None
            self._say("MLflow is back")
        with self._changed:
            self._changed.notify_all()

    def _report_refusal(self, what: str) -> None:
        if not self._has_complained:
            self._has_complained = True
            self._complain(
                f"{what}. It is kept in {self._outbox.path}, the other writes are sent, and the "
                "next search of the study tries it again"
            )
