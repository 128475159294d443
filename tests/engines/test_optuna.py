"""Tests that concern Optuna only: pruners, its storage, and the algorithm that needs PyTorch."""

from __future__ import annotations

import importlib.util
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from pneumo.engines.engine_table import open_engine
from pneumo.spec.errors import RequestError
from pneumo.spec.result import TrialResult
from tests.support.engine_studies import ask, experiment, play


def test_optuna_minimizes_an_objective_of_which_less_is_better(storage: str) -> None:
    open_engine(experiment("optuna", "tpe", objective="val_loss"), storage)
    study = optuna.load_study(study_name="study", storage=storage)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruner_stops_poor_trials_but_never_the_baseline(storage: str, pruner: str) -> None:
    engine = open_engine(experiment("optuna", "random", pruner=pruner), storage)
    baseline = ask(engine)
    assert all(engine.report(baseline.number, epoch, 0.0) for epoch in range(1, 10))
    engine.tell(TrialResult(0, "run", "complete", 0.0))
    for _ in range(6):
        candidate = ask(engine)
        for epoch in range(1, 10):
            if not engine.report(candidate.number, epoch, 0.9):
                break
        engine.tell(TrialResult(candidate.number, "run", "complete", 0.9))
    poor = [ask(engine) for _ in range(3)]
    stopped = [not all(engine.report(c.number, epoch, 0.1) for epoch in range(1, 10)) for c in poor]
    assert any(stopped)


def test_optunas_own_tools_read_the_study(storage: str) -> None:
    engine = open_engine(experiment("optuna", "tpe"), storage)
    trials = play(engine, 5)
    study = optuna.load_study(study_name="study", storage=storage)
    assert study.metric_names == ["val_auc"]  # what Optuna's dashboard calls the axis
    assert study.best_value == max(t.result.value or 0 for t in trials)
    own_trials = [t for t in study.trials if "pneumo.skipped" not in t.user_attrs]
    assert [t.params["layers"] for t in own_trials] == [t.candidate.hyperparameters["layers"] for t in trials]


@pytest.mark.parametrize(
    "storage_url",
    [
        "not a url",
        "nosuchdatabase://host/x",
        "sqlite:////proc/nowhere/x.db",
        "postgresql+psycopg://u:secret@127.0.0.1:1/x",
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_line_without_its_password(storage_url: str) -> None:
    with pytest.raises(RequestError, match="--storage") as caught:
        open_engine(experiment("optuna", "tpe"), storage_url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is here")
def test_without_pytorch_one_line_says_what_to_install(storage: str) -> None:
    request = experiment("optuna", "gp")
    with pytest.raises(RequestError, match=r"gp needs PyTorch, .*pip install 'pneumo\[gp\]'.*; or use tpe"):
        open_engine(request, storage)


def test_a_proposal_that_was_interrupted_is_drawn_again_with_the_same_values(folder: Path) -> None:
    storage = f"sqlite:///{folder}/studies.db"
    engine = open_engine(experiment("optuna", "random", baseline=False), storage)
    play(engine, 2)
    first = ask(engine)
    with closing(sqlite3.connect(folder / "studies.db")) as database, database:
        # Leave the database as a process does that is killed after it drew the second value.
        (trial,) = database.execute("SELECT max(trial_id) FROM trials").fetchone()
        database.execute("DELETE FROM trial_user_attributes WHERE trial_id = ?", (trial,))
        first_two = "SELECT param_id FROM trial_params WHERE trial_id = ? ORDER BY param_id LIMIT 2"
        database.execute(
            f"DELETE FROM trial_params WHERE trial_id = ? AND param_id NOT IN ({first_two})", (trial, trial)
        )
    again = open_engine(experiment("optuna", "random", baseline=False), storage)
    assert ask(again) == first
    last = optuna.load_study(study_name="study", storage=storage).trials[-1]
    assert last.params == pytest.approx({name: first.hyperparameters[name] for name in first.searched})
