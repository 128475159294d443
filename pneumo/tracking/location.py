"""Correct the addresses of artifacts in a local store whose folder was copied, renamed, moved or mounted elsewhere.

MLflow's SQLite store has the absolute path of every artifact. In a copy of the folder these are the paths of the original:
MLflow would read, write and delete there. So they are compared with the place of the database whenever it is opened.

The addresses have the form `ROOT/EXPERIMENT/RUN/artifacts` and `ROOT/EXPERIMENT/models/MODEL/artifacts`. The ids are random,
so a folder with such a name below the store's own folder is this store's, wherever the address says that it is.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.utils.file_utils import local_file_uri_to_path

from pneumo.spec.errors import RequestError

_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
    ("trace_tags", "value"),
)
"""Every column of MLflow's database with addresses of artifacts."""

_TIMEOUT = 5
"""Seconds to wait for other processes that use the store."""

_held: dict[tuple[int, int], int] = {}
"""File descriptors of the folders whose stores this process uses, by device and inode."""


@dataclass(frozen=True)
class Move:
    """A root of artifacts that is not where the addresses say.

    Attributes:
        address: The root in the addresses.
        folder: Where it is.
        missing: The number of folders of artifacts that the addresses have and that are not there.
    """

    address: str
    folder: Path
    missing: int


def check_name(folder: Path) -> None:
    """Raise `RequestError` if MLflow would take a folder for another: it decodes `%20` in a path, and deletes there too."""
    if _path(str(folder)) != folder:
        raise RequestError(
            f"{folder}: MLflow would store artifacts in {_path(str(folder))}, because it decodes a percent sign before two "
            "hexadecimal digits; give the folder another name"
        )


def correct_addresses(database: Path, say: Callable[[str], None]) -> None:
    """Correct the addresses of artifacts, in one transaction, if the store was copied or moved.

    From then on, other processes cannot correct them while this process lives.

    Args:
        database: The store's SQLite file.
        say: Called with a line if addresses were corrected.

    Raises:
        RequestError: The artifacts are not here, or a process uses the store at its earlier place.
        sqlite3.Error: The database cannot be read or written.
    """
    database = database.resolve()
    if not find_moves(database):
        with suppress(OSError):
            fcntl.flock(_descriptor(database.parent), fcntl.LOCK_SH | fcntl.LOCK_NB)
        return
    with _alone(database), closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        moves = _moves(connection, database)
        for move in moves:
            _rewrite(connection, move)
        connection.execute("COMMIT")
    for move in moves:
        before, now = _path(move.address), move.folder
        missing = f"; {move.missing} folders of artifacts are not here" if move.missing else ""
        say(
            f"MLflow store {database}: it was copied or moved; its artifacts' addresses, {before}, are now {now}{missing}"
        )


def find_moves(database: Path) -> list[Move]:
    """Return the roots of artifacts that are here and not where the addresses say. Nothing is written.

    Raises:
        RequestError: The store is a copy, or was moved, without its artifacts.
        sqlite3.Error: The database cannot be read.
    """
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        return _moves(connection, database.resolve())


def check_own(database: Path, address: str) -> None:
    """Check that artifacts are this store's, before they are deleted.

    Raises:
        RequestError: The address is of the store that this one is a copy of.
        sqlite3.Error: The database cannot be read.
    """
    for move in find_moves(database):
        if address.startswith(f"{move.address}/"):
            raise RequestError(
                f"{address}: is not deleted, because the store was copied or moved and its artifacts are in {move.folder}; "
                "start the search again"
            )


def _moves(connection: sqlite3.Connection, database: Path) -> list[Move]:
    roots = _roots(connection)
    moves, gone = [], []
    for address, places in roots.items():
        folder = _own_folder(address, places, database)
        if folder is None:
            gone.append(address)
        elif not _is_same(folder, _path(address)):
            missing = sum(not (folder / place).exists() for place in places if (_path(address) / place).exists())
            moves.append(Move(address, folder, missing))
    if gone and len(gone) == sum(map(bool, roots.values())):
        root = _path(gone[0])
        raise RequestError(
            f"{database}: the artifacts of its runs were in {root}, which is gone, and are not in {database.parent}; bring "
            f"them to {database.parent / root.name}, or set MLFLOW_TRACKING_URI to another store"
        )
    return moves


