"""Who works on a study: one search at a time, whichever folder or machine it runs in.

The lock lies where the study lies: beside an SQLite database (and Keras Tuner's folder) a file that the operating system
locks, in PostgreSQL an advisory lock of one connection. Both go with the process that holds them, however it ends.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from multiprocessing import connection
from pathlib import Path
from typing import Any

import sqlalchemy
from filelock import FileLock, Timeout
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import SQLAlchemyError

from pneumo.engines.storage_url import parse_storage_url, storage_error
from pneumo.spec.errors import RequestError

PATIENCE = 1.0
"""Seconds that a search tries for a file that may be locked by who only looks whether it is."""

RETRY = 5.0
"""Seconds between two tries to hold a study again whose database was away."""

_KEPT_ALIVE = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
# So that the server, too, soon notices a machine that is gone; without effect on a socket of its own machine.
_SETTINGS = "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
_NAME_LENGTH = 63  # of a connection in PostgreSQL

_HOLDER = """
SELECT a.application_name, a.backend_start FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND (l.classid::bigint << 32) + l.objid::bigint = :key
"""


@contextmanager
def lock_study(name: str, storage: str) -> Iterator[None]:
    """Holds the study of this name in this storage.

    Raises `RequestError` where another process holds it, with who and where as far as that can be known, or where the
    storage cannot be used. A database of another kind than SQLite and PostgreSQL has no such lock. Where PostgreSQL was
    away and another search has taken the study up when it is back, this process is sent SIGTERM.
    """
    url = parse_storage_url(storage)
    with ExitStack() as held:
        try:
            if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
                held.enter_context(_file_lock(name, _file(name, url)))
            elif url.get_backend_name() == "postgresql":
                held.enter_context(_Advisory(name, url))
        except (SQLAlchemyError, OSError, ImportError) as error:
            raise storage_error(url, error) from None
        yield


def lock_owner(name: str, storage: str) -> str | None:
    """Who holds the study at this moment, as `hermes, process 4711, since 2026-11-24 06:30 UTC`; None where nobody does.

    Creates nothing. Raises `RequestError` where the storage cannot be read.
    """
    url = parse_storage_url(storage)
    try:
        if url.get_backend_name() == "sqlite" and url.database:
            path = _file(name, url)
            return _said(path) if path.exists() and not _free(path) else None
        if url.get_backend_name() == "postgresql":
            with _connected(url) as one:
                return _holder(one, name)
    except (SQLAlchemyError, OSError, ImportError) as error:
        raise storage_error(url, error) from None
    return None


def _taken(name: str, by: str) -> RequestError:
    return RequestError(f"study {name}: another search is at work on it ({by}); wait for it, or take another --name")


def _me() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"


def _file(name: str, url: URL) -> Path:
    database = Path(url.database or "")
    return database.parent / f".{database.name}.{name}.lock"


@contextmanager
def _file_lock(name: str, path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise _taken(name, _said(path)) from None
    try:
        path.write_text(f"{_me()}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", encoding="utf-8")
        yield
    finally:
        lock.release()


def _said(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8").split()) or "it does not say where"
    except (OSError, UnicodeDecodeError):
        return "it does not say where"


def _free(path: Path) -> bool:
    try:
        with FileLock(path).acquire(timeout=0):
            return True
    except Timeout:
        return False


def _key(name: str) -> int:
    """The advisory lock's number: 63 bits of the study's name."""
    return int.from_bytes(hashlib.sha256(f"pneumo.study {name}".encode()).digest()[:8], "big") >> 1


def _connected(url: URL) -> Connection:
    settings = _KEPT_ALIVE | {"connect_timeout": "10"}
    database = sqlalchemy.create_engine(
        url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT", connect_args=settings
    )
    return database.connect()


def _holder(one: Connection, name: str) -> str | None:
    row = one.execute(sqlalchemy.text(_HOLDER), {"key": _key(name)}).first()
    if row is None:
        return None
    # What belongs to another of the database's users is not shown.
    return f"{row[0] or 'it does not say where'}{f', since {row[1]:%Y-%m-%d %H:%M %Z}' if row[1] else ''}"


class _Advisory:
    """A lock of PostgreSQL's, and a thread that takes it again where its connection was lost.

    Raises `RequestError` where another holds it, SQLAlchemy's errors where the database cannot be reached.
    """

    def __init__(self, name: str, url: URL) -> None:
        self._name, self._url = name, url
        self._ended, (self._woken, self._wake) = threading.Event(), connection.Pipe(duplex=False)
        self._connection = self._taken()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._wake.send(None)
        self._thread.join()
        self._connection.close()

    def _taken(self) -> Connection:
        one = _connected(self._url)
        try:
            for setting in _SETTINGS.split("; "):
                one.exec_driver_sql(setting)
            called = sqlalchemy.text("SELECT set_config('application_name', :me, false)")
            one.execute(called, {"me": _me().encode()[:_NAME_LENGTH].decode(errors="ignore")})
            if not one.execute(
                sqlalchemy.text("SELECT pg_try_advisory_lock(:key)"), {"key": _key(self._name)}
            ).scalar():
                raise _taken(self._name, _holder(one, self._name) or "it does not say where")
        except BaseException:
            one.close()
            raise
        return one

    def _keep(self) -> None:
        while True:
            driver: Any = self._connection.connection.driver_connection
            # The server says nothing unasked, but that the connection ends.
            connection.wait([driver, self._woken])
            while not self._ended.is_set():
                try:
                    self._connection.exec_driver_sql("SELECT 1")
                    break
                except SQLAlchemyError:
                    self._connection.close()
                try:
                    self._connection = self._taken()
                except RequestError as error:
                    print(f"pneumo.search: {error}", file=sys.stderr)
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                except SQLAlchemyError:
                    self._ended.wait(RETRY)
            if self._ended.is_set():
                return
