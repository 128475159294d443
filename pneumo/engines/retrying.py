"""An engine that waits while its storage is unreachable, up to a limit."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import exc

from pneumo.engines.protocol import Engine
from pneumo.spec.candidate import Candidate, Done, SkipReason, Wait
from pneumo.spec.errors import TakenOverError
from pneumo.spec.result import Trial, TrialResult

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two attempts. The pause doubles after each attempt, up to the longest."""

SLOW = 60.0
"""Seconds without an answer after which the storage counts as unreachable. An algorithm may compute for many seconds."""

TICK = 0.1
"""Seconds after which a waiting call notices an interruption."""

GRACE = 0.5
"""Seconds that a call has to finish after an interruption."""

_UNREACHABLE = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, sqlite3.OperationalError, OSError)

T = TypeVar("T")


class OutageError(Exception):
    """The storage was unreachable for too long, or came back without a trial. The message says so in one line."""


class RetryingEngine:
    """An `Engine` that survives an outage of its storage.

    Calls go to the wrapped engine until one fails because the storage is unreachable. The engine is then opened again, so
    that nothing of the lost connection is reused. A call whose answer was lost may have been carried out. The reopened engine
    shows whether it was: a result that it has was told, and a candidate that is not under way here is proposed first.

    Each call runs in a thread, so that a call that hangs does not delay an interruption.

    Args:
        engine: The engine to call.
        reopen: Opens the engine again. While the storage is unreachable, it raises an error for which `is_unreachable` is
            true.
        where: The storage as part of a sentence, without a password.
        outage: Longest time to wait for the storage in seconds.
        say: Called with one line when the storage becomes unreachable, and with another when it is back.
        interrupted: Returns whether the user has interrupted the search.
        lost: Returns the numbers of trials that another search has taken over.

    Raises:
        TakenOverError: By `tell`, if another search has taken over the trial.
        OutageError: By every call, if the storage is unreachable for `outage` seconds.
        KeyboardInterrupt: By every call, if `interrupted` returns True while the call waits.
    """

    def __init__(
        self,
        engine: Engine,
        reopen: Callable[[], Engine],
        where: str,
        outage: float,
        say: Callable[[str], None],
        interrupted: Callable[[], bool] = lambda: False,
        lost: Callable[[], Collection[int]] = tuple,
    ) -> None:
        self.id, self._lost = engine.id, lost
        self._interrupted = interrupted
        self._engine: Engine | None = engine
        self._reopen, self._where, self._outage, self._say = reopen, where, outage, say
        self._under_way: set[int] = set()

    def learn(self, trials: Sequence[Trial]) -> None:
        self._call(lambda engine: engine.learn(trials))

    def ask(self) -> Candidate | Wait | Done:
        proposal = self._call(lambda engine: engine.ask())
        if isinstance(proposal, Candidate):
            self._under_way.add(proposal.number)
        return proposal

    def report(self, number: int, epoch: int, value: float) -> bool:
        return self._call(lambda engine: engine.report(number, epoch, value))

    def tell(self, result: TrialResult) -> None:
        is_retry = False
        result_json = result.to_json()  # compared as text, in which NaN equals NaN

        def tell(engine: Engine) -> None:
            nonlocal is_retry
            if is_retry and any(trial.result.to_json() == result_json for trial in engine.trials()):
                return  # the result was stored and only the answer was lost
            is_retry = True
            engine.tell(result)

        try:
            self._call(tell)
        except TakenOverError:
            self._under_way.discard(result.number)
            raise
        self._under_way.discard(result.number)

    def trials(self) -> tuple[Trial, ...]:
        return self._call(lambda engine: engine.trials())

    def skipped(self) -> Counter[SkipReason]:
        return self._call(lambda engine: engine.skipped())

    def _call(self, operation: Callable[[Engine], T]) -> T:
        attempts = _Attempts(self._where, self._outage, self._say, self._interrupted)
        pause = FIRST_PAUSE
        while True:
            try:
                answer = attempts.run(lambda: operation(self._opened_engine()))
            except Exception as error:
                if not is_unreachable(error):
                    raise
                self._engine = None
                attempts.pause(pause, error)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                attempts.end()
                return answer

    def _opened_engine(self) -> Engine:
        """Return the engine. After an outage, open it again and ask it for the candidates that are under way."""
        if self._engine is None:
            engine = self._reopen()
            expected = self._under_way - {trial.number for trial in engine.trials()} - set(self._lost())
            while expected:
                # Candidates without a result are proposed first, ordered by number. Those under way here come before one
                # that was proposed by a call whose answer was lost.
                proposal = engine.ask()
                if not isinstance(proposal, Candidate) or proposal.number not in expected:
                    raise OutageError(f"{self._where} came back without trial {min(expected)}, which is under way")
                expected.discard(proposal.number)
            self._engine = engine
        return self._engine


