"""Drills: the real program is killed with SIGKILL at random instants, and the study's record is checked after each kill.

The other drills are test_drills_server.py (the tracking server is away), test_drills_trials.py (bad trials) and
test_drills_disk.py (the disk is full, or the database is away).
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
from mlflow.entities import Run

from pneumo.engines.engine_table import stored_studies
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
"""Seconds between two looks at the progress of a search."""

TIME_METRICS = {"train_seconds", "images_per_second", "predict_ms", "epoch_seconds", "epochs_trained", "model_bytes"}
"""Metrics that depend on how long a training took, or on how often it was interrupted. They are not compared."""

STAGES = {"imports": 5, "opening": 4, "training": 7, "finished": 4}
"""The stages of a search in which it is killed, each with its share of 20 kills.

imports    the process has just started
opening    the first line was printed
training   a trial has trained further epochs
finished   the engine was told a further result
"""


@dataclass
class Drill:
    """A study whose searches are killed, with the counts for the printed report.

    Args:
        folder: The folder that the searches run in.
        experiment: The experiment file.
        generator: Draws the instants of the kills.
        workers: How many workers a search has.
        kills: How many searches were killed.
        compared: How many records of trials were compared.
        restart_seconds: For each search, the seconds from its start until its first trial was under way.
    """

    folder: Path
    experiment: Path
    generator: random.Random
    workers: int
    kills: int = 0
    compared: int = 0
    restart_seconds: list[float] = field(default_factory=list)

    @property
    def storage(self) -> str:
        return f"sqlite:///{self.folder}/mlruns/studies.db"

    @property
    def store(self) -> Store:
        return Store(f"sqlite:///{self.folder}/mlflow.db")

    def check(self) -> IntegrityReport:
        with contextlib.chdir(self.folder):  # the outbox is found relative to the current folder
            return check_study(self.store, STUDY, self.storage)

    def finished_trials(self) -> dict[int, Trial]:
        return {trial.number: trial for study in stored_studies(STUDY, self.storage) for trial in study.trials}

    def kill(self, stage: str) -> bool:
        """Start the search and kill all its processes in this stage. Return False if the search ended before the kill."""
        before, run_ids, epochs = self.finished_trials(), self.trial_run_ids(), self.count_epochs()
        output = self.folder / "output.txt"
        started_at = time.monotonic()
        with output.open("w") as stream:
            process = subprocess.Popen(
                command(self.experiment), cwd=self.folder, stdout=stream, stderr=stream, start_new_session=True
            )
        delay = self.generator.uniform(0, 0.3)
        further_epochs = self.generator.randint(1, EPOCHS)
        try:
            if stage == "imports":
                delay = self.generator.uniform(0, 2.5)
            elif stage == "opening":
                self.wait_until(process, lambda: "\n" in output.read_text())
            elif self.wait_until(process, lambda: bool(self.trial_run_ids() - run_ids)):
                self.restart_seconds.append(time.monotonic() - started_at)
                self.check_running_search()
                is_reached = {
                    "training": lambda: self.count_epochs() >= epochs + further_epochs,
                    "finished": lambda: len(self.finished_trials()) > len(before),
                }
                self.wait_until(process, is_reached[stage])
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(delay)
            status = process.poll()
            assert status in (None, 0), output.read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if status is None:
            self.kills += 1
        self.check_nothing_lost(before)
        return status is None

    def wait_until(self, process: subprocess.Popen[Any], reached: Callable[[], bool]) -> bool:
        """Wait until `reached` returns True. Return False if the process ended first."""
        while process.poll() is None:
            if reached():
                return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PAUSE)
        return False

    def trial_run_ids(self) -> set[str]:
        """Return the ids of all runs of trials, whatever their status."""
        return {row[0] for row in self.query_mlflow("SELECT run_uuid FROM tags WHERE key = 'pneumo.trial'")}

    def count_epochs(self) -> int:
        """Return how many epochs MLflow has, of all trials together."""
        return sum(row[0] for row in self.query_mlflow("SELECT count(*) FROM metrics WHERE key = 'val_auc'"))

    def query_mlflow(self, query: str) -> list[Any]:
        """Return the rows of a query; no rows if MLflow's database does not exist yet or is locked."""
        address = f"file:{self.folder}/mlflow.db?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
                return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []

    def check_running_search(self) -> None:
        """Check the record while a search runs: no faults, and no run of a killed search is still RUNNING."""
        report = self.check()
        assert report.faults == ()
        running = [note for note in report.notes if "is RUNNING" in note]
        assert len(running) <= 1 + self.workers, report.notes  # the study's run and one for each worker

    def check_nothing_lost(self, before: dict[int, Trial]) -> None:
        """Check that the trials finished `before` the kill are unchanged, and that the record has no faults."""
        after = self.finished_trials()
        assert {number: after.get(number) for number in before} == before
        if (self.folder / "mlflow.db").exists() and stored_studies(STUDY, self.storage):
            # While the study is locked, a run that is RUNNING is a note. Without the lock it would be a fault.
            with lock_study(STUDY, self.storage):
                assert self.check().faults == ()
        self.compared += len(after)


