"""Drills: the trials of the real program are killed, run out of memory, hang or crash."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow.entities import Run

from pneumo.engines.engine_table import open_engine
from pneumo.spec.errors import LESS_MEMORY
from pneumo.spec.experiment_file import read_experiment
from tests.support.drilled import SEGFAULTS
from tests.support.killed import curves, drilled_command, end, start, wait_for_checkpoint
from tests.support.program import EQUAL, LONGEST, SAME, called, client, command, runs, search, write

pytestmark = pytest.mark.slow


def finished_trials(experiment: Path, folder: Path) -> list[Mapping[str, Any]]:
    """Return the results that the engine was told, with the values that its pruner was given."""
    storage = f"sqlite:///{folder}/mlruns/studies.db"
    trials = open_engine(read_experiment(experiment), storage).trials()
    pruner_values = [
        trial.intermediate_values for trial in optuna.load_study(study_name="small", storage=storage).trials
    ]
    return [
        {
            "values": trial.candidate.hyperparameters,
            "state": trial.result.state,
            "value": trial.result.value,
            "history": trial.result.history,
            "pruner_values": values,
        }
        for trial, values in zip(trials, pruner_values, strict=True)
    ]


KILLS = [("driver", signal.SIGKILL), ("group", signal.SIGKILL), ("driver", signal.SIGTERM), ("group", signal.SIGTERM)]


def test_a_trial_that_is_killed_again_and_again_equals_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    space = {"dropout": [0.2, 0.3], "learning_rate": [0.001, 0.01], "batch_size": 2, "epochs": 50}
    options = {
        "trials": 2,
        "baseline": False,
        "try": [{"dropout": 0.2, "learning_rate": 0.01}],
        "pruner": "median",
        "pruner_settings": {"n_startup_trials": 1, "n_warmup_steps": 2},
    }
    for folder in (undisturbed, disturbed):
        folder.mkdir()
        experiment = write(folder, hyperparameters=space, search=options)
    # The undisturbed search runs at the same time: how fast the machine is does not change what is computed.
    undisturbed_search = start(command(experiment.name), undisturbed)
    checkpoint, epochs = disturbed / "mlruns" / "checkpoints" / "small" / "trial-0000.npz", 0
    for target, number in KILLS:
        program = start(drilled_command(experiment), disturbed)
        epochs = wait_for_checkpoint(program, checkpoint, epochs + 2)
        status, output, errors = end(program, target, number)
        assert "Traceback" not in errors
        if number == signal.SIGTERM:
            assert (status, errors) == (130, "")
            assert "run the same command again" in output
            parent, trials = runs(disturbed, "small")
            assert {run.info.status for run in (parent, *trials)} == {"KILLED"}
    done = search(experiment.name, folder=disturbed)
    assert done.returncode == 0, done.stderr
    assert undisturbed_search.communicate(timeout=LONGEST)
    assert undisturbed_search.returncode == 0

    _, expected = runs(undisturbed, "small")
    _, trials = runs(disturbed, "small")
    numbers = [int(run.data.tags["pneumo.trial"]) for run in trials]
    assert numbers == [0] * (len(KILLS) + 1) + [1]
    assert [run.info.status for run in trials] == ["KILLED"] * len(KILLS) + ["FINISHED"] * 2
    assert int(trials[-2].data.tags["pneumo.continued"].removeprefix("after epoch ")) >= epochs
    for run, expected_run in zip(trials[-2:], expected, strict=True):
        assert run.data.params == expected_run.data.params
        assert curves(disturbed, run) == curves(undisturbed, expected_run)
    assert [step for step, _ in curves(disturbed, trials[-2])["val_auc"]] == list(range(1, 51))
    assert trials[-2].data.metrics["epochs_trained"] == 50
    assert finished_trials(experiment, disturbed) == finished_trials(undisturbed / experiment.name, undisturbed)
    assert not checkpoint.parent.exists()

    replayed = called("replay", trials[-2].info.run_id, folder=disturbed)
    assert replayed.returncode == 0, replayed.stdout
    assert SAME in replayed.stdout
    assert EQUAL in replayed.stdout


def test_a_confirmation_continues_from_its_checkpoint(tmp_path: Path) -> None:
    options = {"trials": 1, "confirm": {"top": 1, "seeds": 2}}
    experiment = write(tmp_path, hyperparameters={"epochs": 40, "batch_size": 2}, search=options | {"baseline": False})
    program = start(drilled_command(experiment), tmp_path)
    folder = tmp_path / "mlruns" / "checkpoints" / "small"
    epochs = wait_for_checkpoint(program, folder / "confirm-0000-seed-1000001.npz", 2)
    assert [file.name for file in folder.glob("*.npz")] == ["confirm-0000-seed-1000001.npz"]
    end(program, "group", signal.SIGKILL)
    done = search(experiment.name, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    store = client(tmp_path)
    confirmations = store.search_runs([runs(tmp_path, "small")[0].info.experiment_id], "tags.`pneumo.role` = 'confirm'")
    (run,) = [run for run in confirmations if "pneumo.continued" in run.data.tags]
    assert int(run.data.tags["pneumo.continued"].removeprefix("after epoch ")) >= epochs
    assert sorted(run.info.status for run in confirmations) == ["FINISHED", "FINISHED", "KILLED"]
    assert EQUAL in called("replay", run.info.run_id, folder=tmp_path).stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_trial_ends_the_search(tmp_path: Path, number: signal.Signals) -> None:
    experiment = write(tmp_path)
    program = start(command(experiment.name), tmp_path)
    while not (tmp_path / "mlruns" / ".small.lock").exists():
        assert program.poll() is None
        time.sleep(0.02)
    status, _, errors = end(program, "group", number)
    assert status == 130
    assert "Traceback" not in errors


GOOD = {"filters": 4, "dense_units": 8, "learning_rate": 0.01, "weight_decay": 0.0, "epochs": 1}
BAD: dict[str, tuple[dict[str, object], str]] = {
    "diverges": ({"learning_rate": 10.0, "weight_decay": 1.0}, "try a lower learning_rate"),
    "out of memory": ({"filters": 1024, "dense_units": 8192}, f"out of memory on the host; {LESS_MEMORY}"),
    "hangs": ({"epochs": 9999}, "it took longer than trial_timeout, "),
    "crashes": ({"filters": SEGFAULTS}, "the worker process was ended by SIGSEGV"),
}
"""Ways in which a trial goes bad: the hyperparameters that cause it, and a part of the trial's error."""

