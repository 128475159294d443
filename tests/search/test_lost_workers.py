"""A trial whose worker was killed is run again, and its result is that of an undisturbed one."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from pneumo.compute.local import LocalProcesses
from pneumo.engines.engine_table import open_engine
from pneumo.engines.protocol import Engine
from pneumo.search.loop import Training, TrainingLoop
from pneumo.search.schedule import Study
from pneumo.search.screen import TrialListener
from pneumo.spec.experiment_file import build_experiment
from tests.support.made_up_trials import Killed, train_killed, warm_up
from tests.support.program import LONGEST, client, command, runs, search, write

EPOCHS = 4


class Recorder:
    """A `Recorder` in memory: how each run ended, by its number and that of its trial."""

    def __init__(self, kills: Path) -> None:
        self.ends: list[tuple[int, str]] = []
        self._kills = kills

    def begin(self, training: Training) -> str:
        return f"{training.candidate.number} {len(self.ends)}"

    def task(self, training: Training, run_id: str) -> Killed:
        return training.candidate, run_id, str(self._kills)

    def end(self, run_id: str, state: str, error: str | None = None, output: str = "") -> None:
        self.ends.append((int(run_id.partition(" ")[0]), state))


@pytest.mark.parametrize(
    ("killed", "workers", "retries", "failed"),
    [([1], 3, 3, []), ([0, 1], 3, 0, []), ([1] * 5, 3, 0, [1]), ([0], 1, 0, [0]), ([0, 0], 1, 2, [])],
    ids=["once", "two trials", "until it is alone", "alone", "alone, but it may have been a user"],
)
def test_a_killed_trial_is_run_again_with_fewer_workers(
    killed: list[int], workers: int, retries: int, failed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumo.compute.local.count_oom_kills", lambda: None)
    engine, recorder, output = run_killed(tmp_path, killed, workers, retries)
    assert [number for number, state in recorder.ends if state == "failed"] == failed
    lost = [number for number, state in recorder.ends if state == "killed"]
    assert len(lost) + len(failed) == len(killed) - len(list(tmp_path.glob("?-?")))
    assert len(lost) <= max(workers, retries)  # not again and again
    assert output.count("memory ran out beside other workers") == (len(lost) if workers > 1 else 0)
    check_values(engine, failed)


@pytest.mark.parametrize(("kills", "failed"), [(2, []), (5, [1])])
def test_a_trial_whose_worker_somebody_kills_is_run_again_as_often_as_retries_says(
    kills: int, failed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumo.compute.local.count_oom_kills", lambda: 0)  # the kernel has ended none
    engine, recorder, output = run_killed(tmp_path, [1] * kills, 2, 2)
    assert sorted(recorder.ends) == sorted(
        [(n, "failed" if n in failed else "complete") for n in range(4)] + [(1, "killed")] * 2
    )
    assert [f"SIGKILL (retry {n} of 2)" in output for n in (1, 2, 3)] == [True, True, False]
    errors = [trial.result.error for trial in engine.trials() if trial.result.error]
    assert errors == ["the worker process was ended by SIGKILL (no retry of 2 is left)"] * len(failed)
    check_values(engine, failed)


def run_killed(folder: Path, killed: list[int], workers: int, retries: int) -> tuple[Engine, Recorder, str]:
    """Run a search of 4 trials, in which the workers of the trials `killed` are killed, once for each mention."""
    document: dict[str, Any] = {
        "name": "s",
        "hyperparameters": {"epochs": EPOCHS, "learning_rate": {"low": 0.001, "high": 0.01}},
        "search": {"trials": 4, "workers": workers, "retries": retries, "algorithm": "random"},
    }
    experiment = build_experiment(document, "test")
    for index, number in enumerate(killed):
        (folder / f"{number}-{index}").touch()
    engine, recorder = open_engine(experiment, f"sqlite:///{folder}/studies.db"), Recorder(folder)
    output = io.StringIO()
    place = LocalProcesses(train_killed, warm_up, workers, ())
    try:
        with TrialListener(experiment, Console(file=output, width=200)) as listener:
            schedule = Study(experiment.search, engine)
            loop = TrainingLoop(schedule, place, recorder, listener, retries=experiment.search.retries)
            ending = loop.run(lambda: False)
    finally:
        place.close()
    assert ending.reason == "all 4 trials are done"
    return engine, recorder, output.getvalue()


def check_values(engine: Engine, failed: list[int]) -> None:
    """Check that the trials have the values of undisturbed ones, and that those that are `failed` ended in epoch 2."""
    assert [trial.number for trial in engine.trials()] == [0, 1, 2, 3]
    for trial in engine.trials():
        rate = trial.candidate.values.learning_rate
        assert trial.result.state == ("failed" if trial.number in failed else "complete")
        last_epoch = 2 if trial.number in failed else EPOCHS
        assert trial.result.history == pytest.approx([rate * epoch for epoch in range(1, last_epoch + 1)])


PROGRAM = """
from pneumo.compute import local
from pneumo.console.command import run_command
from pneumo.search import __main__ as search

local.count_oom_kills = lambda: None  # as on a kernel that does not count them
if __name__ == "__main__":
    run_command(search.app, "search")
"""


@pytest.mark.slow
def test_real_trials_continue_and_their_record_is_whole(tmp_path: Path) -> None:
    disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
    for folder in (disturbed, undisturbed):
        folder.mkdir()
        experiment = write(
            folder,
            hyperparameters={"epochs": 120, "batch_size": 2, "learning_rate": {"low": 0.001, "high": 0.01}},
            search={"trials": 2, "workers": 2, "algorithm": "random"},
        )
    (disturbed / "program.py").write_text(PROGRAM)
    program = subprocess.Popen(
        [sys.executable, "program.py", experiment.name], cwd=disturbed, stdout=subprocess.PIPE, text=True
    )
    checkpoints = disturbed / "mlruns" / "checkpoints" / "small"
    while len(list(checkpoints.glob("trial-*.npz"))) < 2:  # both are under way
        assert program.poll() is None
    workers = [child for child in psutil.Process(program.pid).children() if "spawn_main" in child.cmdline()[-2]]
    first, second = sorted(workers, key=psutil.Process.create_time)
    second.terminate()
    assert program.stdout is not None
    lines: list[str] = []
    while not lines or "SIGTERM (retry 1 of 3)" not in lines[-1]:
        assert program.poll() is None, lines
        lines.append(program.stdout.readline())
    first.kill()
    output = program.communicate(timeout=LONGEST)[0]
    assert program.returncode == 0, output
    assert "memory ran out beside other workers; from now on there is 1 worker" in output
    assert search(experiment.name, folder=undisturbed).returncode == 0
    (_, trials), (_, expected) = runs(disturbed, "small"), runs(undisturbed, "small")
    assert sorted(run.info.status for run in trials) == ["FINISHED", "FINISHED", "KILLED", "KILLED"]
    for run, like in zip([run for run in trials if run.info.status == "FINISHED"], expected, strict=True):
        curves = [
            [(point.step, point.value) for point in client(folder).get_metric_history(one.info.run_id, "val_auc")]
            for folder, one in ((disturbed, run), (undisturbed, like))
        ]
        assert curves[0] == curves[1]
    check = subprocess.run(command("--check", "small"), cwd=disturbed, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout
