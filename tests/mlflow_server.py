"""A real MLflow server on this machine; a test module takes it with `pytest_plugins = ["tests.mlflow_server"]`."""

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


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[str]:
    """Runs `mlflow server` with its database and artifacts in a folder; yields its address, stops it at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = options or ("--serve-artifacts", "--artifacts-destination", str(folder / "artifacts"))
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", *options]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield up(f"http://127.0.0.1:{port}", folder)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one server for the whole session; takes about ten seconds to come up."""
    with serve(tmp_path_factory.mktemp("mlflow-server")) as address:
        yield address


def up(address: str, folder: Path) -> str:
    """The address, as soon as it answers."""
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(90, backoff_factor=0.1, backoff_max=1)))
        try:
            session.get(f"{address}/health", timeout=5).raise_for_status()
        except requests.RequestException:
            pytest.fail(f"mlflow server did not come up:\n{(folder / 'server.log').read_text()[-2000:]}")
    return address
