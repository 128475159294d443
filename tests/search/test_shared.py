"""Several searches, each in a folder of its own, share one study in a real PostgreSQL and on a real MLflow server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pneumo.engines.engine_table import stored_studies
from pneumo.engines.optuna_storage import OWNER
from pneumo.search.preflight import check_shared
from pneumo.spec.errors import RequestError
from pneumo.spec.search import SearchSpec
from tests.support.postgres import Postgres
from tests.support.program import LONGEST, command, search, write

STUDY = "small"
TRIALS = 12
SPACE = {"filters": [2, 4, 8], "learning_rate": {"low": 0.001, "high": 0.01, "log": True}, "epochs": 3}
SEARCH = {"trials": TRIALS, "shared": True, "takeover": 5, "stress": False}
PAUSE = 0.05
"""Seconds between two looks at the progress of a search."""


def test_a_study_is_shared_in_postgresql_and_on_an_mlflow_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = SearchSpec(shared=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    with pytest.raises(RequestError, match=r"^--storage: .*search\.shared.* PostgreSQL") as refused:
        check_shared(shared, "sqlite:///mlruns/studies.db")
    assert len(refused.value.lines) == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(RequestError, match=r"^MLFLOW_TRACKING_URI: .*search\.shared.* server") as refused:
        check_shared(shared, "postgresql+psycopg://pneumo@/studies")
    assert len(refused.value.lines) == 1
    check_shared(SearchSpec(), "sqlite:///mlruns/studies.db")


@pytest.mark.slow
def test_a_search_takes_over_the_trials_of_one_that_is_killed_and_ends_the_study(
    postgres: Postgres, mlflow_server: str, tmp_path: Path
) -> None:
    storage, server = postgres.create("shared"), {"MLFLOW_TRACKING_URI": mlflow_server}
    seen_by_all = tmp_path / "seen by all"
    experiment = write(tmp_path, hyperparameters=SPACE, search=SEARCH, compute={"shared": str(seen_by_all)})
    folders = [tmp_path / name for name in ("first", "second", "third")]
    for folder in folders:
        folder.mkdir()
    first, second = (start(experiment, storage, folder, server) for folder in folders[:2])
    try:
        lost = wait_for_trial_under_way(first, folders[0], storage, seen_by_all)
        end(first)
        alone = search(experiment, "--storage", storage, "--set", "search.shared=false", folder=folders[2], **server)
        assert (alone.returncode, alone.stderr.count("\n")) == (2, 1)
        assert f"another search is at work on it ({os.uname().nodename}, process {second.pid}" in alone.stderr
        assert second.wait(LONGEST) == 0, (folders[1] / "output.txt").read_text()
    finally:
        end(first)
        end(second)

    (study,) = stored_studies(STUDY, storage)
    assert (study.numbers, study.lost) == (tuple(range(TRIALS)), ())
    assert [trial.number for trial in study.trials] == list(range(TRIALS))
    assert len({trial.candidate.key for trial in study.trials}) == TRIALS

    runs = recorded_runs(mlflow_server)
    assert {run.info.status for run in runs} == {"KILLED", "FINISHED"}
    assert len([run for run in runs if run.data.tags["pneumo.role"] == "study"]) == 1
    trials = [run for run in runs if run.data.tags["pneumo.role"] == "trial"]
    finished = [int(run.data.tags["pneumo.trial"]) for run in trials if run.info.status == "FINISHED"]
    assert sorted(finished) == list(range(TRIALS))
    assert str(lost) in [run.data.tags["pneumo.trial"] for run in trials if run.info.status == "KILLED"]

    # On a busy machine a search may also take over a trial whose sign of life is late.
    continued = [run for run in trials if "pneumo.continued" in run.data.tags and run.info.status == "FINISHED"]
    assert str(lost) in [run.data.tags["pneumo.trial"] for run in continued]
    assert not list(seen_by_all.rglob("*.npz"))

    checked = search("--check", STUDY, "--storage", storage, folder=folders[2], **server)
    assert (checked.returncode, checked.stdout.count("\n")) == (0, 1), checked.stdout + checked.stderr
    assert checked.stdout.endswith("no faults.\n")


@pytest.mark.slow
def test_ctrl_c_leaves_the_study_to_the_other_search_which_prunes_and_confirms(
    postgres: Postgres, mlflow_server: str, tmp_path: Path
) -> None:
    storage, server = postgres.create("interrupted"), {"MLFLOW_TRACKING_URI": mlflow_server}
    settings = SEARCH | {"trials": 8, "pruner": "median", "pruner_settings": {"n_startup_trials": 2}}
    experiment = write(
        tmp_path, name="interrupted", hyperparameters=SPACE, search=settings | {"confirm": {"top": 1, "seeds": 2}}
    )
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    first, second = (start(experiment, storage, folder, server) for folder in folders)
    try:
        while " done  trial" not in (folders[0] / "output.txt").read_text():
            assert first.poll() is None, (folders[0] / "output.txt").read_text()
            time.sleep(PAUSE)
        first.send_signal(signal.SIGINT)
        assert first.wait(LONGEST) == 130, (folders[0] / "output.txt").read_text()
        assert second.wait(LONGEST) == 0, (folders[1] / "output.txt").read_text()
    finally:
        end(first)
        end(second)

    (study,) = stored_studies("interrupted", storage)
    assert (study.numbers, study.lost) == (tuple(range(8)), ())
    assert len({trial.candidate.key for trial in study.trials}) == 8
    runs = recorded_runs(mlflow_server, "interrupted")
    assert {run.info.status for run in runs} <= {"KILLED", "FINISHED"}
    assert len([run for run in runs if run.data.tags["pneumo.role"] == "study"]) == 1
    assert len([run for run in runs if run.data.tags["pneumo.role"] == "confirm"]) == 2
    checked = search("--check", "interrupted", "--storage", storage, folder=folders[1], **server)
    assert checked.stdout.endswith("no faults.\n"), checked.stdout + checked.stderr


def start(experiment: Path, storage: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            command(experiment, "--storage", storage),
            cwd=folder,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def end(program: subprocess.Popen[bytes]) -> None:
    """Kill a search and its workers with SIGKILL if it runs."""
    if program.poll() is None:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def wait_for_trial_under_way(program: subprocess.Popen[bytes], folder: Path, storage: str, seen_by_all: Path) -> int:
    """Wait until a search has finished a trial and has a checkpoint of another one. Return that one's number.

    The search is stopped then.
    """
    while True:
        try:
            program.wait(PAUSE)
        except subprocess.TimeoutExpired:
            finished = re.search(r" done  trial (\d+)", (folder / "output.txt").read_text())
            if finished is None:
                continue
            os.killpg(program.pid, signal.SIGSTOP)  # so that the trial does not end while this looks at it
            trials = optuna.load_study(study_name=STUDY, storage=storage).get_trials(deepcopy=False)
            owner = trials[int(finished[1])].user_attrs[OWNER]
            for trial in trials:
                checkpoints = list(seen_by_all.glob(f"checkpoints/{STUDY}-*/trial-{trial.number:04d}.npz"))
                is_under_way = trial.state == optuna.trial.TrialState.RUNNING and trial.intermediate_values
                if is_under_way and checkpoints and trial.user_attrs.get(OWNER) == owner:
                    return trial.number
            os.killpg(program.pid, signal.SIGCONT)
        else:
            pytest.fail((folder / "output.txt").read_text())


def recorded_runs(server: str, study: str = STUDY) -> list[Run]:
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))
