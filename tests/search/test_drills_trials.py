"""Drills: the real program, whose trials are killed, run out of memory, hang or crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from mlflow.entities import Run

from pneumo.engines.engine_table import open_engine
from pneumo.spec.errors import LESS_MEMORY
from pneumo.spec.experiment_file import read_experiment
from tests.conftest import ROOT
from tests.support.drilled import SEGFAULTS
from tests.support.program import EQUAL, LONGEST, SAME, called, client, command, runs, search, write

pytestmark = pytest.mark.slow

SPEED = ("train_seconds", "images_per_second", "predict_ms", "model_bytes", "epoch_seconds", "system/")
"""Metrics that no two trainings have in common."""


def drilled(experiment: Path) -> list[str]:
    return [sys.executable, str(ROOT / "tests" / "support" / "drilled.py"), experiment.name]


def start(program: list[str], folder: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(program, cwd=folder, text=True, start_new_session=True, stdout=pipe, stderr=pipe)


def trained(file: Path) -> int:
    """How many epochs a checkpoint has."""
    try:
        with np.load(file, allow_pickle=False) as found:
            return len(json.loads(str(found["about"]))["history"])
    except (FileNotFoundError, zipfile.BadZipFile):
        return 0


def wait_for(program: subprocess.Popen[str], file: Path, epochs: int) -> int:
    """Waits until a checkpoint has so many epochs; how many it has then."""
    until = time.monotonic() + LONGEST
    while (found := trained(file)) < epochs:
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def end(program: subprocess.Popen[str], to: str, by: signal.Signals) -> tuple[int, str, str]:
    """Sends a signal to the driver or to the whole group; status and what it said."""
    (os.killpg if to == "group" else os.kill)(program.pid, by)
    said, error = program.communicate(timeout=LONGEST)
    return program.returncode, said, error


def curves(folder: Path, run: Run) -> dict[str, list[tuple[int, float]]]:
    """Every metric of a run as steps and values, but those of speed."""
    store = client(folder)
    histories = {name: store.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: [(m.step, m.value) for m in one] for name, one in histories.items() if not name.startswith(SPEED)}


def told(experiment: Path, folder: Path) -> list[Mapping[str, Any]]:
    """What the engine was told, and what its pruner saw."""
    storage = f"sqlite:///{folder}/mlruns/studies.db"
    trials = open_engine(read_experiment(experiment), storage).trials()
    seen = [trial.intermediate_values for trial in optuna.load_study(study_name="small", storage=storage).trials]
    return [
        {
            "values": trial.candidate.hyperparameters,
            "state": trial.result.state,
            "value": trial.result.value,
            "history": trial.result.history,
            "seen": values,
        }
        for trial, values in zip(trials, seen, strict=True)
    ]


KILLS = [("driver", signal.SIGKILL), ("group", signal.SIGKILL), ("driver", signal.SIGTERM), ("group", signal.SIGTERM)]


def test_a_trial_that_is_killed_again_and_again_is_as_one_that_was_not(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    space = {"dropout": [0.2, 0.3], "learning_rate": [0.001, 0.01], "batch_size": 2, "epochs": 50}
    options = {
        "trials": 2,
        "baseline": False,
        "try": [{"dropout": 0.2, "learning_rate": 0.01}],
        "pruner": "median",
        "pruner_settings": {"n_startup_trials": 1, "n_warmup_steps": 2},
    }
    for folder in (whole, broken):
        folder.mkdir()
        experiment = write(folder, hyperparameters=space, search=options)
    unbroken = start(command(experiment.name), whole)  # beside the other: bits do not follow from the time
    file, epochs = broken / "mlruns" / "checkpoints" / "small" / "trial-0000.npz", 0
    for to, by in KILLS:
        program = start(drilled(experiment), broken)
        epochs = wait_for(program, file, epochs + 2)
        status, said, error = end(program, to, by)
        assert "Traceback" not in error
        if by == signal.SIGTERM:
            assert (status, error) == (130, "")
            assert "run the same command again" in said
            parent, trials = runs(broken, "small")
            assert {run.info.status for run in (parent, *trials)} == {"KILLED"}
    done = search(experiment.name, folder=broken)
    assert done.returncode == 0, done.stderr
    assert unbroken.communicate(timeout=LONGEST)
    assert unbroken.returncode == 0

    _, expected = runs(whole, "small")
    _, found = runs(broken, "small")
    numbers = [int(run.data.tags["pneumo.trial"]) for run in found]
    assert numbers == [0] * (len(KILLS) + 1) + [1]
    assert [run.info.status for run in found] == ["KILLED"] * len(KILLS) + ["FINISHED"] * 2
    assert int(found[-2].data.tags["pneumo.continued"].removeprefix("after epoch ")) >= epochs
    for run, other in zip(found[-2:], expected, strict=True):
        assert run.data.params == other.data.params
        assert curves(broken, run) == curves(whole, other)
    assert [step for step, _ in curves(broken, found[-2])["val_auc"]] == list(range(1, 51))
    assert found[-2].data.metrics["epochs_trained"] == 50
    assert told(experiment, broken) == told(whole / experiment.name, whole)
    assert not file.parent.exists()

    replayed = called("replay", found[-2].info.run_id, folder=broken)
    assert replayed.returncode == 0, replayed.stdout
    assert SAME in replayed.stdout
    assert EQUAL in replayed.stdout


def test_a_training_that_confirms_goes_on_too(tmp_path: Path) -> None:
    options = {"trials": 1, "confirm": {"top": 1, "seeds": 2}}
    experiment = write(tmp_path, hyperparameters={"epochs": 40, "batch_size": 2}, search=options | {"baseline": False})
    program = start(drilled(experiment), tmp_path)
    folder = tmp_path / "mlruns" / "checkpoints" / "small"
    epochs = wait_for(program, folder / "confirm-0000-seed-1000001.npz", 2)
    assert [file.name for file in folder.glob("*.npz")] == ["confirm-0000-seed-1000001.npz"]
    end(program, "group", signal.SIGKILL)
    done = search(experiment.name, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    store = client(tmp_path)
    found = store.search_runs([runs(tmp_path, "small")[0].info.experiment_id], "tags.`pneumo.role` = 'confirm'")
    (run,) = [run for run in found if "pneumo.continued" in run.data.tags]
    assert int(run.data.tags["pneumo.continued"].removeprefix("after epoch ")) >= epochs
    assert sorted(run.info.status for run in found) == ["FINISHED", "FINISHED", "KILLED"]
    assert EQUAL in called("replay", run.info.run_id, folder=tmp_path).stdout


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_before_the_first_trial_a_signal_ends_it_too(tmp_path: Path, by: signal.Signals) -> None:
    experiment = write(tmp_path)
    program = start(command(experiment.name), tmp_path)
    while not (tmp_path / "mlruns" / ".small.lock").exists():
        assert program.poll() is None
        time.sleep(0.02)
    status, _, error = end(program, "group", by)
    assert status == 130
    assert "Traceback" not in error


GOOD = {"filters": 4, "dense_units": 8, "learning_rate": 0.01, "weight_decay": 0.0, "epochs": 1}
BAD: dict[str, tuple[dict[str, object], str]] = {
    "diverges": ({"learning_rate": 10.0, "weight_decay": 1.0}, "a lower learning_rate might do"),
    "out of memory": ({"filters": 1024, "dense_units": 8192}, f"out of memory on the host; {LESS_MEMORY}"),
    "hangs": ({"epochs": 9999}, "it took longer than trial_timeout, "),
    "crashes": ({"filters": SEGFAULTS}, "the worker process was ended by SIGSEGV"),
}
SPACE = {
    "filters": [4, SEGFAULTS, 1024],
    "dense_units": [8, 8192],
    "learning_rate": [0.01, 10.0],
    "weight_decay": [0.0, 1.0],
    "epochs": [1, 9999],
}
"""Good and bad values: a space of networks that are all too large for the disk would be refused."""

FIXED = {"optimizer": "sgd", "batch_size": 1, "image_size": 64}


def search_badly(experiment: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(drilled(experiment), cwd=folder, capture_output=True, text=True, timeout=LONGEST, check=False)


def test_each_bad_trial_costs_itself_only_and_says_why(tmp_path: Path) -> None:
    tries = [one for bad, _ in BAD.values() for one in (GOOD | bad, GOOD)]
    options = {"trials": len(tries), "baseline": False, "try": tries, "trial_timeout": "20s", "algorithm": "random"}
    experiment = write(tmp_path, hyperparameters=FIXED | SPACE, search=options)
    done = search_badly(experiment, tmp_path)
    assert done.returncode == 0, done.stderr
    _, trials = runs(tmp_path, "small")
    assert [run.info.status for run in trials] == ["FAILED", "FINISHED"] * len(BAD)
    for run, (_, reason) in zip(trials[::2], BAD.values(), strict=True):
        assert reason in run.data.tags["pneumo.error"]
        assert run.data.tags["pneumo.state"] == "failed"
        assert run.data.tags["pneumo.error"] in done.stdout
    assert "Fatal Python error: Segmentation fault" in output(tmp_path, trials[6])
    assert "drilled.py" in output(tmp_path, trials[6])  # where it was
    assert len(client(tmp_path).get_metric_history(trials[4].info.run_id, "val_auc")) >= 1
    assert not (tmp_path / "mlruns" / "checkpoints" / "small").exists()


def output(folder: Path, run: Run) -> str:
    return Path(client(folder).download_artifacts(run.info.run_id, "output.txt", str(folder))).read_text()


@pytest.mark.parametrize("kind", ["out of memory", "hangs", "crashes"])
def test_bad_trials_in_a_row_end_the_study_with_their_cause(tmp_path: Path, kind: str) -> None:
    bad, reason = BAD[kind]
    tries = [GOOD | bad | {"dropout": dropout} for dropout in (0.1, 0.2)]
    # With a pruner no model is certain, so that these are not refused for the room that theirs would take.
    options = {"trials": 9, "baseline": False, "max_failures": 2, "try": tries, "pruner": "median"}
    options |= {"trial_timeout": "3s"} if kind == "hangs" else {}
    experiment = write(tmp_path, hyperparameters=FIXED | SPACE | {"dropout": [0.1, 0.2]}, search=options)
    done = search_badly(experiment, tmp_path)
    assert done.returncode == 3, done.stdout
    *warned, said = done.stderr.splitlines()  # that the largest networks may not fit on the disk
    assert len(warned) <= 1
    assert said.startswith(f"pneumo.search: 2 trials in a row failed, 2 of them: {reason}")
    parent, trials = runs(tmp_path, "small")
    assert [run.info.status for run in (parent, *trials)] == ["FAILED"] * 3
