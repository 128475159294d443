"""A private PostgreSQL server for tests, with its data and its socket in a temporary folder."""

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
    """A PostgreSQL server.

    Attributes:
        socket: Folder of its socket. It listens on no port.
        password: Password of the user `USER`.
        call: Runs one of PostgreSQL's programs on the server's data.
    """

    socket: Path
    password: str
    call: Callable[..., None]

    def start(self) -> None:
        """Start the server on its data, and return when it accepts connections."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.socket} -c fsync=off"
        self.call("pg_ctl", "start", "--wait", "--log", "log", "--options", options)

    def stop(self) -> None:
        """Stop the server and break every connection, as in a crash of its machine."""
        self.call("pg_ctl", "stop", "--wait", "--mode=immediate")

    def create(self, database: str) -> str:
        """Create a database and return its URL with the password, for SQLAlchemy, `--storage` and MLflow."""
        self.run(f'CREATE DATABASE "{database}"')
        return f"postgresql+psycopg://{USER}:{self.password}@/{database}?host={self.socket}"

    def run(self, statement: str) -> None:
        """Run one statement as the administrator, outside a transaction."""
        with psycopg.connect(
            host=str(self.socket), user=USER, password=self.password, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Yield one server for the whole session. If PostgreSQL is not installed, skip the test, or fail it in CI."""
    binaries = programs()
    if binaries is None:
        message = "PostgreSQL's server is not installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with running(binaries) as server:
        yield server


def programs() -> Path | None:
    """Return the folder of `initdb` and `pg_ctl`; None if PostgreSQL's server is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: -int(folder.parent.name))
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    return next((f for f in [*folders, *installed] if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


@contextmanager
def running(binaries: Path) -> Iterator[Postgres]:
    """Yield a server that runs the programs in `binaries`. Stop it and remove its folder at the end."""
    # Not a folder of pytest: PostgreSQL refuses to run as root, and another user may not enter pytest's. Also, the path of
    # a socket has at most 107 characters.
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
            with (folder / "output").open("w") as output:  # not a pipe, which the server would keep open
                done = subprocess.run(
                    [binaries / program, "--pgdata", folder / "data", *arguments],
                    cwd=folder,
                    user=user,
                    group=None if user is None else pwd.getpwnam(user).pw_gid,
                    extra_groups=None if user is None else [],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    check=False,
                )
            assert done.returncode == 0, f"{program} failed: {(folder / 'output').read_text()}"

        identity = (f"--username={USER}", "--pwfile=password", "--auth=scram-sha-256")
        call("initdb", *identity, "--encoding=UTF8", "--no-locale", "--no-sync")
        server = Postgres(folder, password, call)
        server.start()
        try:
            yield server
        finally:
            server.stop()
