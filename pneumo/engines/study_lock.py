"""The lock of a study, which lets one search at a time work on it, in whichever folder or on whichever machine it runs.

The lock is stored with the study. Beside an SQLite database (and Keras Tuner's folder) it is a file that the operating
system locks. In PostgreSQL it is an advisory lock of a connection. In both cases the lock is released when the process that
holds it ends, for whatever reason. Searches that share a study hold the lock together (see `shared_study`).
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
from pneumo.spec.databases import sqlite_file
from pneumo.spec.errors import RequestError

ACQUIRE_TIMEOUT = 1.0
"""Seconds to try for a lock file. `lock_owner` of another process holds it for an instant when it tests the lock."""

RETRY_PAUSE = 5.0
"""Seconds between two attempts to lock a study again after its database was unreachable."""

CONNECTION = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
"""Options of the client's connections to PostgreSQL, with which it notices a server that is gone, in seconds."""

SERVER_KEEPALIVE = sqlalchemy.text(
    "SELECT set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false), "
    "set_config('tcp_keepalives_count', '3', false)"
)
"""The same for the server, so that it soon notices a machine that is gone. It has no effect on a local socket."""

_NAME_LENGTH = 63
"""Largest length of a connection's name in PostgreSQL, in bytes."""

_UNKNOWN_OWNER = "it does not say where"

_TRY_LOCK = {
    False: sqlalchemy.text("SELECT pg_try_advisory_lock(:key)"),
    True: sqlalchemy.text("SELECT pg_try_advisory_lock_shared(:key)"),
}
"""The query that tries to get a study's lock, alone (False) or shared (True)."""

_OWNER_QUERY = """
SELECT DISTINCT a.application_name, a.backend_start FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND (l.classid::bigint << 32) + l.objid::bigint = :key AND l.pid <> pg_backend_pid() ORDER BY a.backend_start
"""


@contextmanager
def lock_study(name: str, storage: str) -> Iterator[None]:
    """Hold the lock of a study during the `with` block.

    Databases other than SQLite and PostgreSQL have no lock. If PostgreSQL was unreachable and another search has locked the
    study in the meantime, this process gets SIGTERM.

    Args:
        name: Name of the study.
        storage: Database URL.

    Raises:
        RequestError: Another process holds the lock, or the storage cannot be used. The message names the owner and its
            machine if they are known.
    """
    url = parse_storage_url(storage)
    with ExitStack() as stack:
        try:
            if file := sqlite_file(url):
                stack.enter_context(_lock_file(name, _lock_path(name, file)))
            elif url.get_backend_name() == "postgresql":
                stack.enter_context(AdvisoryLock(name, url))
        except (SQLAlchemyError, OSError, ImportError) as error:
            raise storage_error(url, error) from None
        yield


def lock_owner(name: str, storage: str) -> str | None:
    """Return who holds the lock of a study, as `hermes, process 4711, since 2026-11-24 06:30 UTC`; None if nobody does.

    If several searches share the study, all of them are named. Nothing is created.

    Raises:
        RequestError: The storage cannot be read.
    """
    url = parse_storage_url(storage)
    try:
        if file := sqlite_file(url):
            path = _lock_path(name, file)
            return _read_owner(path) if path.exists() and not _is_free(path) else None
        if url.get_backend_name() == "postgresql":
            with _connect(url) as database:
                return _query_owner(database, name)
    except (SQLAlchemyError, OSError, ImportError) as error:
        raise storage_error(url, error) from None
    return None


def _lock_refused(name: str, owner: str) -> RequestError:
    return RequestError(f"study {name}: another search is at work on it ({owner}); wait for it, or use another --name")


def _this_process() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"


def _lock_path(name: str, database: Path) -> Path:
    return database.parent / f".{database.name}.{name}.lock"


@contextmanager
def _lock_file(name: str, path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=ACQUIRE_TIMEOUT)
    except Timeout:
        raise _lock_refused(name, _read_owner(path)) from None
    try:
        path.write_text(f"{_this_process()}, since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", encoding="utf-8")
        yield
    finally:
        lock.release()


