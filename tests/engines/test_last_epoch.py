"""A trial that has trained its last epoch is complete, with every engine and pruner."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from pneumo.engines.engine_table import open_engine
from pneumo.engines.protocol import Engine
from pneumo.spec.algorithms import PRUNERS
from pneumo.spec.candidate import Candidate
from pneumo.spec.result import TrialResult
from tests.support.engine_contract import ENGINES, Open
from tests.support.engine_studies import ask, experiment

EAGER: dict[str, dict[str, Any]] = {
    "median": {"n_startup_trials": 1, "n_warmup_steps": 0},
    "percentile": {"n_startup_trials": 1, "n_warmup_steps": 0},
    "asha": {"reduction_factor": 2},
    "hyperband": {"reduction_factor": 2},
    "wilcoxon": {"p_threshold": 0.9, "n_startup_steps": 0},
    "patient": {"patience": 1},
}
"""Settings with which each pruner prunes as early as it can."""

GOOD = 5
"""Number of trials that become good in their last epoch, with which the others are compared."""


def good_curve(epochs: int) -> list[float]:
    return [0.5] * (epochs - 1) + [0.9]


def poor_curve(epochs: int) -> list[float]:
    """Return values that no pruner has a reason to stop before the last one, at which every pruner has one."""
    # The patient pruner waits for one more epoch.
    return [0.6, 0.6, 0.5, 0.4] if epochs == 4 else [0.6] * (epochs - 1) + [0.4]


def play_good_trials(engine: Engine) -> None:
    for _ in range(GOOD):
        candidate = ask(engine)
        report(engine, candidate, good_curve(candidate.epochs))
        engine.tell(TrialResult(candidate.number, "run", "complete", 0.9))


def report(engine: Engine, candidate: Candidate, values: list[float]) -> list[bool]:
    """Report a value after each epoch, and return the answers."""
    return [engine.report(candidate.number, epoch, value) for epoch, value in enumerate(values, 1)]


@pytest.mark.parametrize("epochs", [1, 2, 4])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_no_pruner_stops_a_trial_after_its_last_epoch(storage: str, pruner: str, epochs: int) -> None:
    request = experiment(
        "optuna",
        "random",
        {"learning_rate": {"low": 0.001, "high": 0.1}, "epochs": epochs},
        pruner=pruner,
        pruner_settings=EAGER.get(pruner, {}),
    )
    engine = open_engine(request, storage)
    play_good_trials(engine)
    candidate = ask(engine)
    assert report(engine, candidate, poor_curve(epochs)) == [True] * epochs

    # The process is killed before the result is told. The next one reports the epochs of the checkpoint again.
    again = open_engine(request, storage)
    assert ask(again) == candidate
    assert report(again, candidate, poor_curve(epochs)) == [True] * epochs
    again.tell(TrialResult(candidate.number, "run", "complete", 0.9))
    # What the last epoch reached is known to Optuna, which compares later trials with it.
    last = optuna.load_study(study_name="study", storage=storage).trials[-1]
    assert last.intermediate_values[epochs] == 0.4


@pytest.mark.parametrize("pruner", [name for name in PRUNERS if name != "none"])
def test_every_pruner_still_stops_a_trial_before_its_last_epoch(storage: str, pruner: str) -> None:
    space = {"learning_rate": {"low": 0.001, "high": 0.1}, "epochs": 12}
    request = experiment("optuna", "random", space, pruner=pruner, pruner_settings=EAGER[pruner])
    engine = open_engine(request, storage)
    play_good_trials(engine)
    falling = [0.4 - 0.03 * epoch for epoch in range(12)]
    assert not all(report(engine, ask(engine), falling)[:-1])


def test_the_number_of_epochs_is_the_candidates_own(storage: str) -> None:
    space = {"learning_rate": {"low": 0.001, "high": 0.1}, "epochs": [2, 6]}
    request = experiment("optuna", "random", space, pruner="median", pruner_settings=EAGER["median"], baseline=False)
    engine = open_engine(request, storage)
    play_good_trials(engine)
    answers = {}
    for _ in range(12):
        candidate = ask(engine)
        answers[candidate.epochs] = report(engine, candidate, [0.6, 0.4])
        engine.tell(TrialResult(candidate.number, "run", "failed", error="of no interest here"))
    assert answers == {2: [True, True], 6: [True, False]}


def test_a_trial_that_an_earlier_version_pruned_after_its_last_epoch_is_complete(storage: str) -> None:
    """The earlier version was killed between the decision and the result."""
    space = {"learning_rate": {"low": 0.001, "high": 0.1}, "epochs": 2}
    request = experiment("optuna", "random", space, pruner="median")
    engine = open_engine(request, storage)
    play_good_trials(engine)
    candidate = ask(engine)
    study = optuna.load_study(study_name="study", storage=storage)
    frozen = study.trials[candidate.number]
    study._storage.set_trial_intermediate_value(frozen._trial_id, 1, 0.6)
    study._storage.set_trial_intermediate_value(frozen._trial_id, 2, 0.4)
    study._storage.set_trial_user_attr(frozen._trial_id, "pneumo.stopped", 2)
    again = open_engine(request, storage)
    assert ask(again) == candidate
    assert report(again, candidate, [0.6, 0.4]) == [True, True]


@pytest.mark.parametrize("which", ENGINES, indirect=True)
def test_every_engine_answers_true_after_the_last_epoch(which: tuple[str, str], begin: Open, storage: str) -> None:
    space: dict[str, Any] = {"learning_rate": {"low": 0.001, "high": 0.01, "step": 0.0005}, "epochs": 4}
    pruned: dict[str, Any] = {"pruner": "median", "pruner_settings": EAGER["median"]}
    takes_pruners = experiment(*which, space).search.capabilities.pruners
    engine = begin(experiment(*which, space, **(pruned if takes_pruners else {})), storage)
    play_good_trials(engine)
    for _ in range(3):
        candidate = ask(engine)
        assert report(engine, candidate, poor_curve(candidate.epochs)) == [True] * candidate.epochs
        engine.tell(TrialResult(candidate.number, "run", "complete", 0.9))
