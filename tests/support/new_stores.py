"""New local MLflow stores. MLflow needs a second of computing for the tables of each, so they are copied here."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

from pneumo.tracking.store import Store, connect


def new_store(folder: Path) -> Store:
    """Create `mlflow.db` in a folder, and connect to it. In MLflow it is as new as one that MLflow created."""
    new_database(folder / "mlflow.db")
    return connect(f"sqlite:///{folder.absolute()}/mlflow.db")


def new_database(file: Path) -> None:
    """Create MLflow's database. It has the tables only: MLflow adds the experiment `Default` when it opens it."""
    file.write_bytes(_tables())


@cache
def _tables() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "mlflow.db")
        connect(f"sqlite:///{file}")
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("DELETE FROM experiments")  # it has the path of this folder
        return file.read_bytes()