def _read_owner(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8").split()) or _UNKNOWN_OWNER
    except (OSError, UnicodeDecodeError):
        return _UNKNOWN_OWNER


def _is_free(path: Path) -> bool:
    try:
        with FileLock(path).acquire(timeout=0):
            return True
    except Timeout:
        return False


def lock_key(name: str, of: str = "study") -> int:
    """Return the number of an advisory lock of a study: 63 bits of the hash of what it is `of` and of the study's name."""
    return int.from_bytes(hashlib.sha256(f"pneumo.{of} {name}".encode()).digest()[:8], "big") >> 1


def _connect(url: URL) -> Connection:
    engine = sqlalchemy.create_engine(
        url,
        poolclass=sqlalchemy.NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args=CONNECTION,
    )
    return engine.connect()


def _query_owner(database: Connection, name: str) -> str | None:
    """Return the other connections that hold the lock, or None."""
    rows = database.execute(sqlalchemy.text(_OWNER_QUERY), {"key": lock_key(name)}).all()
    # PostgreSQL hides the columns of connections that belong to another database user.
    owners = (f"{row[0] or _UNKNOWN_OWNER}{f', since {row[1]:%Y-%m-%d %H:%M %Z}' if row[1] else ''}" for row in rows)
    return "; ".join(owners) or None


class AdvisoryLock:
    """An advisory lock of PostgreSQL, with a thread that acquires it again if its connection is lost.

    Args:
        name: Name of the study.
        url: The database.
        shared: Whether other processes may hold the lock too, if they share it as well.

    Raises:
        RequestError: Another process holds the lock.
        SQLAlchemyError: The database cannot be reached.
    """

    def __init__(self, name: str, url: URL, *, shared: bool = False) -> None:
        self._name, self._url, self._shared = name, url, shared
        self._released = threading.Event()
        self._using = threading.Lock()
        self._wake_receiver, self._wake_sender = connection.Pipe(duplex=False)
        self._connection = self._acquire()
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self._thread.start()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock. A second call has no effect."""
        if self._released.is_set():
            return
        self._released.set()
        self._wake_sender.send(None)
        self._thread.join()
        self._connection.close()

    def other_owners(self) -> str | None:
        """Return who else holds the lock; None if nobody does. Raises `SQLAlchemyError` if the database does not answer."""
        with self._using:
            return _query_owner(self._connection, self._name)

    def hold_alone(self) -> bool:
        """Hold the lock alone from now on, if nobody else holds it. Return whether it is so."""
        with self._using:
            is_alone = bool(self._connection.execute(_TRY_LOCK[False], {"key": lock_key(self._name)}).scalar())
            if is_alone:
                self._shared = False
        return is_alone

    def _acquire(self) -> Connection:
        """Return a new connection that holds the lock."""
        database = _connect(self._url)
        try:
            database.execute(SERVER_KEEPALIVE)
            owner = _this_process().encode()[:_NAME_LENGTH].decode(errors="ignore")
            database.execute(sqlalchemy.text("SELECT set_config('application_name', :owner, false)"), {"owner": owner})
            if not database.execute(_TRY_LOCK[self._shared], {"key": lock_key(self._name)}).scalar():
                raise _lock_refused(self._name, _query_owner(database, self._name) or _UNKNOWN_OWNER)
        except BaseException:
            database.close()
            raise
        return database

    def _hold(self) -> None:
        """Wait until the lock is released. Meanwhile, acquire it again whenever its connection is lost."""
        while True:
            driver: Any = self._connection.connection.driver_connection
            # The server sends nothing by itself, so the connection becomes readable only when it ends.
            connection.wait([driver, self._wake_receiver])
            while not self._released.is_set():
                with self._using:  # else this would answer to another thread's query
                    try:
                        self._connection.exec_driver_sql("SELECT 1")
                        break
                    except SQLAlchemyError:
                        self._connection.close()
                try:
                    self._connection = self._acquire()
                except RequestError as error:
                    print(f"pneumo.search: {error}", file=sys.stderr)
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                except SQLAlchemyError:
                    self._released.wait(RETRY_PAUSE)
            if self._released.is_set():
                return
