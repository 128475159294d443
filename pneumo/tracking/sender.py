"""The thread that delivers what an outbox holds, in order, and tries again as long as MLflow is away."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mlflow.exceptions import MlflowException

from pneumo.spec.errors import RequestError
from pneumo.spec.masking import mask_passwords
from pneumo.tracking.delivery import RefusedError, deliver
from pneumo.tracking.outbox import Outbox
from pneumo.tracking.store import Store

POLL = 0.2
"""Seconds after which what a worker has appended is seen."""

LONGEST_PAUSE = 5.0
"""Seconds between two attempts, after 0.5, 1, 2 and 4."""

FIRST_ANSWER = 1.0
"""Seconds to wait for the id of a new run; without it, the run goes by its key."""

HURRY = 3.0
"""Seconds that an interrupted search takes to send what is left."""

LONG = 3.0
"""Seconds after which who waits for what is being sent is told so."""

UPLOAD_TIMEOUT = 30
"""Seconds that a server has to answer after it got a file, which it may have to store elsewhere first."""

_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
_AT_ONCE = 100
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Away:
    """MLflow does not take what is sent: since when (`time.monotonic`), and why, in a line without passwords."""

    since: float
    reason: str


def check_same_store(outbox: Outbox, store: Store) -> None:
    """Raises `RequestError` where what the outbox holds is of runs that this MLflow does not know."""
    for operation in outbox.first(1):
        run_id = outbox.run_id(operation.run) or operation.arguments["tags"]["mlflow.parentRunId"]
        try:
            store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise RequestError(
                f"{outbox.path}: holds {outbox.left():,} writes for another MLflow than {store.shown}; set "
                f"MLFLOW_TRACKING_URI as it was, or take another --name, or delete that folder and what it holds"
            ) from None


class Sender:
    """A context: while it lasts, what is appended to the outbox is delivered. One at a time for an outbox.

    `say` takes a line when MLflow goes away and one when it is back, `complain` one of the first operation that MLflow
    refuses. Leaving does not wait: what has not been sent stays in the outbox.
    """

    def __init__(
        self, outbox: Outbox, store: Store, *, say: Callable[[str], None], complain: Callable[[str], None]
    ) -> None:
        self.away: Away | None = None
        self._outbox, self._store, self._say, self._complain = outbox, store, say, complain
        self._complained, self._hurried = False, 0.0
        self._stopped, self._wake, self._changed = threading.Event(), threading.Event(), threading.Condition()
        self._thread = threading.Thread(target=self._run, name="pneumo-sender", daemon=True)
        self._before = {name: os.environ[name] for name in (_RETRIES, _TIMEOUT)}

    def __enter__(self) -> Self:
        # MLflow's client reads both at each call. To try again is the work of this thread, not of the client.
        os.environ[_RETRIES] = "0"
        self._client = self._store.client
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()
        self._wake.set()
        self._thread.join(1.0)  # one that waits for a server ends with the process; nothing is lost by that
        os.environ.update(self._before)

    def run_id(self, run: str) -> str:
        """The id of a run in MLflow, where that answers at once; else the key that the run goes by."""
        self._wake.set()
        end = time.monotonic() + FIRST_ANSWER
        while True:
            found = self._outbox.run_id(run)
            left = end - time.monotonic()
            if found or self.away or left <= 0:
                return found or run
            with self._changed:
                self._changed.wait(min(left, POLL))

    def flush(
        self,
        patience: float,
        *,
        hurry: Callable[[], bool] = lambda: False,
        waiting: Callable[[Away | None], None] = lambda away: None,
    ) -> bool:
        """Waits until everything has arrived; False where MLflow is away for more than `patience` seconds from now on.

        From when `hurry` says so, it waits for no MLflow that is away, and `HURRY` seconds at most, in all calls together.
        `waiting` is called once where MLflow is away, and once, with None, where it takes long because there is much.
        """
        self._wake.set()
        began, told = time.monotonic(), set[bool]()
        while self._outbox.left():
            at, away, hurried = time.monotonic(), self.away, hurry()
            if not self._thread.is_alive() or (hurried and (away or self._hurried >= HURRY)):
                return False
            if away and at - max(away.since, began) >= patience:
                return False
            if (away or at - began >= LONG) and bool(away) not in told:
                told.add(bool(away))
                waiting(away)
            with self._changed:
                self._changed.wait(POLL)
            self._hurried += time.monotonic() - at if hurried else 0.0
        return True

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            self._wake.clear()
            try:
                sent = self._send_some()
            except Exception as error:  # MLflow's, its database's, a cloud's: whatever it is, it may pass
                self._note(_reason(error))
                failures += 1
                self._stopped.wait(min(0.25 * 2**failures, LONGEST_PAUSE))
                continue
            failures = 0
            if not sent:
                self._wake.wait(POLL)

    def _send_some(self) -> int:
        """Delivers what is next; how many operations that were."""
        operations = self._outbox.first(_AT_ONCE)
        for operation in operations:
            if self._stopped.is_set():
                break
            timeout = int(self._before[_TIMEOUT])
            os.environ[_TIMEOUT] = str(max(timeout, UPLOAD_TIMEOUT) if operation.folder else timeout)
            try:
                deliver(self._client, self._outbox, operation)
            except RefusedError as error:
                self._refused(_reason(error))
                self._outbox.refuse(operation, _reason(error))
            else:
                self._outbox.remove(operation)
            self._note(None)
        return len(operations)

    def _note(self, reason: str | None) -> None:
        if self._stopped.is_set():
            return  # nobody is there any more to be told
        if reason is not None and self.away is None:
            self.away = Away(time.monotonic(), reason)
            self._say(
                f"MLflow is away ({reason}); what belongs there waits in {self._outbox.path}, no trial waits for it"
            )
        elif reason is None and self.away is not None:
            self.away = None
            self._say("MLflow is back")
        with self._changed:
            self._changed.notify_all()

    def _refused(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            self._complain(
                f"MLflow refuses what belongs to a run: {reason}; it is kept in {self._outbox.path}, the rest goes on, and "
                "the next search of the study tries again"
            )


def _reason(error: Exception) -> str:
    """Why MLflow does not take something, in a line without passwords."""
    text = " ".join(mask_passwords(str(error) or type(error).__name__).split())
    if "timeout" in text or "timed out" in text:
        return "no answer in time"
    if "refused" in text and "Errno" in text:
        return "connection refused"
    if status := re.search(r"too many (\d{3}) error responses", text):
        return f"HTTP {status[1]}"
    return text.partition(" [SQL")[0][:_LONGEST_REASON]
