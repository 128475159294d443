"""Which MLflow a command talks to, and whether it answers."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import sqlalchemy
from filelock import FileLock
from mlflow import MlflowClient, get_tracking_uri
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from pneumo.spec.errors import RequestError
from pneumo.spec.masking import mask_passwords

ERRORS = (MlflowException, OSError)
"""What calls raise where MLflow no longer answers; their text may hold its address: `mask_passwords` is for that."""

T = TypeVar("T")

FIRST_ANSWER = 5
"""Seconds that a server or a database has for its first answer."""


@dataclass(frozen=True)
class Store:
    """An MLflow that has answered. `uri` is what a worker is handed; it can hold a password: print `shown`."""

    uri: str = field(repr=False)

    @property
    def shown(self) -> str:
        """The address without its password."""
        return mask_passwords(self.uri)

    @property
    def default(self) -> bool:
        """Whether a bare `mlflow ui` in this folder shows the same runs."""
        own = Path.cwd() / "mlflow.db"
        return self.uri.startswith("sqlite") and Path(sqlalchemy.make_url(self.uri).database or "") == own

    @property
    def client(self) -> MlflowClient:
        return client(self.uri)


def pages(search: Callable[[str | None], PagedList[T]]) -> Iterator[T]:
    """All that a search of MLflow's finds. It takes the token of a page, None for the first."""
    token: str | None = None
    while True:
        page = search(token)
        yield from page
        if not (token := page.token):
            return


def connect(uri: str | None = None) -> Store:
    """The MLflow at `uri`, else at `MLFLOW_TRACKING_URI`, else the one that a bare `mlflow ui` shows in this folder.

    Creates a database that is not there yet. Raises `RequestError`, within seconds, where there is none to be had.
    """
    uri = uri or get_tracking_uri()
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        _ask(uri)
    elif scheme.split("+")[0] in DATABASE_ENGINES:
        _open(uri)
    else:
        raise RequestError(
            f"{_where(uri)}: not an address that runs can be kept at; give http(s)://host:port, sqlite:///path.db "
            "or postgresql://user:password@host/database"
        )
    return Store(uri)


def connect_existing() -> Store:
    """As `connect`, for who reads what is there: a database that is not there is not created but refused."""
    uri = get_tracking_uri()
    if uri.startswith("sqlite:") and not Path(sqlalchemy.make_url(uri).database or "").is_file():
        raise RequestError(
            f"{_where(uri)}: there are no runs here; go to the folder of the search, or set MLFLOW_TRACKING_URI"
        )
    return connect(uri)


def client(uri: str) -> MlflowClient:
    """A client that prints nothing below a warning, unless `MLFLOW_LOGGING_LEVEL` asks for it."""
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # The stack trace of an error that it raises as well; and of a cursor that an interruption has left open.
        for name in ("mlflow.store.db.utils", "sqlalchemy.pool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient(uri)


def _where(uri: str) -> str:
    return f"tracking store {mask_passwords(uri)}"


def _ask(uri: str) -> None:
    """One request that needs the right to read, once: MLflow's client would try for minutes."""
    try:
        answer = http_request(
            get_default_host_creds(uri),
            "/api/2.0/mlflow/experiments/search",
            "GET",
            params={"max_results": 1},
            max_retries=0,
            timeout=FIRST_ANSWER,
            raise_on_status=False,
        )
    except MlflowException as error:
        late = "timeout" in str(error) or "timed out" in str(error)
        raise RequestError(
            f"{_where(uri)}: {f'no answer within {FIRST_ANSWER} s' if late else 'cannot be reached'}; "
            "start it, or set MLFLOW_TRACKING_URI right"
        ) from None
    if answer.status_code in (401, 403):
        raise RequestError(
            f"{_where(uri)}: refuses access (HTTP {answer.status_code}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, or let the server allow this host name"
        )
    if answer.status_code != 200 or "json" not in answer.headers.get("content-type", ""):
        raise RequestError(f"{_where(uri)}: answers HTTP {answer.status_code}, not as an MLflow server does")


def _open(uri: str) -> None:
    """Has MLflow open a database, and create its tables where there are none."""
    url = sqlalchemy.make_url(uri)
    sqlite = url.get_backend_name() == "sqlite"
    try:
        # MLflow tries a database that cannot be opened for minutes, so it is opened here first.
        if sqlite:
            _writable(url.database or "")
        else:
            with sqlalchemy.create_engine(url, connect_args={"connect_timeout": FIRST_ANSWER}).connect():
                pass
        # Of processes that create a database at once, all but one fail.
        lock = hashlib.sha256(str(Path(url.database or "").resolve()).encode()).hexdigest()[:16]
        with FileLock(Path(tempfile.gettempdir()) / f"pneumo-{os.getuid()}-{lock}.lock"):
            if sqlite and _is_empty(url.database or ""):
                _create(url.database or "")
            client(uri).search_experiments(max_results=1)
    except ModuleNotFoundError as error:
        raise RequestError(f"{_where(uri)}: needs the package {error.name}; pip install 'pneumo[postgres]'") from None
    except (OSError, sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, MlflowException) as error:
        reason = mask_passwords(str(getattr(error, "orig", None) or error)).strip().split("\n")[0]
        raise RequestError(f"{_where(uri)}: cannot be opened: {reason}") from None


def _writable(path: str) -> None:
    """Raises `OSError` or `sqlite3.Error` where a database cannot be written at a path."""
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"there is no folder {Path(path).parent}")
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _is_empty(path: str) -> bool:
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def _create(path: str) -> None:
    """Creates MLflow's tables in an SQLite database, all or none.

    MLflow takes seconds for it, in many transactions, and cannot go on where it was killed between two of them ("table issues
    already exists"). So it creates them elsewhere, and they come here in one.
    """
    with tempfile.TemporaryDirectory(prefix="pneumo-") as folder:
        made = Path(folder, "mlflow.db")
        client(f"sqlite:///{made}").search_experiments(max_results=1)
        with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(path, timeout=60)) as target:
            source.backup(target)
