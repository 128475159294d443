"""Five engines on the real pictures: each study is killed and taken up, and all leave the same record in MLflow."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from tests.support.program import LONGEST, check_study, check_trial, client, command, runs, search, write

pytestmark = pytest.mark.slow

TRIALS, KILLED_AT = 8, 3

ENGINES: dict[str, dict[str, Any]] = {
    "optuna/tpe": {},
    "optuna/qmc": {},
    "optuna/nsga2": {"algorithm_settings": {"population_size": 3}},
    "keras-tuner/bayesian": {"algorithm_settings": {"num_initial_points": 3}},
    "keras-tuner/hyperband": {"algorithm_settings": {"factor": 2}},
}

SPACE = {
    "layers": {"low": 1, "high": 2},
    "filters": [4, 8],
    "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
    "channels": 1,
    "epochs": 4,
}


def files(folder: Path, run: Run) -> set[str]:
    """The artifacts of a run."""
    store, found, left = client(folder), set(), [""]
    while left:
        for one in store.list_artifacts(run.info.run_id, left.pop() or None):
            left += [one.path] if one.is_dir else []
            found |= set() if one.is_dir else {one.path}
    return found


def record(folder: Path, study: str) -> dict[str, set[str]]:
    """The names of all that a study left in MLflow, checked to be whole."""
    trials = check_study(folder, study, TRIALS)
    for run in trials:
        check_trial(folder, run)
    parent, _ = runs(folder, study)
    # Where a trial goes on from another, or from before a kill, it says so.
    tags = [set(run.data.tags) - {"pneumo.resumed_from", "pneumo.continued"} for run in trials]
    for kind in (tags, [set(run.data.params) for run in trials], [files(folder, run) for run in trials]):
        assert all(names == kind[0] for names in kind)
    return {
        "tags of a trial": tags[0],
        "parameters": set(trials[0].data.params),
        # The machine's own come while there is time for it.
        "metrics": {name for name in trials[0].data.metrics if not name.startswith("system/")},
        "artifacts": files(folder, trials[0]),
        "tags of the study": set(parent.data.tags),
        "metrics of the study": set(parent.data.metrics),
        "artifacts of the study": files(folder, parent),
    }


def under_way(folder: Path, number: int) -> bool:
    """Whether a trial has logged an epoch and goes on."""
    experiment = client(folder).get_experiment_by_name("small")
    condition = f"tags.`pneumo.trial` = '{number}' and attributes.status = 'RUNNING'"
    found = client(folder).search_runs([experiment.experiment_id], condition) if experiment else []
    return any("val_auc" in run.data.metrics for run in found)


@pytest.fixture(scope="module", params=ENGINES)
def taken_up(
    request: pytest.FixtureRequest, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Run]]:
    """A folder with a study that was killed while a trial was under way and taken up, and its trials at the kill."""
    engine, algorithm = request.param.split("/")
    folder = tmp_path_factory.mktemp("study")
    options = {"engine": engine, "algorithm": algorithm, "trials": TRIALS, "baseline": False} | ENGINES[request.param]
    data = {"source": "kaggle", "path": str(archive)}
    experiment = write(folder, data=data, hyperparameters=SPACE, search=options)
    program = subprocess.Popen(command(experiment), cwd=folder, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    for line in program.stdout:  # the databases are there when the third trial has ended
        if line.strip().startswith(f"{KILLED_AT}/{TRIALS}"):
            break
    until = time.monotonic() + LONGEST
    while not under_way(folder, KILLED_AT):
        assert program.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    program.kill()
    program.wait()
    _, before = runs(folder, "small")
    done = search(experiment, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, before


RECORDS: dict[str, dict[str, set[str]]] = {}
"""What the engines that were looked at before left."""


def test_a_killed_study_is_taken_up_and_leaves_the_same_record(taken_up: tuple[Path, list[Run]]) -> None:
    folder, before = taken_up
    finished = {run.info.run_id for run in before if run.info.status == "FINISHED"}
    assert [int(run.data.tags["pneumo.trial"]) for run in before] == list(range(KILLED_AT + 1))
    assert len(finished) == KILLED_AT
    store, (_, after) = client(folder), runs(folder, "small")
    numbers = [(int(run.data.tags["pneumo.trial"]), run.info.status) for run in after]
    again = [(KILLED_AT, "KILLED"), (KILLED_AT, "FINISHED")]
    whole = [(number, "FINISHED") for number in range(TRIALS)]
    assert numbers == whole[:KILLED_AT] + again + whole[KILLED_AT + 1 :]
    assert {run.info.run_id for run in after[:KILLED_AT]} == finished  # they were not run again
    assert after[KILLED_AT].data.params == after[KILLED_AT + 1].data.params  # and this one was
    store.delete_run(after[KILLED_AT].info.run_id)

    RECORDS[str(folder)] = record(folder, "small")
    assert all(one == RECORDS[str(folder)] for one in RECORDS.values())


@pytest.mark.parametrize("taken_up", ["keras-tuner/hyperband"], indirect=True)
def test_rungs_go_on_from_the_weights_of_the_rung_below(taken_up: tuple[Path, list[Run]]) -> None:
    folder, _ = taken_up
    _, trials = runs(folder, "small")
    by_number = {run.data.tags["pneumo.trial"]: run for run in trials if run.info.status == "FINISHED"}
    rungs = [run for run in by_number.values() if "pneumo.resumed_from" in run.data.tags]
    assert rungs
    for run in rungs:
        below = by_number[run.data.tags["pneumo.resumed_from"]]
        assert "pneumo.restarted" not in run.data.tags
        begun, ends = int(below.data.params["epochs"]), int(run.data.params["epochs"])
        assert run.data.metrics["epochs_trained"] == ends - begun
        assert run.data.params["seed"] == below.data.params["seed"]
        curves = [
            [metric.value for metric in client(folder).get_metric_history(one.info.run_id, "val_auc")]
            for one in (below, run)
        ]
        assert curves[1][:begun] == curves[0]
        assert len(curves[1]) == ends
    assert list((folder / "mlruns" / "checkpoints").rglob("*.npz"))  # with more trials, more rungs can go on
