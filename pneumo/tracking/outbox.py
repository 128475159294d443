"""A queue on disk for everything that a study writes into MLflow.

Every write goes through it, so that no training waits for MLflow and no write is lost while MLflow is unreachable. An
operation is a row of an SQLite database, to which any process may append. The files of an operation are in a folder beside
the database. In the driver, `sender.py` takes the operations from here to MLflow.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pneumo.tracking.operations import (
    DrawPlots,
    LogArtifacts,
    LogModel,
    Operation,
    UnknownOperation,
    call_name,
    dump_arguments,
    load_operation,
)

OUTBOXES = Path("mlruns", "outbox")
"""Folder of the outboxes. Each is in a folder with its study's name."""

_KEY_PREFIX = "pending-"

_LOCK_TIMEOUT = 60
"""Seconds to wait for the transaction of another process."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS operations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL, call TEXT NOT NULL, arguments TEXT NOT NULL, folder TEXT, refused TEXT
);
CREATE TABLE IF NOT EXISTS runs (key TEXT PRIMARY KEY, run_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS models (run_id TEXT PRIMARY KEY, model_id TEXT NOT NULL);
"""


@dataclass(frozen=True)
class QueuedOperation:
    """An operation in an outbox.

    Attributes:
        number: Its place in the order.
        run: The run's id in MLflow, or its key (see `new_key`).
        operation: What to write.
        folder: The operation's files; None if it has none.
    """

    number: int
    run: str
    operation: Operation | UnknownOperation
    folder: Path | None


