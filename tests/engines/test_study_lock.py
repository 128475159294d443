"""Two searches of one study at once, in two real processes that share an SQLite file or a PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from pneumo.engines.study_lock import lock_owner, lock_study
from pneumo.spec.errors import RequestError
from tests.support.postgres import USER, Postgres
from tests.support.program import command, search, write

LOCK = """
import sys, time
from pneumo.engines.study_lock import lock_study
with lock_study("small", sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def locking_process(storage: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that holds the lock of the study `small`. Kill it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK, storage], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def searching(experiment: Path, folder: Path, storage: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a search that holds the lock of its study. Kill its process group with SIGKILL at the end."""
    arguments = command(experiment, "--storage", storage)
    process = subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        assert any(line.startswith("Study") for line in process.stdout)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_study_in_a_file_is_held_once(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/studies.db"
    assert lock_owner("small", storage) is None
    assert list(tmp_path.iterdir()) == []  # asking for the owner creates nothing
    with locking_process(storage) as process:
        assert f"process {process.pid}, since" in str(lock_owner("small", storage))
        with (
            pytest.raises(RequestError, match=f"another search is at work on it .*process {process.pid}"),
            lock_study("small", storage),
        ):
            pass
        with lock_study("another", storage):
            pass
    assert lock_owner("small", storage) is None
    with lock_study("small", storage):
        assert f"process {os.getpid()}" in str(lock_owner("small", storage))


def test_an_error_of_the_search_is_not_reported_as_one_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), lock_study("small", f"sqlite:///{tmp_path}/studies.db"):
        raise OSError(28, "full")


def test_a_storage_that_cannot_be_locked_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RequestError, match="--storage: sqlite:///"),
        lock_study("small", f"sqlite:///{tmp_path}/file/s.db"),
    ):
        pass
    address = f"postgresql+psycopg://pneumo:very-secret@/none?host={tmp_path}"
    with pytest.raises(RequestError, match="--storage: postgresql") as refused, lock_study("small", address):
        pass
    assert "very-secret" not in str(refused.value)


@pytest.mark.slow
def test_two_folders_with_one_file_do_not_mix(tmp_path: Path) -> None:
    first, second = folders(tmp_path)
    check_second_search_is_refused(first, second, f"sqlite:///{tmp_path}/studies.db")


@pytest.mark.slow
def test_two_folders_with_one_postgresql_do_not_mix(postgres: Postgres, tmp_path: Path) -> None:
    first, second = folders(tmp_path)
    check_second_search_is_refused(first, second, postgres.create("two-searches"))


@pytest.mark.slow
def test_a_study_in_postgresql_is_held_once_and_again_after_an_outage(postgres: Postgres) -> None:
    storage = postgres.create("hold")
    assert lock_owner("small", storage) is None
    with locking_process(storage) as process:
        assert f"process {process.pid}, since" in str(lock_owner("small", storage))
        with (
            pytest.raises(RequestError, match=f"another search is at work on it .*process {process.pid}"),
            lock_study("small", storage),
        ):
            pass
        before = backends(postgres)
        postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'hold'")
        while not (after := backends(postgres)) or after & before:
            assert process.poll() is None
        while f"process {process.pid}" not in str(lock_owner("small", storage)):
            assert process.poll() is None


@pytest.mark.slow
def test_who_lost_a_study_to_another_search_ends(postgres: Postgres) -> None:
    storage = postgres.create("lost")
    with locking_process(storage) as process:
        os.kill(process.pid, signal.SIGSTOP)  # the machine sleeps
        postgres.run("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = 'lost'")
        with locking_process(storage) as other:
            os.kill(process.pid, signal.SIGCONT)
            assert process.wait(60) == -signal.SIGTERM
            assert f"process {other.pid}" in str(lock_owner("small", storage))


def folders(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    return first, second


def check_second_search_is_refused(first: Path, second: Path, storage: str) -> None:
    experiment = write(first.parent, hyperparameters={"epochs": 300}, search={"trials": 1, "baseline": False})
    with searching(experiment, first, storage) as process:
        done = search(experiment, "--storage", storage, folder=second)
        assert done.returncode == 2
        assert "another search is at work on it" in done.stderr
        assert f"process {process.pid}" in done.stderr
        assert done.stderr.count("\n") == 1
        assert list(second.iterdir()) == []
    # The first search was killed with SIGKILL: the study is resumed at once in the folder that has its record.
    again = search(experiment, "--storage", storage, "--set", "search.timeout=1e-9", folder=first)
    assert "another search" not in again.stderr
    assert "the time of" in again.stdout + again.stderr


def backends(postgres: Postgres) -> set[int]:
    """Return the ids of the PostgreSQL processes that serve the database `hold`."""
    with psycopg.connect(host=str(postgres.socket), user=USER, password=postgres.password, dbname="postgres") as one:
        return {row[0] for row in one.execute("SELECT pid FROM pg_stat_activity WHERE datname = 'hold'")}
