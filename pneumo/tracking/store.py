"""Connect to MLflow, and check that it answers."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import sys
import tempfile
import uuid
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

from pneumo.spec.databases import check_stored, missing_package, sqlite_file
from pneumo.spec.errors import RequestError
from pneumo.spec.masking import mask_passwords
from pneumo.tracking.failures import is_timeout
from pneumo.tracking.location import check_name, correct_addresses, find_moves

ERRORS = (MlflowException, OSError)
"""What MLflow's client raises if MLflow does not answer. The text may have a password: use `mask_passwords`."""

T = TypeVar("T")

FIRST_ANSWER = 5
"""Seconds to wait for the first answer of a server or a database."""


@dataclass(frozen=True)
class Store:
    """An MLflow that has answered.

    Attributes:
        uri: Its tracking URI. It may have a password: print `display_uri` instead.
    """

    uri: str = field(repr=False)

    @property
    def display_uri(self) -> str:
        """The tracking URI without its password."""
        return mask_passwords(self.uri)

    @property
    def default(self) -> bool:
        """Whether `mlflow ui` without options, in this folder, shows the same runs."""
        return self.file == Path.cwd() / "mlflow.db"

    @property
    def file(self) -> Path | None:
        """The SQLite file; None if the store is a server or another database."""
        return sqlite_file(sqlalchemy.make_url(self.uri)) if self.uri.startswith("sqlite") else None

    @property
    def client(self) -> MlflowClient:
        """A new client."""
        return _client(self.uri)


def pages(search: Callable[[str | None], PagedList[T]]) -> Iterator[T]:
    """Yield the results of all pages of an MLflow search, a function of a page's token (None for the first page)."""
    token: str | None = None
    while True:
        page = search(token)
        yield from page
        if not (token := page.token):
            return


def store_database(uri: str | None = None) -> sqlalchemy.URL | None:
    """Return the database of the MLflow at `uri`, or by default at `MLFLOW_TRACKING_URI` or in this folder.

    None if it is a server. Nothing is opened.

    Raises:
        RequestError: No runs can be stored at the address.
    """
    uri = uri or get_tracking_uri()
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        return None
    if scheme.split("+")[0] not in DATABASE_ENGINES:
        raise RequestError(
            f"{_label(uri)}: runs cannot be stored at this address; give http(s)://host:port, sqlite:///path.db "
            "or postgresql://user:password@host/database"
        )
    try:
        url = sqlalchemy.make_url(uri)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise RequestError(f"{_label(uri)}: is not the address of a database, such as sqlite:///path.db") from None
    check_stored(url, _label(uri))
    return url


def connect(uri: str | None = None) -> Store:
    """Connect to the MLflow at `uri`, or by default to that of `MLFLOW_TRACKING_URI` or of this folder.

    A missing database is created. If the folder of an SQLite database was copied or moved, the addresses of its artifacts are
    corrected, and a line on standard error says so.

    Raises:
        RequestError: MLflow cannot be reached or used. This takes a few seconds at most.
    """
    uri = uri or get_tracking_uri()
    if (url := store_database(uri)) is not None:
        _open_database(uri, url)
    else:
        _check_server(uri)
    return Store(uri)


def connect_existing(*, read_only: bool = False) -> Store:
    """Connect as `connect` does, but raise `RequestError` for a database that does not exist.

    With `read_only`, `RequestError` is raised too if addresses of artifacts have to be corrected.
    """
    uri = get_tracking_uri()
    url = store_database(uri)
    file = sqlite_file(url) if url is not None else None
    if file and not file.is_file():
        raise RequestError(
            f"{_label(uri)}: there are no runs here; go to the folder of the search, or set MLFLOW_TRACKING_URI"
        )
    if file and read_only:
        _refuse_moved(uri, file)
    return connect(uri)


def _refuse_moved(uri: str, file: Path) -> None:
    try:
        moves = find_moves(file)
    except sqlite3.Error as error:
        raise RequestError(f"{_label(uri)}: cannot be opened: {error}") from None
    for move in moves:
        raise RequestError(
            f"{_label(uri)}: was copied or moved: its artifacts are in {move.folder}, and it says {move.address}; this command "
            "writes nothing, so start the study's search again, or promote it, which corrects that"
        )


