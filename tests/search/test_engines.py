"""Studies of three algorithms on real pictures are killed and resumed; all leave the same kind of record in MLflow."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from tests.support.program import LONGEST, check_study, check_trial, client, command, runs, search, write

pytestmark = pytest.mark.slow

TRIALS, KILLED_TRIAL = 8, 3

ENGINES: dict[str, dict[str, Any]] = {
    "optuna/tpe": {},
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


def artifact_paths(folder: Path, run: Run) -> set[str]:
    """Return the paths of a run's artifacts."""
    store, paths, folders = client(folder), set(), [""]
    while folders:
        for file in store.list_artifacts(run.info.run_id, folders.pop() or None):
            if file.is_dir:
                folders.append(file.path)
            else:
                paths.add(file.path)
    return paths


def recorded_names(folder: Path, study: str) -> dict[str, set[str]]:
    """Check that a study's record is complete, and return the names of everything in it."""
    trials = check_study(folder, study, TRIALS)
    for run in trials:
        check_trial(folder, run)
    parent, _ = runs(folder, study)
    # The first tag is only of trials that continue another trial, the second only of trials that continued after a kill.
    tags = [set(run.data.tags) - {"pneumo.resumed_from", "pneumo.continued"} for run in trials]
    for kind in (tags, [set(run.data.params) for run in trials], [artifact_paths(folder, run) for run in trials]):
        assert all(names == kind[0] for names in kind)
    return {
        "tags of a trial": tags[0],
        "parameters": set(trials[0].data.params),
        # MLflow samples the system metrics at intervals, so a short trial may have none.
        "metrics": {name for name in trials[0].data.metrics if not name.startswith("system/")},
        "artifacts": artifact_paths(folder, trials[0]),
        "tags of the study": set(parent.data.tags),
        "metrics of the study": set(parent.data.metrics),
        "artifacts of the study": artifact_paths(folder, parent),
    }


def is_training(folder: Path, number: int) -> bool:
    """Return whether a trial has logged an epoch and is still under way."""
    experiment = client(folder).get_experiment_by_name("small")
    condition = f"tags.`pneumo.trial` = '{number}' and attributes.status = 'RUNNING'"
    running = client(folder).search_runs([experiment.experiment_id], condition) if experiment else []
    return any("val_auc" in run.data.metrics for run in running)


@pytest.fixture(scope="module", params=ENGINES)
def resumed(
    request: pytest.FixtureRequest, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Run]]:
    """Return the folder of a study that was killed during a trial and resumed, and its trials' runs before it was resumed."""
    engine, algorithm = request.param.split("/")
    folder = tmp_path_factory.mktemp("study")
    options = {"engine": engine, "algorithm": algorithm, "trials": TRIALS, "baseline": False} | ENGINES[request.param]
    data = {"source": "kaggle", "path": str(archive)}
    experiment = write(folder, data=data, hyperparameters=SPACE, search=options)
    program = subprocess.Popen(command(experiment), cwd=folder, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    for line in program.stdout:  # after this line the databases exist
        if line.strip().startswith(f"{KILLED_TRIAL} of {TRIALS} done"):
            break
    deadline = time.monotonic() + LONGEST
    while not is_training(folder, KILLED_TRIAL):
        assert program.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    program.kill()
    program.wait()
    _, before = runs(folder, "small")
    done = search(experiment, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, before


RECORDS: dict[str, dict[str, set[str]]] = {}
"""The recorded names of the studies that were checked before, by folder."""


def test_a_killed_study_is_resumed_and_leaves_the_same_record(resumed: tuple[Path, list[Run]]) -> None:
    folder, before = resumed
    finished = {run.info.run_id for run in before if run.info.status == "FINISHED"}
    assert [int(run.data.tags["pneumo.trial"]) for run in before] == list(range(KILLED_TRIAL + 1))
    assert KILLED_TRIAL - 1 <= len(finished) <= KILLED_TRIAL  # the plots of the last one may not have been drawn yet
    store, (_, after) = client(folder), runs(folder, "small")
    numbers = [(int(run.data.tags["pneumo.trial"]), run.info.status) for run in after]
    trained_twice = [(KILLED_TRIAL, "KILLED"), (KILLED_TRIAL, "FINISHED")]
    complete = [(number, "FINISHED") for number in range(TRIALS)]
    assert numbers == complete[:KILLED_TRIAL] + trained_twice + complete[KILLED_TRIAL + 1 :]
    assert {run.info.run_id for run in after[:KILLED_TRIAL]} == {
        run.info.run_id for run in before[:KILLED_TRIAL]
    }  # finished trials are not run again
    assert after[KILLED_TRIAL].data.params == after[KILLED_TRIAL + 1].data.params  # the killed trial is run again
    store.delete_run(after[KILLED_TRIAL].info.run_id)

    RECORDS[str(folder)] = recorded_names(folder, "small")
    assert all(names == RECORDS[str(folder)] for names in RECORDS.values())


@pytest.mark.parametrize("resumed", ["keras-tuner/hyperband"], indirect=True)
def test_a_rung_continues_from_the_weights_of_the_rung_below(resumed: tuple[Path, list[Run]]) -> None:
    folder, _ = resumed
    _, trials = runs(folder, "small")
    by_number = {run.data.tags["pneumo.trial"]: run for run in trials if run.info.status == "FINISHED"}
    rungs = [run for run in by_number.values() if "pneumo.resumed_from" in run.data.tags]
    assert rungs
    for run in rungs:
        below = by_number[run.data.tags["pneumo.resumed_from"]]
        assert "pneumo.restarted" not in run.data.tags
        first, last = int(below.data.params["epochs"]), int(run.data.params["epochs"])
        assert run.data.metrics["epochs_trained"] == last - first
        assert run.data.params["seed"] == below.data.params["seed"]
        curve_below, curve = [
            [metric.value for metric in client(folder).get_metric_history(rung.info.run_id, "val_auc")]
            for rung in (below, run)
        ]
        assert curve[:first] == curve_below
        assert len(curve) == last
    assert list(
        (folder / "mlruns" / "checkpoints").rglob("*.npz")
    )  # with more trials, further rungs can continue from them
