"""One search among several that share a study: who else is there, whose turn it is, which one is the last to leave.

All of it is kept by PostgreSQL, so that nothing is left of a search that was killed:

- Each search holds the study's lock, shared with the others, from its start to its end. A search that does not share gets the
  lock only if nobody holds it.
- What changes the study (a proposal, a result) is done in turns. A turn is a transaction that holds a second lock.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from pneumo.engines.storage_url import parse_storage_url, storage_error
from pneumo.engines.study_lock import CONNECTION, SERVER_KEEPALIVE, AdvisoryLock, lock_key
from pneumo.spec.errors import RequestError

LONGEST_TURN = 120
"""Seconds after which PostgreSQL ends the turn of a search that does nothing any more, because its machine is suspended."""


_BEGIN_TURN = sqlalchemy.text(
    "SELECT set_config('idle_in_transaction_session_timeout', :limit, true), pg_advisory_xact_lock(:key)"
)


class Driver:
    """This search among those that share a study.

    Attributes:
        id: Random id of this search. The trials that it has under way carry it.
        takeover: Seconds without a sign of life after which others take over the trials of this search.
        is_first: Whether nobody else was at work on the study when this search began.
        under_way: Numbers of the trials that this search has under way.
        lost: Numbers of those of them that others have taken over.
    """

    def __init__(self, name: str, url: URL, takeover: float) -> None:
        self.id, self.takeover = uuid.uuid4().hex, takeover
        self.under_way, self.lost = set[int](), set[int]()
        self._stop_heart: Callable[[], None] = lambda: None
        self._began_at = time.monotonic()
        self._name = name
        # No limit of connections: a call that hangs during an outage may still have one.
        self._database = sqlalchemy.create_engine(
            url, connect_args=CONNECTION, pool_size=1, max_overflow=-1, pool_pre_ping=True
        )
        with self.turn():
            self._lock = AdvisoryLock(name, url, shared=True)
            self.is_first = self._lock.other_owners() is None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the turn during the `with` block, after those who had it before.

        Raises:
            SQLAlchemyError: The database does not answer; or, on leaving, it has ended the turn in the meantime.
        """
        with self._database.begin() as database:
            database.execute(SERVER_KEEPALIVE)
            database.execute(_BEGIN_TURN, {"limit": f"{LONGEST_TURN}s", "key": lock_key(self._name, "turn")})
            yield

    @property
    def elapsed(self) -> float:
        """Seconds for which searches have been at work on the study without a break."""
        return time.monotonic() - self._began_at

    def note_elapsed(self, seconds: float) -> None:
        """Take note for how long searches have been at work on the study without a break."""
        self._began_at = time.monotonic() - max(0.0, seconds)

    def replace_heart(self, stop: Callable[[], None]) -> None:
        """Stop the thread that has sent heartbeats so far. `stop` stops the one that sends them from now on."""
        self._stop_heart()
        self._stop_heart = stop

    def others(self) -> str | None:
        """Return which other searches are at work on the study, with their machines; None if there are none."""
        return self._lock.other_owners()

    def leave(self) -> str | None:
        """Leave the study if others are at work on it, and return which.

        None if this search is the last one. It stays, and keeps others out from now on, so that it can close the study.
        """
        with self.turn():
            while not self._lock.hold_alone():
                if others := self._lock.other_owners():
                    self.end()
                    return others
        return None

    def end(self) -> None:
        """Leave the study. A second call has no effect."""
        self._stop_heart()
        self._lock.release()
        self._database.dispose()


def check_can_be_shared(storage: str) -> URL:
    """Return the database at a URL. Raise `RequestError` if searches cannot share a study in it."""
    url = parse_storage_url(storage)
    if url.get_backend_name() != "postgresql":
        raise RequestError(
            "--storage: searches share a study (search.shared) in PostgreSQL only; give --storage "
            "postgresql+psycopg://USER@HOST/DATABASE, or leave search.shared out"
        )
    return url


@contextmanager
def join_study(name: str, storage: str, takeover: float) -> Iterator[Driver]:
    """Work on a study together with others during the `with` block.

    Args:
        name: Name of the study.
        storage: URL of a PostgreSQL database.
        takeover: Seconds without a sign of life after which others take over the trials of this search.

    Raises:
        RequestError: The storage is no PostgreSQL or cannot be used, or a search that does not share the study, or that is
            closing it, is at work on it.
    """
    url = check_can_be_shared(storage)
    try:
        driver = Driver(name, url, takeover)
    except (SQLAlchemyError, OSError, ImportError) as error:
        raise storage_error(url, error) from None
    try:
        yield driver
    finally:
        driver.end()
