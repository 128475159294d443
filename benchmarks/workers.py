"""Measure how many trials an hour this machine trains, by the number of workers and the place where they run.

    python benchmarks/workers.py --data chest-xray-pneumonia.zip
    python benchmarks/workers.py --data chest-xray-pneumonia.zip --with "--workers 1" --with "--workers 2" --with "--ray local"

Each `--with` is the options of a search. A round runs one search with each of them, one after another; the next round runs
them in the reverse order, so that what else the machine does falls on all of them alike. Each search is a new study of the
same trials (algorithm random, the same seed), in a new folder, with the pictures in the cache. Let nothing else run meanwhile.

Prints for each search the wall time, the trials an hour, and the same without what is before the first trial and after the
last; and at the end, for each `--with`, the median over the rounds and the median of its ratio to the first one in the same
round, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from mlflow import MlflowClient

NAME = "workers"

EXPERIMENT = {
    "name": NAME,
    "hyperparameters": {
        "layers": {"low": 1, "high": 3},
        "filters": [16, 32],
        "learning_rate": {"low": 3e-4, "high": 3e-3, "log": True},
    },
    "search": {"algorithm": "random"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="the archive: a zip or a folder")
    parser.add_argument("--with", dest="settings", action="append", help="options of a search; may be repeated")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--trials", type=int, default=6, help="number of trials of a search")
    parser.add_argument("--epochs", type=int, default=5, help="number of epochs of a trial")
    options = parser.parse_args()
    settings = options.settings or ["--workers 1", "--workers 2"]
    fixed = [
        "--data",
        str(options.data.resolve()),
        "--trials",
        str(options.trials),
        "--set",
        f"epochs={options.epochs}",
    ]
    run_search(["--data", str(options.data.resolve()), "--trials", "1", "--set", "epochs=1"])  # decodes the pictures
    rates: dict[str, list[float]] = {setting: [] for setting in settings}
    print("round  wall s  trials/h  while training trials/h  options", flush=True)
    for number in range(options.rounds):
        for setting in settings if number % 2 == 0 else reversed(settings):
            wall, training = run_search([*fixed, *shlex.split(setting)])
            hourly = [options.trials * 3600 / seconds for seconds in (wall, training)]
            rates[setting].append(hourly[1])
            print(f"{number + 1:5}  {wall:6.1f}  {hourly[0]:8.1f}  {hourly[1]:23.1f}  {setting}", flush=True)
    print("\ntrials/h while training, median of the rounds (lowest to highest); ratio to the first in the same round")
    for setting, values in rates.items():
        ratios = [value / first for value, first in zip(values, rates[settings[0]], strict=True)]
        print(f"{describe(values, 1)}; {describe(ratios, 3)}  {setting}")


def run_search(options: Sequence[str]) -> tuple[float, float]:
    """Run a search in a new folder. Return its seconds, and those from the start of the first trial to the end of the last."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
        removed = ("MLFLOW_TRACKING_URI", "PNEUMO_STORAGE")
        environment = {name: value for name, value in os.environ.items() if name not in removed}
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pneumo.search", "experiment.yaml", *options],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        wall = time.monotonic() - start
        if done.returncode:
            sys.exit(
                f"the search with {shlex.join(options)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        experiment = client.get_experiment_by_name(NAME)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], "tags.`pneumo.role` = 'trial'")
        first, last = min(run.info.start_time for run in runs), max(run.info.end_time for run in runs)
        return wall, (last - first) / 1000


def describe(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