SPACE = {
    "filters": [4, SEGFAULTS, 1024],
    "dense_units": [8, 8192],
    "learning_rate": [0.01, 10.0],
    "weight_decay": [0.0, 1.0],
    "epochs": [1, 9999],
}
"""Good and bad values. A space of bad values only would be refused: every model would be too large for the disk."""

DROPOUT = [0.1, 0.2, 0.3, 0.4]

FIXED = {"optimizer": "sgd", "batch_size": 1, "image_size": 64}


def run_drilled(experiment: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        drilled_command(experiment), cwd=folder, capture_output=True, text=True, timeout=LONGEST, check=False
    )


def test_each_bad_trial_costs_itself_only_and_says_why(tmp_path: Path) -> None:
    good = [GOOD | {"dropout": dropout} for dropout in DROPOUT]
    tries = [values for (bad, _), other in zip(BAD.values(), good, strict=True) for values in (GOOD | bad, other)]
    options = {"trials": len(tries), "baseline": False, "try": tries, "trial_timeout": "20s", "algorithm": "random"}
    experiment = write(tmp_path, hyperparameters=FIXED | SPACE | {"dropout": [0.0, *DROPOUT]}, search=options)
    done = run_drilled(experiment, tmp_path)
    assert done.returncode == 0, done.stderr
    _, trials = runs(tmp_path, "small")
    assert [run.info.status for run in trials] == ["FAILED", "FINISHED"] * len(BAD)
    for run, (_, reason) in zip(trials[::2], BAD.values(), strict=True):
        assert reason in run.data.tags["pneumo.error"]
        assert run.data.tags["pneumo.state"] == "failed"
        assert run.data.tags["pneumo.error"] in done.stdout
    assert "Fatal Python error: Segmentation fault" in worker_output(tmp_path, trials[6])
    assert "drilled.py" in worker_output(tmp_path, trials[6])  # the stack names the file that crashed
    assert len(client(tmp_path).get_metric_history(trials[4].info.run_id, "val_auc")) >= 1
    assert not (tmp_path / "mlruns" / "checkpoints" / "small").exists()


def worker_output(folder: Path, run: Run) -> str:
    """Return the last output of the worker process that died in this trial."""
    return Path(client(folder).download_artifacts(run.info.run_id, "output.txt", str(folder))).read_text()


@pytest.mark.parametrize("kind", ["out of memory", "hangs", "crashes"])
def test_bad_trials_in_a_row_end_the_study_with_their_cause(tmp_path: Path, kind: str) -> None:
    bad, reason = BAD[kind]
    tries = [GOOD | bad | {"dropout": dropout} for dropout in (0.1, 0.2)]
    # A pruned trial stores no model. With a pruner the search is therefore not refused for the disk space of the models.
    options = {"trials": 9, "baseline": False, "max_failures": 2, "try": tries, "pruner": "median"}
    options |= {"trial_timeout": "3s"} if kind == "hangs" else {}
    experiment = write(tmp_path, hyperparameters=FIXED | SPACE | {"dropout": [0.1, 0.2]}, search=options)
    done = run_drilled(experiment, tmp_path)
    assert done.returncode == 3, done.stdout
    *warnings, message = done.stderr.splitlines()  # perhaps a warning that the largest networks may not fit on the disk
    assert len(warnings) <= 1
    assert message.startswith(f"pneumo.search: 2 trials in a row failed, 2 of them: {reason}")
    parent, trials = runs(tmp_path, "small")
    assert [run.info.status for run in (parent, *trials)] == ["FAILED"] * 3
