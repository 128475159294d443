"""A private PostgreSQL for a test: a cluster in a temporary folder, reached through a socket in it, gone afterwards."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

USER = "pneumo"


@dataclass(frozen=True)
class Postgres:
    """A server. `socket` is the folder of its socket; it listens on no port. `call` runs one of its programs on its data."""

    socket: Path
    password: str
    call: Callable[..., None]

    def start(self) -> None:
        """Start it on the data that it has; returns when it takes connections."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.socket} -c fsync=off"
        self.call("pg_ctl", "start", "--wait", "--log", "log", "--options", options)

    def stop(self) -> None:
        """Stop it, cutting every connection off, as a machine that goes down does."""
        self.call("pg_ctl", "stop", "--wait", "--mode=immediate")

    def create(self, database: str) -> str:
        """Create a database; its address for SQLAlchemy, Optuna's `--storage` and MLflow, password and all."""
        self.run(f'CREATE DATABASE "{database}"')
        return f"postgresql+psycopg://{USER}:{self.password}@/{database}?host={self.socket}"

    def run(self, statement: str) -> None:
        """One statement as the administrator, outside a transaction."""
        with psycopg.connect(
            host=str(self.socket), user=USER, password=self.password, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for the whole session; takes a few seconds to come up. Skips where there is none, but not under CI."""
    binaries = programs()
    if binaries is None:
        message = "PostgreSQL's server is not installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with running(binaries) as server:
        yield server


def programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; None where PostgreSQL's server is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: -int(folder.parent.name))
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    return next((f for f in [*folders, *installed] if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


@contextmanager
def running(binaries: Path) -> Iterator[Postgres]:
    """Start a server with the programs in `binaries`; stop it and remove its folder at the end."""
    # Not pytest's folder: PostgreSQL refuses to run as root, and another user may not enter that one. And the name of a
    # socket may have 107 letters at most.
    with tempfile.TemporaryDirectory(prefix="pneumo-pg-", dir="/tmp") as name:
        folder = Path(name)
        password = secrets.token_urlsafe(16)
        (folder / "password").write_text(password)
        user = None
        if os.geteuid() == 0:
            user = "nobody"
            for path in (folder, folder / "password"):
                shutil.chown(path, user)

        def call(program: str, *arguments: str) -> None:
            with (folder / "said").open("w") as said:  # not a pipe: the server would keep it open
                done = subprocess.run(
                    [binaries / program, "--pgdata", folder / "data", *arguments],
                    cwd=folder,
                    user=user,
                    group=None if user is None else pwd.getpwnam(user).pw_gid,
                    extra_groups=None if user is None else [],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    check=False,
                )
            assert done.returncode == 0, f"{program} failed: {(folder / 'said').read_text()}"

        identity = (f"--username={USER}", "--pwfile=password", "--auth=scram-sha-256")
        call("initdb", *identity, "--encoding=UTF8", "--no-locale", "--no-sync")
        server = Postgres(folder, password, call)
        server.start()
        try:
            yield server
        finally:
            server.stop()
