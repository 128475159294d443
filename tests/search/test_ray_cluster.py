"""A study on a Ray cluster of two nodes, with PostgreSQL and an MLflow server, one after the other of which is lost."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pneumo.engines.engine_table import stored_studies
from tests.conftest import ROOT
from tests.support.mlflow_server import Server
from tests.support.postgres import Postgres
from tests.support.program import LONGEST, command, search
from tests.support.ray_clusters import start_nodes

TRIALS = 12
SHORTER = ["--set", "image_size=32", "--set", "epochs=2", "--set", "layers=[1, 2]", "--set", "search.stress=false"]
DONE = re.compile(rf"(\d+) of {TRIALS} done")


@contextmanager
def started(arguments: list[object], folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a search in a folder; kill it at the end of the context if it still runs."""
    program = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield program
    finally:
        if program.poll() is None:
            program.kill()
            program.wait()


def read_until(program: subprocess.Popen[str], is_expected: Callable[[str], bool], output: list[str]) -> None:
    """Read lines into `output` up to one that is expected."""
    assert program.stdout is not None
    for line in program.stdout:
        output.append(line)
        if is_expected(line):
            return
    pytest.fail("the program ended early:\n" + "".join(output))


def has_finished(number: int) -> Callable[[str], bool]:
    """Return whether a line says that so many trials are done."""
    return lambda line: bool((found := DONE.search(line)) and int(found[1]) >= number)


@pytest.mark.slow
def test_a_study_outlives_a_node_and_an_outage_of_mlflow(archive: Path, postgres: Postgres, tmp_path: Path) -> None:
    storage, server, output = postgres.create("cluster"), Server(tmp_path), list[str]()
    experiment = ROOT / "experiments" / "article.yaml"
    server.start()
    try:
        with start_nodes() as nodes:
            environment = {"MLFLOW_TRACKING_URI": server.address}
            arguments: list[object] = [experiment, "--data", archive, *SHORTER, "--trials", TRIALS]
            arguments += ["--storage", storage, "--ray", nodes.address]
            with started(arguments, tmp_path, environment) as program:
                read_until(program, has_finished(2), output)
                nodes.remove_node()
                read_until(program, has_finished(4), output)
                server.stop()
                read_until(program, lambda line: "MLflow is away" in line, output)
                nodes.add_node()
                read_until(program, has_finished(8), output)
                server.start()
                read_until(program, lambda line: "Promote the best" in line, output)
                assert program.wait(LONGEST) == 0, "".join(output)
        assert any("Training on: Ray" in line and "2 nodes" in line for line in output), "".join(output)

        (study,) = stored_studies("article", storage)
        assert (study.numbers, study.lost) == (tuple(range(TRIALS)), ())
        assert {trial.result.state for trial in study.trials} == {"complete"}
        checked = search("--check", "article", "--storage", storage, folder=tmp_path, **environment)
        assert checked.stdout.endswith("no faults.\n"), checked.stdout + checked.stderr

        runs = recorded_runs(server.address)
        assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
        finished = [run for run in runs if run.info.status == "FINISHED" and run.data.tags["pneumo.role"] == "trial"]
        assert sorted(int(run.data.tags["pneumo.trial"]) for run in finished) == list(range(TRIALS))
        assert all("best_val_auc" in run.data.metrics and run.outputs for run in finished)
    finally:
        server.stop()


def recorded_runs(address: str) -> list[Run]:
    """Return the runs of the study."""
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("article")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))
