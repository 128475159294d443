"""Searches on Ray: their record is that of a search in processes of this machine, and nothing of them stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from pneumo.spec.cores import usable_cores
from tests.support.program import LONGEST, client, command, runs, search, write

SPEED = {"train_seconds", "images_per_second", "predict_ms", "model_bytes"}
"""Metrics that depend on the speed of the machine or, as `model_bytes`, on the time of writing."""


def study(folder: Path, epochs: int = 2) -> Path:
    """Write an experiment of three trials, two at a time, whose workers have as many threads on Ray as in processes."""
    folder.mkdir()
    return write(
        folder,
        hyperparameters={"epochs": epochs, "learning_rate": {"low": 0.001, "high": 0.01}},
        search={"trials": 3, "workers": 2, "algorithm": "random"},
        compute={"cpus": max(1, usable_cores() // 2)},
    )


def values(folder: Path) -> list[tuple[dict[str, str], dict[str, float], list[str]]]:
    """Return parameters, metrics and artifacts of each trial, without what depends on the speed."""
    store = client(folder)
    return [
        (
            run.data.params,
            {
                name: value
                for name, value in run.data.metrics.items()
                if name not in SPEED and "seconds" not in name and not name.startswith("system/")
            },
            sorted(item.path for item in store.list_artifacts(run.info.run_id)),
        )
        for run in runs(folder, "small")[1]
    ]


@pytest.mark.slow
def test_a_study_on_ray_has_the_record_of_one_in_processes(tmp_path: Path) -> None:
    here, ray = tmp_path / "here", tmp_path / "ray"
    done = search(study(here).name, folder=here)
    assert done.returncode == 0, done.stderr
    done = search(study(ray).name, "--ray", "local", folder=ray, RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stderr
    assert "Training on: Ray (local), 1 node" in done.stdout
    assert values(ray) == values(here)
    check = search("--check", "small", folder=ray)
    assert check.returncode == 0, check.stdout
    assert "no faults" in check.stdout


@pytest.mark.slow
def test_ctrl_c_ends_every_actor_and_closes_the_runs(tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    experiment = study(folder, epochs=300)
    line = command(experiment.name, "--ray", "local")
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    program = subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    checkpoints = folder / "mlruns" / "checkpoints" / "small"
    while not list(checkpoints.glob("trial-*.npz")):
        assert program.poll() is None
        time.sleep(0.05)
    processes = psutil.Process(program.pid).children(recursive=True)
    assert any("ray::" in " ".join(process.cmdline()) for process in processes)
    program.send_signal(signal.SIGINT)
    output = program.communicate(timeout=LONGEST)[0]
    assert program.returncode == 130, output
    assert psutil.wait_procs(processes, timeout=60)[1] == []
    assert {run.info.status for run in runs(folder, "small")[1]} == {"KILLED"}


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    done = search("--ray", "somewhere", folder=tmp_path)
    assert done.returncode == 2
    assert "--ray: auto, local, HOST:PORT or ray://HOST:PORT, got 'somewhere'" in done.stderr
