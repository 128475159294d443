"""The tracking server goes away while a real search runs: afterwards it holds what it would hold had it stayed."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.support.mlflow_server import Server
from tests.support.outboxes import record
from tests.support.program import command, search, write

pytestmark = pytest.mark.slow

SPACE = {"filters": [4, 8], "learning_rate": {"low": 0.001, "high": 0.01}, "epochs": 15}
TRIALS = 3

TIMES = {"epoch_seconds", "train_seconds", "images_per_second", "predict_ms", "model_bytes"}


@dataclass(frozen=True)
class Drill:
    """A study of its own at a server that is shared."""

    server: Server
    folder: Path
    name: str

    @property
    def arguments(self) -> list[Any]:
        return [self.folder / "experiment.yaml", "--name", self.name]

    @property
    def environment(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.server.address}

    @contextmanager
    def search(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """The search as a process group of its own; read its output with `line`."""
        program = subprocess.Popen(
            command(*self.arguments, *options),
            cwd=self.folder,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            yield program
        finally:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
                program.wait()

    def again(self, *options: str) -> subprocess.CompletedProcess[str]:
        return search(*self.arguments, *options, folder=self.folder, **self.environment)

    def closing(self) -> bool:
        """Whether the end of a trial that was interrupted is on its way to the server."""
        with closing(
            sqlite3.connect(self.folder / "mlruns" / "outbox" / self.name / "outbox.db", timeout=60)
        ) as outbox:
            return bool(outbox.execute("SELECT 1 FROM operations WHERE call = 'discard_model'").fetchone())

    def check(self) -> str:
        """What `--check` says."""
        return search("--check", self.name, folder=self.folder, **self.environment).stdout

    def trains(self, program: subprocess.Popen[str]) -> None:
        """Returns when MLflow shows an epoch of the first trial, which is then under way."""
        line(program, "MLflow: ")
        client = MlflowClient(self.server.address)
        experiment = None
        while not experiment or not any(
            "val_auc" in run.data.metrics for run in client.search_runs([experiment.experiment_id])
        ):
            assert program.poll() is None
            experiment = client.get_experiment_by_name(self.name)

    def record(self) -> list[dict[str, Any]]:
        """What the server holds, less what differs from run to run."""
        client = MlflowClient(self.server.address)
        experiment = client.get_experiment_by_name(self.name)
        assert experiment is not None
        runs = record(client, experiment.experiment_id)
        for run in runs:
            run["tags"].pop("pneumo.continued", None)
            run["metrics"] = {k: v for k, v in run["metrics"].items() if k not in TIMES and not k.startswith("system/")}
            run["models"] = [
                (status, {k: v for k, v in metrics.items() if k not in TIMES}, params)
                for status, metrics, params in run["models"]
            ]
        return runs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("server"))
    one.start()
    yield one
    one.stop()


@pytest.fixture
def drill(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Drill:
    return drilled(server, tmp_path, request.node.name)


def drilled(server: Server, folder: Path, name: str) -> Drill:
    write(folder, hyperparameters=SPACE, search={"trials": TRIALS, "algorithm": "random"})
    return Drill(server, folder, name)


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the server holds of the same study when nothing happened."""
    one = drilled(server, tmp_path_factory.mktemp("undisturbed"), "undisturbed")
    done = one.again()
    assert done.returncode == 0, done.stderr
    runs = one.record()
    assert [run["ended"] for run in runs] == [("FINISHED", True)] * (1 + TRIALS)
    assert [step for step, _ in runs[1]["metrics"]["val_auc"]] == list(range(1, 16))
    assert [len(run["models"]) for run in runs] == [0, 1, 1, 1]
    return runs


def line(program: subprocess.Popen[str], *wanted: str) -> str:
    """Reads on until a line holds one of these."""
    assert program.stdout is not None
    read = []
    for text in program.stdout:
        read.append(text)
        if any(one in text for one in wanted):
            return text
    pytest.fail(f"it ended without {wanted}:\n{''.join(read)}")


