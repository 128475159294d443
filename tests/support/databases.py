"""SQLite's databases in tests: addresses that no search can use, and copies of a file that is open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

MEMORY = [
    "sqlite://",
    "sqlite:///",
    "sqlite:///:memory:",
    "sqlite+pysqlite:///:memory:",
    "sqlite:///file::memory:?cache=shared&uri=true",
    "sqlite:///file:studies?mode=memory&cache=shared&uri=true",
]
"""Databases in memory, in each way that SQLAlchemy takes."""


def copy_database(source: Path, target: Path) -> None:
    """Copy an SQLite database into a file that may be open.

    A copy of the file alone is not seen by a connection whose cached pages have the same change counter.
    """
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)