def _client(uri: str) -> MlflowClient:
    """Return a client that prints warnings and errors only, unless `MLFLOW_LOGGING_LEVEL` is set."""
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # These print stack traces: of an error that is raised too, and of a cursor that an interruption left open.
        for name in ("mlflow.store.db.utils", "sqlalchemy.pool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient(uri)


def _label(uri: str) -> str:
    return f"tracking store {mask_passwords(uri)}"


def _check_server(uri: str) -> None:
    """Send one request that needs read access. MLflow's client would try again for minutes."""
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
        problem = f"no answer within {FIRST_ANSWER} s" if is_timeout(error) else "cannot be reached"
        raise RequestError(f"{_label(uri)}: {problem}; start it, or correct MLFLOW_TRACKING_URI") from None
    if answer.status_code in (401, 403):
        raise RequestError(
            f"{_label(uri)}: refuses access (HTTP {answer.status_code}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, or let the server allow this host name"
        )
    if answer.status_code != 200 or "json" not in answer.headers.get("content-type", ""):
        raise RequestError(f"{_label(uri)}: answers HTTP {answer.status_code}, and not as an MLflow server does")


def _open_database(uri: str, url: sqlalchemy.URL) -> None:
    """Open a database with MLflow, and create its tables if there are none."""
    file = sqlite_file(url)
    for folder in (Path.cwd(), *([file.parent] if file else [])):  # new artifacts are in the current folder
        check_name(folder)
    try:
        # MLflow would try for minutes to open a database, so it is opened here first.
        if file:
            _check_writable(file)
        # If several processes create a database at once, all but one fail.
        lock = hashlib.sha256(str(Path(url.database or "").resolve()).encode()).hexdigest()[:16]
        with FileLock(Path(tempfile.gettempdir()) / f"pneumo-{os.getuid()}-{lock}.lock"):
            _check_tables(uri, url)
            if file:
                if _is_empty(file):
                    _create(file)
                correct_addresses(file, lambda line: print(line, file=sys.stderr))
            _client(uri).search_experiments(max_results=1)
    except ImportError as error:
        raise RequestError(f"{_label(uri)}: {missing_package(url, error.name or str(error))}") from None
    except (OSError, sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, MlflowException) as error:
        reason = mask_passwords(str(getattr(error, "orig", None) or error)).strip().split("\n")[0]
        raise RequestError(f"{_label(uri)}: cannot be opened: {reason}") from None


def _check_tables(uri: str, url: sqlalchemy.URL) -> None:
    """Raise `RequestError` if the database is one of studies: Optuna and MLflow have tables of the same name."""
    arguments = {} if url.get_backend_name() == "sqlite" else {"connect_timeout": FIRST_ANSWER}
    engine = sqlalchemy.create_engine(url, connect_args=arguments)
    try:
        inspector = sqlalchemy.inspect(engine)
        is_of_studies = inspector.has_table("studies") and not inspector.has_table("experiments")
    finally:
        engine.dispose()
    if is_of_studies:
        raise RequestError(
            f"{_label(uri)}: is a database of studies (--storage), and MLflow needs one of its own, such as "
            "sqlite:///mlflow.db"
        )


def _check_writable(path: Path) -> None:
    """Raise `OSError` or `sqlite3.Error` if a database at this path cannot be written."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _is_empty(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def _create(path: Path) -> None:
    """Create MLflow's tables in an SQLite database in one transaction.

    MLflow takes many transactions. If it is killed between two of them, it cannot continue ("table issues already exists").
    So it creates the tables in a database in memory, which is copied here in one transaction. There the disk does not delay
    the about thousand commits either.
    """
    memory = f"file:pneumo-{uuid.uuid4().hex}?mode=memory&cache=shared"
    with closing(sqlite3.connect(memory, uri=True)) as source, closing(sqlite3.connect(path, timeout=60)) as target:
        _client(f"sqlite:///{memory}&uri=true").search_experiments(max_results=1)
        source.backup(target)
