"""Studies that a version with fewer hyperparameters stored go on as if this version had begun them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna
import pytest

from pneumo.engines.engine_table import open_engine
from pneumo.engines.keras_tuner_space import encode_values
from pneumo.search.preflight import usable_trials
from pneumo.spec.candidate import Candidate
from pneumo.spec.hyperparameters import NAMES
from tests.support import earlier
from tests.support.earlier import earlier_version
from tests.support.engine_studies import ask, experiment, play, tell

GRID: dict[str, Any] = {"layers": [1, 2], "filters": [16, 32], "batch_norm": [False, True], "epochs": 3}
RUNGS: dict[str, Any] = {"layers": [1, 2, 3, 4], "filters": [16, 32], "learning_rate": {"low": 0.001, "high": 0.009}}

STUDIES = [
    pytest.param("optuna", "tpe", {}, {}, id="tpe"),
    pytest.param("optuna", "grid", GRID, {}, id="grid"),
    pytest.param("keras-tuner", "bayesian", {}, {}, id="bayesian"),
    pytest.param("keras-tuner", "grid", GRID, {}, id="keras-tuner-grid"),
    pytest.param(
        "keras-tuner", "hyperband", RUNGS | {"epochs": 9}, {"algorithm_settings": {"factor": 3}}, id="hyperband"
    ),
]


@pytest.mark.parametrize(("engine", "algorithm", "block", "search"), STUDIES)
@pytest.mark.parametrize("finished", [0, 3])
def test_a_study_of_an_earlier_version_goes_on_as_one_of_this_version(
    engine: str, algorithm: str, block: dict[str, Any], search: dict[str, Any], finished: int, storage: str
) -> None:
    with earlier_version():
        before = open_engine(experiment(engine, algorithm, block or None, **search), storage)
        first = play(before, finished)
        under_way = ask(before)
    assert set(under_way.hyperparameters) <= set(earlier.NAMES) < set(NAMES)
    again = open_engine(experiment(engine, algorithm, block or None, **search), storage)
    assert (again.id, again.trials()) == (before.id, tuple(first))
    continued = ask(again)
    assert continued == under_way
    rest = [tell(again, continued), *play(again, 4)]

    whole = play(open_engine(experiment(engine, algorithm, block or None, **search), f"{storage}.whole"), finished + 5)
    assert [described(trial.candidate) for trial in (*first, *rest)] == [described(t.candidate) for t in whole]


def described(candidate: Candidate) -> tuple[object, ...]:
    return (candidate.number, candidate.values, candidate.searched, candidate.resume_from, candidate.full_epochs)


def test_the_baseline_of_an_earlier_version_is_not_pruned_either(storage: str) -> None:
    search: dict[str, Any] = {"pruner": "median", "pruner_settings": {"n_startup_trials": 1, "n_warmup_steps": 0}}
    with earlier_version():
        before = open_engine(experiment("optuna", "random", **search), storage)
        baseline, other = ask(before), ask(before)
        tell(before, other)
    again = open_engine(experiment("optuna", "random", **search), storage)
    assert ask(again) == baseline
    assert all(again.report(baseline.number, epoch, 0.0) for epoch in (1, 2, 3))
    poor = ask(again)
    assert not all(again.report(poor.number, epoch, 0.0) for epoch in (1, 2, 3))


@pytest.mark.parametrize(("engine", "algorithm"), [("optuna", "tpe"), ("keras-tuner", "bayesian")])
@pytest.mark.parametrize(
    ("added", "fits"),
    [({}, True), ({"warmup": {"low": 0.0, "high": 0.2}}, True), ({"ema": [0.9, 0.99]}, False)],
    ids=["same", "default inside", "default outside"],
)
def test_a_new_study_learns_from_trials_of_an_earlier_version(
    engine: str, algorithm: str, added: dict[str, Any], fits: bool, storage: str
) -> None:
    block = {"layers": [1, 2, 3], "dropout": [0.0, 0.5], "epochs": 10}
    with earlier_version():
        played = play(open_engine(experiment(engine, algorithm, block), storage), 3)
    values = [{"best_val_auc": trial.result.value or 0.0} for trial in played]
    trials = [replace(each, result=replace(each.result, metrics=row)) for each, row in zip(played, values, strict=True)]
    now = experiment(engine, algorithm, block | added)
    assert usable_trials(trials, now) == (trials if fits else [])
    study = open_engine(now, f"{storage}.new")
    study.learn(usable_trials(trials, now))
    if fits and engine == "optuna":
        stored = optuna.load_study(study_name="study", storage=f"{storage}.new").trials
        assert all(dict.fromkeys(added, 0.0).items() <= trial.params.items() for trial in stored)
    elif fits:
        told = [encode_values(now.space, trial.candidate.hyperparameters) for trial in trials]
        assert all(dict.fromkeys(added, 0.0).items() <= values.items() for values in told)
    proposed = [trial.candidate for trial in play(study, 3)]
    assert [candidate.number for candidate in proposed] == [0, 1, 2]
    if fits and engine == "optuna":  # the trials are not run again; the baseline is, as in every study
        learned = {Candidate(0, now.space.completed(trial.candidate.hyperparameters)).key for trial in trials}
        assert not learned & {candidate.key for candidate in proposed[1:]}