def _roots(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Return the local roots of artifacts, each with the places in it that runs and models have."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    roots: dict[str, list[str]] = {}
    if "experiments" in tables:
        for experiment, address in connection.execute("SELECT experiment_id, artifact_location FROM experiments"):
            if _is_local(address) and address.endswith(f"/{experiment}"):  # not a place that a user gave
                roots.setdefault(address.removesuffix(f"/{experiment}"), [])
    for table, query in {
        "runs": "SELECT '/' || run_uuid || '/artifacts', experiment_id, artifact_uri FROM runs",
        "logged_models": "SELECT '/models/' || model_id || '/artifacts', experiment_id, artifact_location FROM logged_models",
    }.items():
        for end, experiment, address in connection.execute(query) if table in tables else ():
            if _is_local(address) and address.endswith(end):
                root = address.removesuffix(end).removesuffix(f"/{experiment}")
                roots.setdefault(root, []).append(address[len(root) + 1 :])
    return roots


def _own_folder(address: str, places: list[str], database: Path) -> Path | None:
    """Return where the artifacts of a root are: its own path unless it was copied or moved; None if they are gone.

    Raises:
        RequestError: The store is a copy without artifacts of its own.
    """
    root, home = _path(address), database.parent
    if _is_same(root.parent, home):
        return root
    original = _original(root, places, database)
    if original == database:
        return root  # one database at two paths
    if not places:  # nothing was written yet
        return home / root.name if original or not root.parent.exists() else root
    found = _find(root, places, database)
    if original and found is None:
        raise RequestError(
            f"{database}: is a copy of {original} without its artifacts, which are in {root}; copy these to "
            f"{home / root.name} too, or set MLFLOW_TRACKING_URI to that store"
        )
    if original and found and _is_same(found, root):
        raise RequestError(
            f"{database}: is a copy of {original}, and {found} leads to the artifacts of that store; copy them to here, or "
            "set MLFLOW_TRACKING_URI to that store"
        )
    return found or (root if root.parent.exists() else None)


def _find(root: Path, places: list[str], database: Path) -> Path | None:
    """Return the folder, beside the database or in the current folder, that has the artifacts; None if there is none."""
    for folder in (database.parent, Path.cwd()):
        ends = (folder.joinpath(*root.parts[-length:]) for length in range(1, len(root.parts)))
        found = next((end for end in ends if end.is_dir() and _exists(end, places)), None)
        # A database may lie elsewhere than its project. If that was copied without the database, the first one counts.
        if found and (folder == database.parent or database.is_relative_to(folder) or not _exists(root, places)):
            return found
    return None


def _original(root: Path, places: list[str], database: Path) -> Path | None:
    """Return the database beside a root that has the same runs as this one: itself, or what it is a copy of."""
    other = root.parent / database.name
    if not other.is_file():
        return None
    if other.samefile(database):
        return database
    runs = [place.split("/")[-2] for place in places]
    query = "SELECT 1 FROM runs WHERE run_uuid = ?"
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{other.as_uri()}?mode=ro", uri=True)) as connection:
        if not places or any(connection.execute(query, (run,)).fetchone() for run in runs):
            return other
    return None


def _exists(root: Path, places: list[str]) -> bool:
    return any((root / place).exists() for place in places)


def _rewrite(connection: sqlite3.Connection, move: Move) -> None:
    tables: dict[str, set[str]] = {}
    for table, column in _COLUMNS:
        if table not in tables:
            tables[table] = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        if column in tables[table]:
            start = f"{move.address}/"
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",  # noqa: S608
                (str(move.folder), len(move.address) + 1, move.address, len(start), start),
            )


def _is_local(address: str | None) -> bool:
    return address is not None and urlsplit(address).scheme in ("", "file") and _path(address).is_absolute()


def _path(address: str) -> Path:
    return Path(local_file_uri_to_path(address))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one == other


def _descriptor(folder: Path) -> int:
    """Return an open descriptor of a folder, the same one each time."""
    status = folder.stat()
    key = status.st_dev, status.st_ino
    if key not in _held:
        _held[key] = os.open(folder, os.O_RDONLY)
    return _held[key]


@contextmanager
def _alone(database: Path) -> Iterator[None]:
    """Wait until no other process uses the store in this folder, and keep it so."""
    descriptor, end = _descriptor(database.parent), time.monotonic() + _TIMEOUT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > end:
                raise RequestError(
                    f"{database}: its artifacts' addresses are those of another folder, and another process uses the store "
                    "there; wait until it has ended"
                ) from None
            time.sleep(0.1)
        except OSError:
            break  # a file system without locks
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
