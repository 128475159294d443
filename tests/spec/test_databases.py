"""Which database addresses are of one database, and which are of one in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from pneumo.spec.databases import is_in_memory, is_same_database, missing_package, sqlite_file
from tests.support.databases import MEMORY


@pytest.mark.parametrize("address", MEMORY)
def test_a_database_in_memory(address: str) -> None:
    assert is_in_memory(make_url(address))
    assert sqlite_file(make_url(address)) is None


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("sqlite:///a.db", "a.db"),
        ("sqlite:////data/a.db", "/data/a.db"),
        ("sqlite:///file:/data/a%20b.db?uri=true", "/data/a b.db"),
        ("sqlite:///memory", "memory"),
        ("postgresql://host/a", None),
    ],
)
def test_the_file_of_a_database(address: str, file: str | None) -> None:
    assert not is_in_memory(make_url(address))
    assert sqlite_file(make_url(address)) == (Path(file) if file else None)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("sqlite:///a.db", "sqlite:///./a.db", True),
        ("sqlite:///a.db", "sqlite+pysqlite:///file:a.db?uri=true", True),
        ("sqlite:///folder/a.db", "sqlite:///link/a.db", True),
        ("sqlite:///folder/a.db", "sqlite:///a.db", False),
        ("sqlite:///folder/new.db", "sqlite:///link/new.db", True),
        ("sqlite:///a.db", "postgresql://host/a.db", False),
        ("postgresql://me:one@host/a", "postgresql+psycopg://you:two@HOST:5432/a", True),
        ("postgresql://localhost/a", "postgresql:///a", True),
        ("postgresql://127.0.0.1/a", "postgresql:///a?host=/var/run/postgresql", True),
        ("postgresql:///a?host=/one", "postgresql:///a?host=/other", False),
        ("postgresql://me@host", "postgresql://me@host/me", True),
        ("postgresql://host/a", "postgresql://host/b", False),
        ("postgresql://host/a", "postgresql://other/a", False),
        ("postgresql://host:5432/a", "postgresql://host:5433/a", False),
        ("postgresql://host/a", "postgresql://host/a?options=-csearch_path%3Dstudies", False),
        ("mysql://host/a", "mariadb+pymysql://host:3306/a", True),
        ("mysql://host/a", "postgresql://host/a", False),
    ],
)
def test_two_addresses_of_one_database(project: Path, one: str, other: str, is_same: bool) -> None:
    (project / "folder").mkdir()
    (project / "link").symlink_to("folder")
    for file in ("a.db", "folder/a.db"):
        (project / file).touch()
    assert is_same_database(make_url(one), make_url(other)) == is_same
    assert is_same_database(make_url(other), make_url(one)) == is_same


@pytest.mark.parametrize(
    ("address", "module", "package"),
    [
        ("mysql://host/a", "MySQLdb", "mysqlclient"),
        ("mysql+pymysql://host/a", "pymysql", "pymysql"),
        ("mssql://host/a", "pyodbc", "pyodbc"),
        ("oracle://host/a", "oracledb", "oracledb"),
        ("postgresql://host/a", "psycopg", "pneumo[postgres]"),
        ("postgresql+psycopg2://host/a", "psycopg2", "psycopg2-binary"),
    ],
)
def test_the_package_of_a_driver(address: str, module: str, package: str) -> None:
    assert f"pip install '{package}'" in missing_package(make_url(address), module)
