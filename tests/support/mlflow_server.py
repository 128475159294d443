"""A real MLflow server on this machine, for modules with `pytest_plugins = ["tests.support.mlflow_server"]`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry


class Server:
    """An `mlflow server` with database and artifacts in a folder. It has the same port after every start."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._options = options or ("--serve-artifacts", "--artifacts-destination", str(folder / "artifacts"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers, after about ten seconds."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}", *self._options]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True
            )
        up(self.address, self._folder)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all its processes. SIGSTOP makes it hang, SIGCONT ends that."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """Stop it if it runs."""
        if self._process is None:
            return
        self.send(signal.SIGTERM)
        self._process.wait(30)
        self._process = None


@contextmanager
def serve_model(model: str, store: str, folder: Path) -> Iterator[str]:
    """Run `mlflow models serve` and yield its address.

    Args:
        model: The model, as `models:/small@champion`.
        store: URI of the MLflow store.
        folder: Where the server runs and writes `server.log`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    beside = Path(sys.executable).parent
    command = [str(beside / "mlflow"), "models", "serve", "-m", model, "--env-manager", "local", "--port", str(port)]
    settings = {
        "MLFLOW_TRACKING_URI": store,
        "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield up(f"http://127.0.0.1:{port}", folder)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[str]:
    """Run a server in a folder, and yield its address."""
    server = Server(folder, *options)
    try:
        server.start()
        yield server.address
    finally:
        server.stop()


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of one server for the session. It takes about ten seconds to start."""
    with serve(tmp_path_factory.mktemp("mlflow-server")) as address:
        yield address


def up(address: str, folder: Path) -> str:
    """Return the address as soon as it answers."""
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(90, backoff_factor=0.1, backoff_max=1)))
        try:
            session.get(f"{address}/health", timeout=5).raise_for_status()
        except requests.RequestException:
            pytest.fail(f"mlflow server did not come up:\n{(folder / 'server.log').read_text()[-2000:]}")
    return address
