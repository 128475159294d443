"""Drills: the tracking server is away while the real program runs.

In the end the server holds the same record as it does of an undisturbed search of the same study.
"""

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

TIME_METRICS = {"epoch_seconds", "train_seconds", "images_per_second", "predict_ms", "model_bytes"}
"""Metrics that differ between two equal trainings. They are not compared."""


@dataclass(frozen=True)
class Drill:
    """A study whose MLflow is a shared server. Each test has a study of its own."""

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
        """Run the search as a process group of its own. Read its output with `read_until`."""
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

    def search_to_end(self, *options: str) -> subprocess.CompletedProcess[str]:
        return search(*self.arguments, *options, folder=self.folder, **self.environment)

    def is_interrupted_trial_queued(self) -> bool:
        """Return whether the end of an interrupted trial is in the outbox, not yet sent to the server."""
        with closing(
            sqlite3.connect(self.folder / "mlruns" / "outbox" / self.name / "outbox.db", timeout=60)
        ) as outbox:
            return bool(outbox.execute("SELECT 1 FROM operations WHERE call = 'discard_model'").fetchone())

    def check(self) -> str:
        """Return the output of `--check`."""
        return search("--check", self.name, folder=self.folder, **self.environment).stdout

    def wait_for_first_epoch(self, program: subprocess.Popen[str]) -> None:
        """Wait until MLflow has an epoch of the first trial, which is then still under way."""
        read_until(program, "MLflow: ")
        client = MlflowClient(self.server.address)
        experiment = None
        while not experiment or not any(
            "val_auc" in run.data.metrics for run in client.search_runs([experiment.experiment_id])
        ):
            assert program.poll() is None
            experiment = client.get_experiment_by_name(self.name)

    def record(self) -> list[dict[str, Any]]:
        """Return what the server holds of the study, without what differs between two equal searches."""
        client = MlflowClient(self.server.address)
        experiment = client.get_experiment_by_name(self.name)
        assert experiment is not None
        runs = record(client, experiment.experiment_id)
        for run in runs:
            run["tags"].pop("pneumo.continued", None)
            run["metrics"] = {
                k: v for k, v in run["metrics"].items() if k not in TIME_METRICS and not k.startswith("system/")
            }
            run["models"] = [
                (status, {k: v for k, v in metrics.items() if k not in TIME_METRICS}, params)
                for status, metrics, params in run["models"]
            ]
        return runs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def drill(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Drill:
    return make_drill(server, tmp_path, request.node.name)


def make_drill(server: Server, folder: Path, name: str) -> Drill:
    write(folder, hyperparameters=SPACE, search={"trials": TRIALS, "algorithm": "random"})
    return Drill(server, folder, name)


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what the server holds of a search of the same study that nothing disturbs."""
    drill = make_drill(server, tmp_path_factory.mktemp("undisturbed"), "undisturbed")
    done = drill.search_to_end()
    assert done.returncode == 0, done.stderr
    runs = drill.record()
    assert [run["ended"] for run in runs] == [("FINISHED", True)] * (1 + TRIALS)
    assert [step for step, _ in runs[1]["metrics"]["val_auc"]] == list(range(1, 16))
    assert [len(run["models"]) for run in runs] == [0, 1, 1, 1]
    return runs


def read_until(program: subprocess.Popen[str], *expected: str) -> str:
    """Read the output up to a line that contains one of the expected texts, and return that line."""
    assert program.stdout is not None
    lines = []
    for line in program.stdout:
        lines.append(line)
        if any(text in line for text in expected):
            return line
    pytest.fail(f"the program ended without {expected}:\n{''.join(lines)}")


class _FailingHandler(http.server.BaseHTTPRequestHandler):
    def _fail(self) -> None:
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _fail  # noqa: N815  (names from http.server)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def failing_server(port: int) -> Iterator[None]:
    """Run a server that answers every request with status 500."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), _FailingHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def test_a_server_that_stops_then_fails_then_is_back(drill: Drill, undisturbed: list[dict[str, Any]]) -> None:
    with drill.search() as program:
        drill.wait_for_first_epoch(program)
        drill.server.stop()
        try:
            assert "no trial waits for it" in read_until(program, "MLflow is away")
            read_until(program, "1 of 3 done  trial 0")
            with failing_server(drill.server.port):
                read_until(program, "2 of 3 done  trial 1")
        finally:
            drill.server.start()
        read_until(program, "MLflow is back")
        read_until(program, "Promote the best")
        assert program.wait(60) == 0
    assert drill.record() == undisturbed
    assert drill.check() == f"Study {drill.name}: 3 trials, 4 runs, no faults.\n"

    # Trial 1 began while the server was away, so the outbox knows its run by a key. A new outbox gets the key's run id
    # from MLflow.
    shutil.rmtree(drill.folder / "mlruns" / "outbox")
    further = drill.search_to_end("--trials", "4")
    assert further.returncode == 0, further.stderr
    assert drill.check() == f"Study {drill.name}: 4 trials, 5 runs, no faults.\n"


def test_a_server_that_hangs(drill: Drill, undisturbed: list[dict[str, Any]]) -> None:
    with drill.search() as program:
        drill.wait_for_first_epoch(program)
        drill.server.send(signal.SIGSTOP)
        try:
            assert "no answer in time" in read_until(program, "MLflow is away")
            read_until(program, "3 of 3 done  trial 2", "Waiting for MLflow")
        finally:
            drill.server.send(signal.SIGCONT)
        read_until(program, "Promote the best")
        assert program.wait(60) == 0
    assert drill.record() == undisturbed


def test_a_search_that_is_killed_in_an_outage_sends_what_it_left(
    drill: Drill, undisturbed: list[dict[str, Any]]
) -> None:
    with drill.search() as program:
        drill.wait_for_first_epoch(program)
        drill.server.stop()
        try:
            read_until(program, "2 of 3 done  trial 1")
            program.kill()
            program.wait()
            refused = drill.search_to_end()
            assert refused.returncode == 2
            assert "cannot be reached" in refused.stderr
        finally:
            drill.server.start()
    # The description of the study's run is among what was not sent, so nothing else is said of that run.
    not_sent, summary = drill.check().splitlines()
    sent_by = "the same search again sends them"
    assert re.fullmatch(rf"writes not sent to MLflow yet: \d+ \(mlruns/outbox/{drill.name}\); {sent_by}", not_sent)
    assert summary == f"Study {drill.name}: 2 trials, 2 runs, 1 fault."
    done = drill.search_to_end()
    assert done.returncode == 0, done.stderr
    assert "what an earlier search left" in done.stdout
    runs = drill.record()
    assert drill.check().endswith("no faults.\n")
    killed = [run for run in runs if run["ended"][0] == "KILLED"]
    assert len(killed) <= 1  # the run of the third trial, if it had begun before the kill
    assert [run for run in runs if run not in killed] == undisturbed


def test_a_server_that_never_comes_back_is_status_3_and_the_same_command_sends_all(
    drill: Drill, undisturbed: list[dict[str, Any]]
) -> None:
    with drill.search("--set", "search.outage=1s") as program:
        drill.wait_for_first_epoch(program)
        drill.server.stop()
        try:
            read_until(program, "3 of 3 done  trial 2")
            assert program.stdout is not None
            output = program.stdout.read()
            assert program.wait(60) == 3
            assert f"has not taken are in {drill.folder}/mlruns/outbox/{drill.name}" in output
            assert "the same command sends them" in output
        finally:
            drill.server.start()
    done = drill.search_to_end("--set", "search.outage=1s")
    assert done.returncode == 0, done.stderr
    assert drill.record() == undisturbed


def test_ctrl_c_ends_the_wait_and_loses_nothing(drill: Drill, undisturbed: list[dict[str, Any]]) -> None:
    with drill.search() as program:
        drill.wait_for_first_epoch(program)
        drill.server.stop()
        try:
            read_until(program, "Waiting for MLflow")
            os.killpg(program.pid, signal.SIGINT)  # to the workers too, as a terminal does
            assert "Nothing is lost" in read_until(program, "Interrupted")
            assert program.wait(60) == 130
        finally:
            drill.server.start()
    done = drill.search_to_end()
    assert done.returncode == 0, done.stderr
    assert drill.record() == undisturbed


def test_a_second_ctrl_c_waits_for_nothing_and_loses_nothing(drill: Drill, undisturbed: list[dict[str, Any]]) -> None:
    with drill.search() as program:
        drill.wait_for_first_epoch(program)
        drill.server.send(signal.SIGSTOP)
        try:
            os.killpg(program.pid, signal.SIGINT)
            while not drill.is_interrupted_trial_queued():  # the trial has ended, and the server does not answer
                assert program.poll() is None
            os.killpg(program.pid, signal.SIGINT)
            # After a wait for MLflow the line would go on with what was saved or not sent.
            assert "Interrupted. To resume the study" in read_until(program, "Interrupted")
            assert program.wait(60) == 130
        finally:
            drill.server.send(signal.SIGCONT)
    done = drill.search_to_end()
    assert done.returncode == 0, done.stderr
    runs = drill.record()
    assert [run for run in runs if run["ended"][0] != "KILLED"] == undisturbed
    assert drill.check().endswith("no faults.\n")


def test_models_that_are_not_kept_go_when_the_server_is_back(drill: Drill) -> None:
    with drill.search("--set", "search.keep.best=1", "--set", "search.baseline=false") as program:
        drill.wait_for_first_epoch(program)
        drill.server.stop()
        try:
            read_until(program, "3 of 3 done  trial 2")
        finally:
            drill.server.start()
        read_until(program, "Promote the best")
        assert program.wait(60) == 0
    study, *trials = drill.record()
    best = int(dict(study["metrics"]["best_trial"])[0].partition(".")[0])
    removed = ["pneumo.model_removed" in run["tags"] for run in trials]
    assert removed == [number != best for number in range(3)]
    assert drill.check().endswith("no faults.\n")