class _Failing(http.server.BaseHTTPRequestHandler):
    def _fail(self) -> None:
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _fail  # noqa: N815  (the library's names)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def failing(port: int) -> Iterator[None]:
    """A server that answers 500 to everything."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), _Failing) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield
        one.shutdown()


def test_a_server_that_stops_then_fails_then_is_back(drill: Drill, undisturbed: list[dict[str, Any]]) -> None:
    with drill.search() as program:
        drill.trains(program)
        drill.server.stop()
        try:
            assert "no trial waits for it" in line(program, "MLflow is away")
            line(program, "1/3  trial 0")
            with failing(drill.server.port):
                line(program, "2/3  trial 1")
        finally:
            drill.server.start()
        line(program, "MLflow is back")
        line(program, "Promote the best")
        assert program.wait(60) == 0
    assert drill.record() == undisturbed
    assert drill.check() == f"Study {drill.name}: 3 trials, 4 runs, whole.\n"

    # Trial 1 began while the server was away. What its key stands for is known to MLflow too.
    shutil.rmtree(drill.folder / "mlruns" / "outbox")
    further = drill.again("--trials", "4")
    assert further.returncode == 0, further.stderr
    assert drill.check() == f"Study {drill.name}: 4 trials, 5 runs, whole.\n"


def test_a_server_that_hangs(drill: Drill, undisturbed: list[dict[str, Any]]) -> None:
    with drill.search() as program:
        drill.trains(program)
        drill.server.send(signal.SIGSTOP)
        try:
            assert "no answer in time" in line(program, "MLflow is away")
            line(program, "3/3  trial 2", "Waiting for MLflow")
        finally:
            drill.server.send(signal.SIGCONT)
        line(program, "Promote the best")
        assert program.wait(60) == 0
    assert drill.record() == undisturbed


def test_a_search_that_is_killed_in_an_outage_sends_what_it_left(
    drill: Drill, undisturbed: list[dict[str, Any]]
) -> None:
    with drill.search() as program:
        drill.trains(program)
        drill.server.stop()
        try:
            line(program, "2/3  trial 1")
            program.kill()
            program.wait()
            refused = drill.again()
            assert refused.returncode == 2
            assert "cannot be reached" in refused.stderr
        finally:
            drill.server.start()
    left = drill.check().splitlines()
    assert left[0].startswith("study: run ")  # is RUNNING
    sent_by = "the same search again sends them"
    assert re.fullmatch(rf"writes not sent to MLflow yet: \d+ \(mlruns/outbox/{drill.name}\); {sent_by}", left[1])
    assert left[2:] == [f"Study {drill.name}: 2 trials, 2 runs, 2 faults."]
    done = drill.again()
    assert done.returncode == 0, done.stderr
    assert "what an earlier search left" in done.stdout
    runs = drill.record()
    assert drill.check().endswith("whole.\n")
    killed = [run for run in runs if run["ended"][0] == "KILLED"]
    assert len(killed) <= 1  # of the third trial, had it begun
    assert [run for run in runs if run not in killed] == undisturbed


def test_a_server_that_never_comes_back_is_status_3_and_the_same_command_sends_all(
    drill: Drill, undisturbed: list[dict[str, Any]]
) -> None:
    with drill.search("--set", "search.outage=1s") as program:
        drill.trains(program)
        drill.server.stop()
        try:
            line(program, "3/3  trial 2")
            assert program.stdout is not None
            said = program.stdout.read()
            assert program.wait(60) == 3
            assert f"has not taken are in {drill.folder}/mlruns/outbox/{drill.name}" in said
            assert "the same command sends them" in said
        finally:
            drill.server.start()
    done = drill.again("--set", "search.outage=1s")
    assert done.returncode == 0, done.stderr
    assert drill.record() == undisturbed


def test_ctrl_c_ends_the_wait_and_loses_nothing(drill: Drill, undisturbed: list[dict[str, Any]]) -> None:
    with drill.search() as program:
        drill.trains(program)
        drill.server.stop()
        try:
            line(program, "Waiting for MLflow")
            os.killpg(program.pid, signal.SIGINT)  # as a terminal does
            assert "Nothing is lost" in line(program, "Interrupted")
            assert program.wait(60) == 130
        finally:
            drill.server.start()
    done = drill.again()
    assert done.returncode == 0, done.stderr
    assert drill.record() == undisturbed


def test_a_second_ctrl_c_waits_for_nothing_and_loses_nothing(drill: Drill, undisturbed: list[dict[str, Any]]) -> None:
    with drill.search() as program:
        drill.trains(program)
        drill.server.send(signal.SIGSTOP)
        try:
            os.killpg(program.pid, signal.SIGINT)
            while not drill.closing():  # the trial is ended, and the server has not answered yet
                assert program.poll() is None
            os.killpg(program.pid, signal.SIGINT)
            assert "kept" not in line(program, "Interrupted")  # as it is said after the wait
            assert program.wait(60) == 130
        finally:
            drill.server.send(signal.SIGCONT)
    done = drill.again()
    assert done.returncode == 0, done.stderr
    runs = drill.record()
    assert [run for run in runs if run["ended"][0] != "KILLED"] == undisturbed
    assert drill.check().endswith("whole.\n")


def test_models_that_are_not_kept_go_when_the_server_is_back(drill: Drill) -> None:
    with drill.search("--set", "search.keep.best=1", "--set", "search.baseline=false") as program:
        drill.trains(program)
        drill.server.stop()
        try:
            line(program, "3/3  trial 2")
        finally:
            drill.server.start()
        line(program, "Promote the best")
        assert program.wait(60) == 0
    study, *trials = drill.record()
    best = int(dict(study["metrics"]["best_trial"])[0].partition(".")[0])
    removed = ["pneumo.model_removed" in run["tags"] for run in trials]
    assert removed == [number != best for number in range(3)]
    assert drill.check().endswith("whole.\n")