@dataclass(frozen=True)
class Outbox:
    """The operations of a study that have not arrived in MLflow.

    An appended operation survives the end of the process and of the machine. An outbox is no more than a path, so it can be
    sent to a worker. Every method raises `OSError` if the disk cannot be read or written.

    Attributes:
        path: The outbox's folder.
    """

    path: Path

    def append(self, run: str, *operations: Operation) -> None:
        """Append operations without files, all of them or none."""
        self._insert(run, operations, None)

    @contextmanager
    def append_folder(self, run: str, operation: LogArtifacts | DrawPlots | LogModel) -> Iterator[Path]:
        """Yield an empty folder for the operation's files, and append the operation on leaving.

        After an error, the folder is deleted and nothing is appended.
        """
        with self._new_folder(lambda folder: self._insert(run, [operation], folder)) as folder:
            yield folder

    def append_files(self, run: str, files: Mapping[str, str | bytes]) -> None:
        """Append artifacts.

        Args:
            run: The run's id or key.
            files: Contents by path in the run, such as `plots/roc.png`.

        Raises:
            ValueError: A path leads out of the run.
        """
        if not files:
            return
        with self.append_folder(run, LogArtifacts()) as folder:
            write_files(folder, files)

    def first_to_draw(self) -> QueuedOperation | None:
        """Return the next operation whose plots are to be drawn, or None."""
        return next(iter(self._select("call = :draw AND refused IS NULL", 1)), None)

    def store_drawn(self, queued: QueuedOperation, files: Mapping[str, str | bytes]) -> None:
        """Replace an operation that draws plots by one that uploads them, in the same place of the order.

        A process that is killed leaves one or the other.

        Args:
            queued: The operation.
            files: The plots, by path in the run.

        Raises:
            ValueError: A path leads out of the run.
        """
        with self._new_folder(lambda folder: self._update_drawn(queued, folder)) as folder:
            write_files(folder, files)
        if queued.folder:
            shutil.rmtree(queued.folder, ignore_errors=True)

    def first(self, limit: int) -> list[QueuedOperation]:
        """Return the next operations to send, in order.

        The operations of a run that follow plots which are still to be drawn are left out.
        """
        undrawn = (
            "SELECT 1 FROM operations AS earlier WHERE earlier.run = operations.run AND earlier.refused IS NULL "
            "AND earlier.call = :draw AND earlier.number <= operations.number"
        )
        return self._select(f"refused IS NULL AND NOT EXISTS ({undrawn})", limit)

    def remaining(self) -> int:
        """Return the number of operations still to be sent."""
        return int(self._fetch_value("SELECT count(*) FROM operations WHERE refused IS NULL") or 0)

    def has_more_than(self, number: int) -> bool:
        """Return whether more than `number` operations are still to be sent. It does not count them all."""
        query = "SELECT 1 FROM operations WHERE refused IS NULL LIMIT 1 OFFSET ?"
        return self._fetch_value(query, number) is not None

    def has_more_to_draw_than(self, number: int) -> bool:
        """Return whether the plots of more than `number` trials are still to be drawn."""
        query = "SELECT 1 FROM operations WHERE call = ? AND refused IS NULL LIMIT 1 OFFSET ?"
        return self._fetch_value(query, call_name(DrawPlots()), number) is not None

    def last_number(self) -> int:
        """Return the number of the newest operation that was ever appended; 0 if there is none."""
        return int(self._fetch_value("SELECT seq FROM sqlite_sequence WHERE name = 'operations'") or 0)

    def has_arrived(self, run: str) -> bool:
        """Return whether no operation of a run, given its id or key, is still to be sent. Refused ones are not."""
        query = (
            "SELECT 1 FROM operations WHERE refused IS NULL AND (run = ?1 OR run IN (SELECT key FROM runs WHERE run_id = ?1) "
            "OR run IN (SELECT run_id FROM runs WHERE key = ?1)) LIMIT 1"
        )
        return self._fetch_value(query, run) is None

    def waiting(self) -> dict[str, int]:
        """Return the number of operations of each run that have not arrived, refused ones included.

        A run goes by its id if it has one, else by its key. Nothing is written; without an outbox, the result is empty.
        """
        if not (self.path / "outbox.db").exists():
            return {}
        with self._database() as database:
            rows = database.execute("SELECT run, count(*) FROM operations GROUP BY run").fetchall()
        counts: Counter[str] = Counter()
        for run, count in rows:
            counts[self.run_id(run) or run] += count
        return dict(counts)

    def remove(self, *operations: QueuedOperation) -> None:
        """Remove operations that have arrived."""
        with self._database() as database:
            database.executemany("DELETE FROM operations WHERE number = ?", [(queued.number,) for queued in operations])
        for queued in operations:
            if queued.folder:
                shutil.rmtree(queued.folder, ignore_errors=True)

    def refuse(self, queued: QueuedOperation, reason: str) -> None:
        """Mark an operation as refused: it is stored, and the next ones are sent."""
        with self._database() as database:
            database.execute("UPDATE operations SET refused = ? WHERE number = ?", (reason, queued.number))

    def run_id(self, run: str) -> str | None:
        """Return the id in MLflow of a run, given its id or key; None if the run has not been created."""
        if not run.startswith(_KEY_PREFIX):
            return run
        run_id: str | None = self._fetch_value("SELECT run_id FROM runs WHERE key = ?", run)
        return run_id

    def store_run_id(self, key: str, run_id: str) -> None:
        """Store the id of the run that goes by a key."""
        with self._database() as database:
            database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (key, run_id))

    def model_id(self, run_id: str) -> str | None:
        """Return the id of the model that a run logged; None if none has arrived."""
        model_id: str | None = self._fetch_value("SELECT model_id FROM models WHERE run_id = ?", run_id)
        return model_id

    def store_model_id(self, run_id: str, model_id: str) -> None:
        """Store the id of the model that a run logged."""
        with self._database() as database:
            database.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", (run_id, model_id))

    @property
    def _files(self) -> Path:
        return self.path / "files"

    @contextmanager
    def _new_folder(self, use: Callable[[str], None]) -> Iterator[Path]:
        """Yield an empty folder; on leaving, write it to the disk and call `use` with its name.

        After an error, the folder is deleted.
        """
        folder = self._files / uuid.uuid4().hex
        folder.mkdir()
        try:
            yield folder
            for path in (self._files, folder, *folder.rglob("*")):
                _sync(path)
            use(folder.name)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _select(self, condition: str, limit: int) -> list[QueuedOperation]:
        """Return the first operations that meet a condition of SQL, in order; `:draw` in it is the call that draws."""
        with self._database() as database:
            rows = database.execute(
                f"SELECT number, run, call, arguments, folder FROM operations WHERE {condition} "  # noqa: S608  (of this class)
                "ORDER BY number LIMIT :limit",
                {"draw": call_name(DrawPlots()), "limit": limit},
            ).fetchall()
        return [
            QueuedOperation(number, run, load_operation(call, arguments), self._files / folder if folder else None)
            for number, run, call, arguments, folder in rows
        ]

    def _update_drawn(self, queued: QueuedOperation, folder: str) -> None:
        with self._database() as database:
            database.execute(
                "UPDATE operations SET call = ?, folder = ? WHERE number = ?",
                (call_name(LogArtifacts()), folder, queued.number),
            )

    def _insert(self, run: str, operations: Sequence[Operation], folder: str | None) -> None:
        with self._database() as database:
            database.executemany(
                "INSERT INTO operations (run, call, arguments, folder) VALUES (?, ?, ?, ?)",
                [(run, call_name(operation), dump_arguments(operation), folder) for operation in operations],
            )

    def _fetch_value(self, query: str, *values: str | int) -> Any:
        with self._database() as database:
            row = database.execute(query, values).fetchone()
        return row[0] if row else None

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """Open the database for one transaction.

        A connection takes a millisecond to open, and threads cannot share one.
        """
        path = self.path / "outbox.db"
        try:
            with closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT)) as database, database:
                yield database
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error


def open_outbox(path: Path) -> Outbox:
    """Return the outbox in a folder, which is created if it is missing. No other process may use the outbox meanwhile.

    Operations that MLflow refused are to be sent again. Files of operations that were never appended are deleted.

    Raises:
        OSError: The disk cannot be read or written.
    """
    outbox = Outbox(path.absolute())
    outbox._files.mkdir(parents=True, exist_ok=True)
    with outbox._database() as database:
        database.executescript(_SCHEMA)
        database.execute("UPDATE operations SET refused = NULL")
        appended = {folder for (folder,) in database.execute("SELECT folder FROM operations WHERE folder IS NOT NULL")}
    for folder in outbox._files.iterdir():
        if folder.name not in appended:
            shutil.rmtree(folder, ignore_errors=True)
    return outbox


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files into a folder, given their contents by path. Raises `ValueError` if a path leads out of the folder."""
    for name, content in files.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"artifact {name!r}: its name leads out of the run")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def new_key() -> str:
    """Return a new unique name for a run that MLflow has not created yet."""
    return f"{_KEY_PREFIX}{uuid.uuid4().hex}"


def _sync(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk now. The system may keep them in memory for half a minute."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
