"""Database addresses: whether two are of one database, where an SQLite file is, and which package a database needs."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy.engine import URL

from pneumo.spec.errors import RequestError

_LOCAL_HOSTS = {"", "localhost", "127.0.0.1", "::1", "/run/postgresql", "/var/run/postgresql", "/tmp"}  # noqa: S108
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433, "oracle": 1521}
_SAME_SERVER = {"mariadb": "mysql"}
_PACKAGES = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary"}
"""The package of a module if the names differ."""


def sqlite_file(url: URL) -> Path | None:
    """Return the file of an SQLite database; None if it is in memory, or if the database is not SQLite."""
    if url.get_backend_name() != "sqlite" or is_in_memory(url):
        return None
    database = url.database or ""
    return Path(unquote(urlsplit(database).path)) if _is_uri(url) else Path(database)


def is_in_memory(url: URL) -> bool:
    """Return whether an address is of an SQLite database in memory, which ends with its process."""
    if url.get_backend_name() != "sqlite":
        return False
    database = url.database or ""
    if _is_uri(url):
        address = urlsplit(database)
        modes = [*parse_qs(address.query).get("mode", []), url.query.get("mode")]
        return address.path in ("", ":memory:") or "memory" in modes
    return database in ("", ":memory:")


def check_stored(url: URL, where: str) -> None:
    """Raise `RequestError` if an address, which `where` names, is of a database in memory."""
    if is_in_memory(url):
        raise RequestError(
            f"{where}: a database in memory ends with its process, and what a search finds would be lost; give a file, "
            "such as sqlite:///path.db"
        )


def is_same_database(one: URL, other: URL) -> bool:
    """Return whether two addresses are of one database, as far as the addresses and the file system tell.

    Two databases, or two schemas that the addresses name, of one server are different.
    """
    files = sqlite_file(one), sqlite_file(other)
    if files[0] and files[1]:
        if files[0].exists() and files[1].exists():
            return files[0].samefile(files[1])
        return files[0].resolve() == files[1].resolve()
    return files == (None, None) and _server_database(one) == _server_database(other)


def missing_package(url: URL, module: str) -> str:
    """Say which package a database's address needs, given the module that could not be imported."""
    package = "pneumo[postgres]" if module == "psycopg" else _PACKAGES.get(module, module)
    return f"{url.drivername}:// needs the module {module}; pip install '{package}'"


def _is_uri(url: URL) -> bool:
    """Return whether SQLite takes the file's name as a URI."""
    return (url.database or "").startswith("file:") and str(url.query.get("uri", "")).lower() in (
        "true",
        "1",
        "yes",
        "on",
    )


def _server_database(url: URL) -> tuple[object, ...]:
    backend = _SAME_SERVER.get(url.get_backend_name(), url.get_backend_name())
    host = str(url.host or url.query.get("host") or "").lower()
    port = url.port or url.query.get("port") or _PORTS.get(backend)
    user = url.username or os.environ.get("USER")
    name = url.database or url.query.get("dbname") or user
    return backend, "localhost" if host in _LOCAL_HOSTS else host, str(port), name, url.query.get("options")
