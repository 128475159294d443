"""Connect to MLflow, and one clear line if that fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pneumo.spec.errors import RequestError
from pneumo.spec.masking import mask_passwords
from pneumo.tracking.store import connect
from tests.conftest import ROOT

OPEN = "from pneumo.tracking.store import connect; print(connect().client.create_experiment('{name}'))"

# Creates a database. Each attempt is a process of its own: the first dies after its first statement, the next after its 302nd,
# and so on, until one succeeds. Each can use the database that the one before left. Prints how many processes died.
DYING = """
import os, sys
from pathlib import Path
from pneumo.tracking.store import connect

def child(dies_at):
    if made := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(made, 0)[1])
    done = 0
    def die(frame, event, called):
        nonlocal done
        if event == "c_return" and called.__name__ == "execute":
            done += 1
            if done == dies_at:
                os._exit(9)
    sys.setprofile(die)
    connect(uri).client.search_experiments()
    os._exit(0)

for died in range(100):
    uri = f"sqlite:///{sys.argv[1]}/{died}.db"
    status = child(1 + 301 * died)
    if status == 0:
        break
    assert status == 9, status
    assert child(0) == 0, died
print(died)
"""


class _Refusing(BaseHTTPRequestHandler):
    """Answers 401 under /locked, and elsewhere as a web site that is not MLflow's."""

    def do_GET(self) -> None:
        self.send_response(401 if self.path.startswith("/locked") else 200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def website() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def refused(uri: str) -> str:
    with pytest.raises(RequestError) as caught:
        connect(uri)
    message = str(caught.value)
    assert "s3cret" not in message
    assert "\n" not in message
    return message


def test_an_unreachable_server(website: str) -> None:
    assert "cannot be reached" in refused("http://someone:s3cret@127.0.0.1:1")
    assert "cannot be reached" in refused("http://someone:s3cr3t@s3cret@host.invalid:5000")


def test_a_server_that_refuses(website: str) -> None:
    message = refused(f"http://someone:s3cret@{website}/locked")
    assert "HTTP 401" in message
    assert "MLFLOW_TRACKING_USERNAME" in message


def test_a_server_that_is_no_mlflow(website: str) -> None:
    assert "not as an MLflow server does" in refused(f"http://someone:s3cret@{website}")


def test_a_server_that_does_not_answer() -> None:
    with HTTPServer(("127.0.0.1", 0), _Refusing) as silent:  # listens, and nobody answers
        assert "no answer within 5 s" in refused(f"http://someone:s3cret@127.0.0.1:{silent.server_port}")


@pytest.mark.parametrize("uri", ["ftp://someone:s3cret@host/x", "nowhere", "file:///tmp/mlruns"])
def test_an_address_of_no_store(uri: str) -> None:
    assert "sqlite:///path.db" in refused(uri)


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    assert "there is no folder" in refused(f"sqlite:///{tmp_path}/nowhere/mlflow.db")
    assert "unable to open" in refused(f"sqlite:///{tmp_path}")
    (tmp_path / "text.db").write_text("this is no database " * 100)
    assert "not a database" in refused(f"sqlite:///{tmp_path}/text.db")


def test_a_database_server_that_is_not_there() -> None:
    pytest.importorskip("psycopg")
    assert "cannot be opened" in refused("postgresql+psycopg://someone:s3cret@127.0.0.1:1/mlflow")


def test_the_environment_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:s3cret@127.0.0.1:1")
    with pytest.raises(RequestError, match=r"http://\*\*\*@127.0.0.1:1: cannot be reached"):
        connect()


def test_masked_leaves_the_rest() -> None:
    assert (
        mask_passwords("at http://me:pa@ss/w@host:1/x and sqlite:///a.db")
        == "at http://***@host:1/x and sqlite:///a.db"
    )


def test_the_default_is_what_mlflow_shows_in_this_folder(project: Path) -> None:
    connect().client.create_experiment("ours")
    assert [experiment.name for experiment in MlflowClient().search_experiments()] == ["ours", "Default"]
    assert sorted(path.name for path in project.iterdir()) == ["mlflow.db"]


@pytest.mark.slow
def test_a_database_whose_creation_was_killed_is_created_by_the_next(project: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DYING, str(project)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3


@pytest.mark.slow
def test_processes_that_start_at_once_share_one_new_database(project: Path) -> None:
    """Nothing is printed meanwhile."""
    ours = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN.format(name=f"study-{number}")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for number in range(2)
    ]
    outputs = [process.communicate() for process in ours]
    assert [errors for _, errors in outputs] == ["", ""]
    assert sorted(output.strip() for output, _ in outputs) == ["1", "2"]
    assert {experiment.name for experiment in connect().client.search_experiments()} == {
        "Default",
        "study-0",
        "study-1",
    }
    assert sorted(path.name for path in project.iterdir()) == ["mlflow.db"]
