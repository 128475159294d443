"""Start searches that are killed, and read what they recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from mlflow.entities import Run

from tests.conftest import ROOT
from tests.support.program import LONGEST, client

TIME_METRICS = ("train_seconds", "images_per_second", "predict_ms", "model_bytes", "epoch_seconds", "system/")
"""Prefixes of metrics that differ between two equal trainings. They are not compared."""


def drilled_command(experiment: Path) -> list[str]:
    """Return the command of a search whose trials fail on purpose (see `tests.support.drilled`)."""
    return [sys.executable, str(ROOT / "tests" / "support" / "drilled.py"), experiment.name]


def start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, cwd=folder, text=True, start_new_session=True, stdout=pipe, stderr=pipe)


def count_epochs(checkpoint: Path) -> int:
    """Return after how many epochs a checkpoint was written; 0 if there is none yet."""
    try:
        with np.load(checkpoint, allow_pickle=False) as arrays:
            return len(json.loads(str(arrays["about"]))["history"])
    except (FileNotFoundError, zipfile.BadZipFile):
        return 0


def wait_for_checkpoint(program: subprocess.Popen[str], checkpoint: Path, epochs: int) -> int:
    """Wait until a checkpoint has at least `epochs` epochs. Return how many it has then."""
    deadline = time.monotonic() + LONGEST
    while (epochs_done := count_epochs(checkpoint)) < epochs:
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return epochs_done


def end(program: subprocess.Popen[str], target: str, number: signal.Signals) -> tuple[int, str, str]:
    """Send a signal and return the exit status, standard output and standard error.

    Args:
        program: The driver, which leads a process group of its own.
        target: `driver`, or `group` for the driver and its workers.
        number: The signal.
    """
    (os.killpg if target == "group" else os.kill)(program.pid, number)
    output, errors = program.communicate(timeout=LONGEST)
    return program.returncode, output, errors


def curves(folder: Path, run: Run) -> dict[str, list[tuple[int, float]]]:
    """Return the steps and values of every metric of a run, without those that depend on time."""
    store = client(folder)
    names = [name for name in run.data.metrics if not name.startswith(TIME_METRICS)]
    return {name: [(m.step, m.value) for m in store.get_metric_history(run.info.run_id, name)] for name in names}