class _Attempts:
    """The attempts of one call: how long they may take, and what the user was told about them."""

    def __init__(self, where: str, outage: float, say: Callable[[str], None], interrupted: Callable[[], bool]) -> None:
        self._where, self._outage, self._say, self._interrupted = where, outage, say, interrupted
        self._started = time.monotonic()
        self._announced = False  # whether the user was told that the storage is unreachable

    def run(self, call: Callable[[], T]) -> T:
        """Return the result of a call, or raise its error. A call that hangs leaves its thread behind."""
        results: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def run_in_thread() -> None:
            try:
                results.put((call(), None))
            except BaseException as error:
                results.put((None, error))

        started, deadline = time.monotonic(), None
        threading.Thread(target=run_in_thread, daemon=True).start()
        while True:
            try:
                result, error = results.get(timeout=TICK)
            except queue.Empty:
                now = time.monotonic()
                if deadline is None and self._interrupted():
                    deadline = now + GRACE
                if deadline is not None and now >= deadline:
                    raise KeyboardInterrupt from None
                if now - started >= SLOW:
                    self._announce("no answer")
                if self._announced:
                    self._check_outage("no answer", None)
                continue
            if error is not None:
                raise error
            return result  # type: ignore[return-value]  # without an error, it is the result of the call

    def pause(self, seconds: float, error: Exception) -> None:
        """Wait before the next attempt."""
        self._announce(unreachable_reason(error))
        until = time.monotonic() + seconds
        while (remaining := until - time.monotonic()) > 0:
            if self._interrupted():
                raise KeyboardInterrupt
            self._check_outage(unreachable_reason(error), error)
            time.sleep(min(TICK, remaining))

    def end(self) -> None:
        """Tell the user that the storage is back, if the user was told that it was unreachable."""
        if self._announced:
            self._say(f"It is back after {time.monotonic() - self._started:.0f} s; continuing.")

    def _announce(self, reason: str) -> None:
        if not self._announced:
            self._announced = True
            remaining = self._outage - (time.monotonic() - self._started)
            until = datetime.now() + timedelta(seconds=max(0.0, remaining))
            self._say(
                f"Waiting for {self._where}, which is unreachable ({reason}), until {until:%H:%M:%S} "
                f"(search.outage: {self._outage:g} s)."
            )

    def _check_outage(self, reason: str, error: Exception | None) -> None:
        if time.monotonic() - self._started >= self._outage:
            raise OutageError(
                f"{self._where} was unreachable for {self._outage:g} s (search.outage): {reason}; all earlier results are "
                "stored"
            ) from error


def is_unreachable(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, means that a storage is unreachable rather than a call wrong."""
    return _find_unreachable(error) is not None


def unreachable_reason(error: BaseException) -> str:
    """Return what an unreachable storage reported, in one line."""
    cause = _find_unreachable(error) or error
    if isinstance(cause, exc.DBAPIError):
        cause = cause.orig or cause
    message = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return (message.strip().splitlines() or [type(cause).__name__])[0]


def _find_unreachable(error: BaseException) -> BaseException | None:
    """Return the first error in the chain of causes that means that a storage is unreachable."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _UNREACHABLE):
            return cause
        if isinstance(cause, exc.DBAPIError) and cause.connection_invalidated:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
