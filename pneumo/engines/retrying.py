"""An engine whose storage may go away: what is asked of it waits until the storage is back, or until it has waited enough."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import exc

from pneumo.engines.protocol import Engine
from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.result import Trial, TrialResult

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two attempts: twice as many each time."""

SLOW = 60.0
"""Seconds without an answer after which the storage counts as away: an algorithm may have to think for some."""

TICK = 0.1
"""Seconds after which an interruption is noticed, where one is waited for."""

GRACE = 0.5
"""Seconds that a call has to come to its end at an interruption."""

_AWAY = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, sqlite3.OperationalError, OSError)

T = TypeVar("T")


class OutageError(Exception):
    """The storage was away for too long, or came back as another; the message says so in one line."""


class RetryingEngine:
    """An `Engine` that outlives an outage of its storage.

    `engine` is what it calls, until a call fails since the storage is away. Then `again` opens it anew, and raises such an
    error itself as long as the storage is away: nothing of a connection that was lost is used any more. A call whose answer
    was lost may have been carried out. Opened again, an engine says so: a trial that it holds as told was told, and one that
    was asked and is not under way here is proposed first.

    Each call runs in a thread, so that one that hangs does not hold up an interruption, which `interrupted` tells
    of. It raises `OutageError` after `outage` seconds, and `KeyboardInterrupt` where it is interrupted meanwhile.
    `where` names the storage, without a password, to whom `say` says a line when it goes away and one when it is back.
    """

    def __init__(
        self,
        engine: Engine,
        again: Callable[[], Engine],
        where: str,
        outage: float,
        say: Callable[[str], None],
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.id = engine.id
        self._interrupted = interrupted
        self._engine: Engine | None = engine
        self._again, self._where, self._outage, self._say = again, where, outage, say
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
        lost, told = False, result.to_json()  # text: what is not a number equals itself there

        def tell(engine: Engine) -> None:
            nonlocal lost
            if lost and any(trial.result.to_json() == told for trial in engine.trials()):
                return  # only the answer was lost
            lost = True
            engine.tell(result)

        self._call(tell)
        self._under_way.discard(result.number)

    def trials(self) -> tuple[Trial, ...]:
        return self._call(lambda engine: engine.trials())

    def _call(self, operation: Callable[[Engine], T]) -> T:
        wait = _Waiting(self._where, self._outage, self._say, self._interrupted)
        pause = FIRST_PAUSE
        while True:
            try:
                answer = wait.answer(lambda: operation(self._opened()))
            except Exception as error:
                if not away(error):
                    raise
                self._engine = None
                wait.pause(pause, error)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                wait.over()
                return answer

    def _opened(self) -> Engine:
        """The engine, which after an outage is opened again and asked for what is under way."""
        if self._engine is None:
            engine = self._again()
            left = self._under_way - {trial.number for trial in engine.trials()}
            while left:
                # What was asked and not told is proposed first, in the order of the numbers: those of ours are the first.
                proposal = engine.ask()
                if not isinstance(proposal, Candidate) or proposal.number not in left:
                    raise OutageError(f"{self._where} came back without trial {min(left)}, which is under way")
                left.discard(proposal.number)
            self._engine = engine
        return self._engine


class _Waiting:
    """One call and its attempts: until when they may last, and what was said of it."""

    def __init__(self, where: str, outage: float, say: Callable[[str], None], interrupted: Callable[[], bool]) -> None:
        self._where, self._outage, self._say, self._interrupted = where, outage, say, interrupted
        self._began = time.monotonic()
        self._said = False

    def answer(self, call: Callable[[], T]) -> T:
        """What the call gives, or raises. It may hang: then its thread is left behind."""
        answered: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def answer() -> None:
            try:
                answered.put((call(), None))
            except BaseException as error:
                answered.put((None, error))

        began, stop = time.monotonic(), None
        threading.Thread(target=answer, daemon=True).start()
        while True:
            try:
                answer_, error = answered.get(timeout=TICK)
            except queue.Empty:
                now = time.monotonic()
                if stop is None and self._interrupted():
                    stop = now + GRACE
                if stop is not None and now >= stop:
                    raise KeyboardInterrupt from None
                if now - began >= SLOW:
                    self._waits("no answer")
                if self._said:
                    self._check("no answer", None)
                continue
            if error is not None:
                raise error
            return answer_  # type: ignore[return-value]  # the call's own, where it raised nothing

    def pause(self, seconds: float, error: Exception) -> None:
        """Waits before the next attempt."""
        self._waits(reason(error))
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._interrupted():
                raise KeyboardInterrupt
            self._check(reason(error), error)
            time.sleep(min(TICK, left))

    def over(self) -> None:
        if self._said:
            self._say(f"It is back after {time.monotonic() - self._began:.0f} s; going on.")

    def _waits(self, why: str) -> None:
        if not self._said:
            self._said = True
            left = self._outage - (time.monotonic() - self._began)
            until = datetime.now() + timedelta(seconds=max(0.0, left))
            self._say(
                f"Waiting for {self._where}, which is away ({why}), until {until:%H:%M:%S} "
                f"(search.outage: {self._outage:g} s)."
            )

    def _check(self, why: str, error: Exception | None) -> None:
        if time.monotonic() - self._began >= self._outage:
            raise OutageError(
                f"{self._where} was away for {self._outage:g} s (search.outage): {why}; all up to then is kept"
            ) from error


def away(error: BaseException) -> bool:
    """Whether an error, or one that it came of, says that a storage is not there, and not that a call was wrong."""
    return _first_away(error) is not None


def reason(error: BaseException) -> str:
    """What a storage that is away said, in one line."""
    found = _first_away(error) or error
    if isinstance(found, exc.DBAPIError):
        found = found.orig or found
    said = found.strerror if isinstance(found, OSError) and found.strerror else str(found)
    return (said.strip().splitlines() or [type(found).__name__])[0]


def _first_away(error: BaseException) -> BaseException | None:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, _AWAY):
            return found
        if isinstance(found, exc.DBAPIError) and found.connection_invalidated:
            return found
        found = found.__cause__ or found.__context__
    return None
