"""The real program, killed with SIGKILL at random instants until its study is complete, and what it left each time.

The other drills: test_drills_server.py (the tracking server is away), test_drills_trials.py (bad trials), test_drills_disk.py
(a full disk, a database is away).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pneumo.engines.registry import stored_studies
from pneumo.engines.study_lock import lock_study
from pneumo.search.integrity import IntegrityReport, check_study
from pneumo.spec.result import Trial
from pneumo.tracking.store import Store
from tests.support.program import client, command, runs, search, write

pytestmark = pytest.mark.slow

STUDY = "small"
EPOCHS = 3
SPACE = {"filters": [2, 4, 8], "learning_rate": {"low": 0.001, "high": 0.01, "log": True}, "epochs": EPOCHS}
PAUSE = 0.02
"""Seconds between two looks at what a search has done."""

GO = {"train_seconds", "images_per_second", "predict_ms", "epoch_seconds", "epochs_trained", "model_bytes"}
"""What depends on how long a training took, and in how many goes."""

STAGES = {"imports": 5, "opening": 4, "training": 7, "told": 4}
"""In which part of its work a search is killed, and how often of twenty times."""


@dataclass
class Drill:
    """A study that is disturbed, and what was counted."""

    folder: Path
    experiment: Path
    chance: random.Random
    workers: int
    kills: int = 0
    compared: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def storage(self) -> str:
        return f"sqlite:///{self.folder}/mlruns/studies.db"

    @property
    def store(self) -> Store:
        return Store(f"sqlite:///{self.folder}/mlflow.db")

    def checked(self) -> IntegrityReport:
        with contextlib.chdir(self.folder):  # where the search keeps what it has not sent
            return check_study(self.store, STUDY, self.storage)

    def told(self) -> dict[int, Trial]:
        return {trial.number: trial for one in stored_studies(STUDY, self.storage) for trial in one.trials}

    def kill(self, stage: str) -> bool:
        """Starts the search and kills it, with all its processes, in this part of its work. False: it was done before."""
        before, known, epochs = self.told(), self.run_ids(), self.epochs()
        said = self.folder / "said.txt"
        began = time.monotonic()
        with said.open("w") as out:
            process = subprocess.Popen(
                command(self.experiment), cwd=self.folder, stdout=out, stderr=out, start_new_session=True
            )
        wait = self.chance.uniform(0, 0.3)
        further = self.chance.randint(1, EPOCHS)
        try:
            if stage == "imports":
                wait = self.chance.uniform(0, 2.5)
            elif stage == "opening":
                self.until(process, lambda: "\n" in said.read_text())
            elif self.until(process, lambda: bool(self.run_ids() - known)):
                self.seconds.append(time.monotonic() - began)
                self.whole_under_way()
                reached = {
                    "training": lambda: self.epochs() >= epochs + further,
                    "told": lambda: len(self.told()) > len(before),
                }
                self.until(process, reached[stage])
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
            done = process.poll()
            assert done in (None, 0), said.read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if done is None:
            self.kills += 1
        self.nothing_lost(before)
        return done is None

    def until(self, process: subprocess.Popen[Any], reached: Callable[[], bool]) -> bool:
        """Whether it came to that before the process ended."""
        while process.poll() is None:
            if reached():
                return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PAUSE)
        return False

    def run_ids(self) -> set[str]:
        """The runs of trials that were ever begun."""
        return {row[0] for row in self.rows("mlflow.db", "SELECT run_uuid FROM tags WHERE key = 'pneumo.trial'")}

    def epochs(self) -> int:
        """How many epochs stand in MLflow."""
        return sum(row[0] for row in self.rows("mlflow.db", "SELECT count(*) FROM metrics WHERE key = 'val_auc'"))

    def rows(self, database: str, query: str) -> list[Any]:
        """Of a database that may not be there, or in use."""
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.folder / database}?mode=ro", uri=True)) as one:
                return one.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []

    def whole_under_way(self) -> None:
        """The record while the search that took it up is at work."""
        found = self.checked()
        assert found.faults == ()
        running = [note for note in found.notes if "is RUNNING" in note]
        assert len(running) <= 1 + self.workers, found.notes  # what the killed ones left is closed

    def nothing_lost(self, before: dict[int, Trial]) -> None:
        """No finished trial was lost or run again, and the record is whole but for what the kill cut short."""
        after = self.told()
        assert {number: after.get(number) for number in before} == before
        if (self.folder / "mlflow.db").exists() and stored_studies(STUDY, self.storage):
            with lock_study(STUDY, self.storage):  # so that what is RUNNING is not counted as left over
                assert self.checked().faults == ()
        self.compared += len(after)


def drill(folder: Path, kills: int, **options: object) -> Drill:
    """A study killed so many times, then left alone until it is complete; compared with one that nobody disturbed."""
    seed = int(os.environ.get("PNEUMO_DRILL_SEED", random.SystemRandom().randrange(10**6)))
    print(f"\nPNEUMO_DRILL_SEED={seed}")
    chance = random.Random(seed)
    disturbed, undisturbed = folder / "disturbed", folder / "undisturbed"
    for one in (disturbed, undisturbed):
        one.mkdir()
        experiment = write(one, hyperparameters=SPACE, search=options)
        if one is undisturbed:
            done = search(experiment, folder=one)
            assert done.returncode == 0, done.stderr
    drill = Drill(disturbed, disturbed / "experiment.yaml", chance, int(str(options.get("workers", 1))))
    stages = [stage for stage, share in STAGES.items() for _ in range(round(share * kills / 20))]
    chance.shuffle(stages)
    for stage in stages:
        if not drill.kill(stage):
            break
    finished = drill.told()
    done = search(drill.experiment, folder=disturbed)
    assert done.returncode == 0, done.stderr
    assert {number: drill.told()[number] for number in finished} == finished
    checked = search("--check", STUDY, folder=disturbed)
    assert checked.stdout.endswith("whole.\n"), checked.stdout
    assert (checked.returncode, checked.stdout.count("\n")) == (0, 1)
    drill.compared += same(disturbed, undisturbed)
    return drill


def same(disturbed: Path, undisturbed: Path) -> int:
    """Compares two studies value by value: how many trials they have."""
    trials = [
        {
            trial.number: trial
            for one in stored_studies(STUDY, f"sqlite:///{folder}/mlruns/studies.db")
            for trial in one.trials
        }
        for folder in (disturbed, undisturbed)
    ]
    assert trials[0].keys() == trials[1].keys()
    for number, ours in trials[0].items():
        assert list(facts(disturbed, ours)) == list(facts(undisturbed, trials[1][number]))
    best = [runs(folder, STUDY)[0].data.metrics["best_trial"] for folder in (disturbed, undisturbed)]
    assert best[0] == best[1]
    return len(trials[0])


def facts(folder: Path, trial: Trial) -> Iterator[object]:
    """All that a trial came to, but for what depends on time."""
    mlflow, result = client(folder), trial.result
    yield trial.number, trial.candidate.hyperparameters, result.state, result.value, result.error
    yield {name: value for name, value in result.metrics.items() if name not in GO}
    run = mlflow.get_run(result.run_id)
    yield run.data.params
    for name in ("loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc"):
        yield [(metric.step, metric.value) for metric in mlflow.get_metric_history(result.run_id, name)]
    yield Path(mlflow.download_artifacts(result.run_id, "predictions.csv", str(folder))).read_text()


def report(drill: Drill) -> None:
    seconds = statistics.median(drill.seconds)
    print(
        f"kills survived {drill.kills}, records compared {drill.compared}, from the restart to the next trial under "
        f"way {seconds:.1f} s (median of {len(drill.seconds)}, longest {max(drill.seconds):.1f})"
    )


def test_a_study_that_is_killed_twenty_times_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    settings = {"pruner": "median", "pruner_settings": {"n_startup_trials": 2}}
    found = drill(tmp_path, 20, trials=20, **settings)
    report(found)
    assert found.kills == 20


def test_a_study_with_two_workers_survives_kills(tmp_path: Path) -> None:
    # Which trial is told first is luck, so here nothing is proposed by what was told.
    found = drill(tmp_path, 6, trials=10, workers=2, algorithm="random")
    report(found)
    assert found.kills > 0


def test_sigterm_ends_cleanly(tmp_path: Path) -> None:
    long = Drill(tmp_path, write(tmp_path, hyperparameters={"epochs": 300}, search={"trials": 1}), random.Random(0), 1)
    process = subprocess.Popen(command(long.experiment), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert long.until(process, lambda: long.epochs() > 0)
    process.terminate()
    said = process.stdout.read()
    assert process.wait() == 130
    assert "run the same command again" in said
    assert long.checked().faults == ()
    parent, (trial,) = runs(tmp_path, STUDY)
    assert (parent.info.status, trial.info.status) == ("KILLED", "KILLED")
