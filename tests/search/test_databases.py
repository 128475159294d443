"""MLflow and the studies have databases of their own, which outlive the search: refused before anything is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy

from pneumo.engines.engine_table import open_engine, stored_studies
from pneumo.search.__main__ import STORAGE
from pneumo.search.preflight import check_databases
from pneumo.spec.errors import RequestError
from pneumo.tracking.store import connect
from tests.support.databases import MEMORY
from tests.support.engine_studies import experiment
from tests.support.in_process import RunHere
from tests.support.postgres import Postgres
from tests.support.program import write

SHARED = {
    "--storage is MLflow's": ({}, "sqlite:///mlflow.db"),
    "--storage is MLflow's, by another path": ({}, "sqlite:///../project/mlflow.db"),
    "MLflow's is the default of --storage": ({"MLFLOW_TRACKING_URI": "sqlite:///mlruns/studies.db"}, STORAGE),
    "both are one new file": ({"MLFLOW_TRACKING_URI": "sqlite:///all.db"}, "sqlite:///./all.db"),
    "both are one through a link": ({"MLFLOW_TRACKING_URI": "sqlite:///link/all.db"}, "sqlite:///all.db"),
    "one of PostgreSQL": ({"MLFLOW_TRACKING_URI": "postgresql://me:s3cret@h/all"}, "postgresql+psycopg://h:5432/all"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "link").symlink_to(".")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.mark.parametrize(("environment", "storage"), SHARED.values(), ids=SHARED.keys())
def test_one_database_for_both(
    folder: Path, environment: Mapping[str, str], storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match="each needs one of its own") as caught:
        check_databases(storage)
    assert "s3cret" not in str(caught.value)
    assert sorted(path.name for path in folder.iterdir()) == ["link"]


@pytest.mark.parametrize("address", MEMORY)
@pytest.mark.parametrize("of", ["MLflow", "studies"])
def test_a_database_in_memory(folder: Path, address: str, of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if of == "MLflow":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(RequestError, match="in memory ends with its process"):
        check_databases(STORAGE if of == "MLflow" else address)
    assert sorted(path.name for path in folder.iterdir()) == ["link"]


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        ({"MLFLOW_TRACKING_URI": "sqlite://"}, ["experiment.yaml"]),
        ({"MLFLOW_TRACKING_URI": "sqlite://"}, ["--check", "small"]),
        ({}, ["experiment.yaml", "--storage", "sqlite:///mlflow.db"]),
        ({"PNEUMO_STORAGE": "sqlite:///:memory:"}, ["--check", "small"]),
    ],
)
def test_the_command_is_refused_before_it_writes(
    folder: Path, environment: Mapping[str, str], arguments: Sequence[str], run_here: RunHere
) -> None:
    experiment_file = write(folder)
    done = run_here("search", *arguments, folder=folder, **environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert sorted(path.name for path in folder.iterdir()) == [experiment_file.name, "link"]


@pytest.mark.parametrize("verb", ["predict", "promote", "replay"])
def test_runs_in_memory_are_refused_by_the_other_verbs(folder: Path, verb: str, run_here: RunHere) -> None:
    arguments = {"predict": ["a.png"], "replay": ["0" * 32]}
    done = run_here(verb, *arguments.get(verb, []), folder=folder, MLFLOW_TRACKING_URI="sqlite://")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("mysql://me:s3cret@h/a", "pip install 'mysqlclient'"),
        ("mysql://me:b@h/a", "the module MySQLdb; pip install 'mysqlclient'"),
        ("mysql+pymysql://me:s3cret@h/a", "pip install 'pymysql'"),
        ("mssql://me:s3cret@h/a", "pip install 'pyodbc'"),
        ("oracle://me:s3cret@h/a", "pip install 'oracledb'"),
        ("postgresql+psycopg2://me:s3cret@h/a", "pip install 'psycopg2-binary'"),
        ("mongodb://me:s3cret@h/a", "no database that is known"),
        (":memory:", "needs a database URL"),
        ("studies.db", "needs a database URL"),
    ],
)
def test_a_storage_that_cannot_be_used(storage: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        stored_studies("small", storage)
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mysql://me:s3cret@h/a", "pip install 'mysqlclient'"),
        ("mysql+pymysql://me:s3cret@h/a", "pip install 'pymysql'"),
        ("mssql://me:s3cret@h/a", "pip install 'pyodbc'"),
        ("oracle://me:s3cret@h/a", "cannot be stored at this address"),
        ("postgresql://me:s3cret@h:port/a", "not the address of a database"),
    ],
)
def test_an_mlflow_that_cannot_be_used(project: Path, uri: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        connect(uri)
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_databases_with_the_tables_of_the_other(project: Path) -> None:
    """Neither is changed."""
    connect("sqlite:///runs.db")
    open_engine(experiment("optuna", "tpe"), "sqlite:///studies.db")
    before = {name: tables(project / name) for name in ("runs.db", "studies.db")}
    with pytest.raises(RequestError, match="this is a database of MLflow"):
        open_engine(experiment("optuna", "tpe"), "sqlite:///runs.db")
    with pytest.raises(RequestError, match="is a database of studies"):
        connect("sqlite:///studies.db")
    assert {name: tables(project / name) for name in before} == before


@pytest.mark.slow
def test_a_database_of_postgresql_with_the_tables_of_the_other(project: Path, postgres: Postgres) -> None:
    """A schema of its own is enough."""
    runs, studies = postgres.create("runs_first"), postgres.create("studies_first")
    connect(runs)
    open_engine(experiment("optuna", "tpe"), studies)
    with pytest.raises(RequestError, match="this is a database of MLflow"):
        open_engine(experiment("optuna", "tpe"), runs)
    with pytest.raises(RequestError, match="is a database of studies"):
        connect(studies)
    with closing(sqlalchemy.create_engine(runs).raw_connection()) as connection:
        connection.cursor().execute("CREATE SCHEMA studies")
        connection.commit()
    open_engine(experiment("optuna", "tpe"), f"{runs}&options=-csearch_path%3Dstudies")


def tables(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return sorted(name for (name,) in connection.execute("SELECT name FROM sqlite_master"))
