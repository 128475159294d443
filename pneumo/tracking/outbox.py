"""What a study writes into MLflow: on disk first, in order, until it has arrived there.

Every write takes this way, whether MLflow answers or not, so that no training waits for a server and nothing is lost with
one. An operation is a row of an SQLite database, which any process may append; its files lie in a folder beside it.
`sender.py` takes them from here, in the driver.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

OUTBOXES = Path("mlruns", "outbox")
"""Where the outboxes lie, each in a folder of its study's name."""


_BEGIN_OF_KEY = "pending-"
_LOCKED = 60
"""Seconds to wait for another process's append."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS operations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL, call TEXT NOT NULL, arguments TEXT NOT NULL, folder TEXT, refused TEXT
);
CREATE TABLE IF NOT EXISTS runs (key TEXT PRIMARY KEY, run_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS models (run_id TEXT PRIMARY KEY, model_id TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Operation:
    """One write. `run` is a run's id in MLflow or a key of `new_key`; `call` and its JSON `arguments` are a function of
    `delivery.py`; `folder` holds its files."""

    number: int
    run: str
    call: str
    arguments: Mapping[str, Any]
    folder: Path | None


@dataclass(frozen=True)
class Outbox:
    """The operations of one study that MLflow has not taken yet. Holds a path, so it can be sent to a worker.

    An operation that was appended is kept, whatever happens to the process or the machine. Every method raises `OSError`
    where the disk does not take or give it.
    """

    path: Path

    def append(self, run: str, call: str, **arguments: Any) -> None:
        """Adds an operation after all others."""
        self._insert(run, call, arguments, None)

    @contextmanager
    def filling(self, run: str, call: str, **arguments: Any) -> Iterator[Path]:
        """A new folder to be filled with an operation's files; added on leaving, or deleted where that was by an error."""
        folder = self._files / uuid.uuid4().hex
        folder.mkdir()
        try:
            yield folder
            for path in (self._files, folder, *folder.rglob("*")):
                _to_disk(path)
            self._insert(run, call, arguments, folder.name)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def append_files(self, run: str, files: Mapping[str, str | bytes]) -> None:
        """Adds artifacts of a run, named by their path in it (`plots/roc.png`).

        Raises `ValueError` where a name leads out of the run.
        """
        if not files:
            return
        with self.filling(run, "log_artifacts") as folder:
            fill(folder, files)

    def first(self, most: int) -> list[Operation]:
        """The operations that are next, in order."""
        with self._database() as database:
            rows = database.execute(
                "SELECT number, run, call, arguments, folder FROM operations WHERE refused IS NULL "
                "ORDER BY number LIMIT ?",
                (most,),
            ).fetchall()
        return [
            Operation(number, run, call, json.loads(arguments), self._files / folder if folder else None)
            for number, run, call, arguments, folder in rows
        ]

    def left(self) -> int:
        """How many operations are still to be sent."""
        return int(self._one("SELECT count(*) FROM operations WHERE refused IS NULL") or 0)

    def waiting(self) -> dict[str, int]:
        """How many operations of each run have not arrived, those that were refused too; by its id where it has one.

        Reads only; where there is no outbox, nothing waits.
        """
        if not (self.path / "outbox.db").exists():
            return {}
        with self._database() as database:
            rows = database.execute("SELECT run, count(*) FROM operations GROUP BY run").fetchall()
        found: Counter[str] = Counter()
        for run, count in rows:
            found[self.run_id(run) or run] += count
        return dict(found)

    def remove(self, operation: Operation) -> None:
        """It has arrived."""
        with self._database() as database:
            database.execute("DELETE FROM operations WHERE number = ?", (operation.number,))
        if operation.folder:
            shutil.rmtree(operation.folder, ignore_errors=True)

    def refuse(self, operation: Operation, reason: str) -> None:
        """It will not be taken: it stays, but those after it go on."""
        with self._database() as database:
            database.execute("UPDATE operations SET refused = ? WHERE number = ?", (reason, operation.number))

    def run_id(self, run: str) -> str | None:
        """The id in MLflow of a run; None of a key whose run is not there yet."""
        if not run.startswith(_BEGIN_OF_KEY):
            return run
        found: str | None = self._one("SELECT run_id FROM runs WHERE key = ?", run)
        return found

    def keep_run_id(self, key: str, run_id: str) -> None:
        with self._database() as database:
            database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (key, run_id))

    def model_id(self, run_id: str) -> str | None:
        """The id of the model that a run logged; None as long as it is not there."""
        found: str | None = self._one("SELECT model_id FROM models WHERE run_id = ?", run_id)
        return found

    def keep_model_id(self, run_id: str, model_id: str) -> None:
        with self._database() as database:
            database.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", (run_id, model_id))

    @property
    def _files(self) -> Path:
        return self.path / "files"

    def _insert(self, run: str, call: str, arguments: Mapping[str, Any], folder: str | None) -> None:
        with self._database() as database:
            database.execute(
                "INSERT INTO operations (run, call, arguments, folder) VALUES (?, ?, ?, ?)",
                (run, call, json.dumps(arguments), folder),
            )

    def _one(self, question: str, *values: str) -> Any:
        with self._database() as database:
            row = database.execute(question, values).fetchone()
        return row[0] if row else None

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A transaction. Opened for each: that is a millisecond, and a connection must not be shared by threads."""
        path = self.path / "outbox.db"
        try:
            with closing(sqlite3.connect(path, timeout=_LOCKED)) as database, database:
                yield database
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error


def open_outbox(path: Path) -> Outbox:
    """The outbox of a folder, made where there is none. For who is alone at work on the study.

    What MLflow refused before is tried again; files that a process left before it appended them are deleted. Raises
    `OSError`.
    """
    outbox = Outbox(path.absolute())
    outbox._files.mkdir(parents=True, exist_ok=True)
    with outbox._database() as database:
        database.executescript(_SCHEMA)
        database.execute("UPDATE operations SET refused = NULL")
        known = {folder for (folder,) in database.execute("SELECT folder FROM operations WHERE folder IS NOT NULL")}
    for folder in outbox._files.iterdir():
        if folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)
    return outbox


def fill(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Writes files into a folder, named by their path in it. Raises `ValueError` where a name leads out of it."""
    for name, content in files.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"artifact {name!r}: its name leads out of the run")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def new_key() -> str:
    """A name of a run that MLflow has not made yet, unlike any other's."""
    return f"{_BEGIN_OF_KEY}{uuid.uuid4().hex}"


def _to_disk(path: Path) -> None:
    """Has the system write a file, or the names in a folder, which it may otherwise keep in memory for half a minute."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)


def timed(metrics: Mapping[str, float], step: int, after: int = 0) -> list[tuple[str, float, int, int]]:
    """Metrics with the time at which they were known, `after` another: name, value, time, step.

    Of two values of one step MLflow shows the later one, also where the clock was put back between them.
    """
    at = max(now(), after + 1)
    return [(name, float(value), at, step) for name, value in metrics.items()]