def run_drill(folder: Path, kills: int, **options: object) -> Drill:
    """Kill a study `kills` times, let it complete, and compare it with an undisturbed study.

    Args:
        folder: An empty folder, for both studies.
        kills: How often the search is killed. It is killed less often if the study is complete earlier.
        options: The `search` block of the experiment.
    """
    seed = int(os.environ.get("PNEUMO_DRILL_SEED", random.SystemRandom().randrange(10**6)))
    print(f"\nPNEUMO_DRILL_SEED={seed}")
    generator = random.Random(seed)
    disturbed, undisturbed = folder / "disturbed", folder / "undisturbed"
    disturbed.mkdir()
    undisturbed.mkdir()
    done = search(write(undisturbed, hyperparameters=SPACE, search=options), folder=undisturbed)
    assert done.returncode == 0, done.stderr
    experiment = write(disturbed, hyperparameters=SPACE, search=options)
    drill = Drill(disturbed, experiment, generator, int(str(options.get("workers", 1))))
    stages = [stage for stage, share in STAGES.items() for _ in range(round(share * kills / 20))]
    generator.shuffle(stages)
    for stage in stages:
        if not drill.kill(stage):
            break
    finished = drill.finished_trials()
    done = search(drill.experiment, folder=disturbed)
    assert done.returncode == 0, done.stderr
    assert {number: drill.finished_trials()[number] for number in finished} == finished
    checked = search("--check", STUDY, folder=disturbed)
    assert checked.stdout.endswith("no faults.\n"), checked.stdout
    assert (checked.returncode, checked.stdout.count("\n")) == (0, 1)
    drill.compared += compare_studies(disturbed, undisturbed)
    return drill


def compare_studies(disturbed: Path, undisturbed: Path) -> int:
    """Check that two studies have equal trials and the same best trial. Return how many trials each has."""
    trials, expected = [
        {
            trial.number: trial
            for study in stored_studies(STUDY, f"sqlite:///{folder}/mlruns/studies.db")
            for trial in study.trials
        }
        for folder in (disturbed, undisturbed)
    ]
    assert trials.keys() == expected.keys()
    for number, trial in trials.items():
        assert list(comparable_values(disturbed, trial)) == list(comparable_values(undisturbed, expected[number]))
    best, expected_best = [runs(folder, STUDY)[0].data.metrics["best_trial"] for folder in (disturbed, undisturbed)]
    assert best == expected_best
    return len(trials)


def comparable_values(folder: Path, trial: Trial) -> Iterator[object]:
    """Yield everything that is recorded of a trial and does not depend on time."""
    mlflow, result = client(folder), trial.result
    yield trial.number, trial.candidate.hyperparameters, result.state, result.value, result.error
    yield {name: value for name, value in result.metrics.items() if name not in TIME_METRICS}
    run = _run_of(folder, result.run_id)
    yield run.data.params
    for name in ("loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc"):
        yield [(metric.step, metric.value) for metric in mlflow.get_metric_history(run.info.run_id, name)]
    yield Path(mlflow.download_artifacts(run.info.run_id, "predictions.csv", str(folder))).read_text()


def _run_of(folder: Path, run_id: str) -> Run:
    """Return a trial's run, given its id, or its key if it began while MLflow was far behind."""
    (run,) = (run for run in runs(folder, STUDY)[1] if run_id in (run.info.run_id, run.data.tags.get("pneumo.key")))
    return run


def print_report(drill: Drill) -> None:
    seconds = drill.restart_seconds
    print(
        f"kills survived {drill.kills}, records compared {drill.compared}, from the restart to the next trial under "
        f"way {statistics.median(seconds):.1f} s (median of {len(seconds)}, longest {max(seconds):.1f})"
    )


def test_a_study_that_is_killed_twenty_times_equals_an_undisturbed_one(tmp_path: Path) -> None:
    settings = {"pruner": "median", "pruner_settings": {"n_startup_trials": 2}}
    drill = run_drill(tmp_path, 20, trials=20, **settings)
    print_report(drill)
    assert drill.kills == 20


def test_a_study_with_two_workers_survives_kills(tmp_path: Path) -> None:
    # With two workers the order in which trials finish varies. Random search proposes the same trials in any order.
    drill = run_drill(tmp_path, 6, trials=10, workers=2, algorithm="random")
    print_report(drill)
    assert drill.kills > 0


def test_sigterm_ends_cleanly(tmp_path: Path) -> None:
    experiment = write(tmp_path, hyperparameters={"epochs": 300}, search={"trials": 1})
    drill = Drill(tmp_path, experiment, random.Random(0), workers=1)
    process = subprocess.Popen(command(experiment), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert drill.wait_until(process, lambda: drill.count_epochs() > 0)
    process.terminate()
    output = process.stdout.read()
    assert process.wait() == 130
    assert "run the same command again" in output
    assert drill.check().faults == ()
    parent, (trial,) = runs(tmp_path, STUDY)
    assert (parent.info.status, trial.info.status) == ("KILLED", "KILLED")
