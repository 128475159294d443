"""Tests that concern Keras Tuner only: its brackets, its proposals, its model.

The contract of an engine is tested in test_contract.py.
"""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras_tuner
import pytest

from pneumo.engines.keras_tuner_engine import KerasTunerEngine
from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.result import TrialResult
from tests.conftest import ROOT
from tests.support.keras_tuner_studies import (
    GRID,
    MIXED,
    SMALL,
    ask,
    experiment,
    play,
    quality,
    read_state,
    reason,
    stored_trials,
    tell,
    to_text,
)

# Hyperband


def test_hyperband_continues_the_best_of_each_rung(tmp_path: Path) -> None:
    request = experiment("hyperband", MIXED | {"epochs": 9})
    trials = list(play(engine := KerasTunerEngine(request, tmp_path)))
    assert reason(engine) == "every bracket of Hyperband was run"

    baseline, *rungs = [trial.candidate for trial in trials]
    assert (baseline.epochs, baseline.first_epoch, baseline.resume_from, baseline.full_epochs) == (9, 0, None, None)
    assert {rung.full_epochs for rung in rungs} == {9}
    assert not [rung for rung in rungs if any(name.startswith("tuner") for name in rung.hyperparameters)]
    for rung in rungs:
        assert request.space.contains(dict(rung.hyperparameters) | {"epochs": 9})
        if rung.resume_from is None:
            assert rung.first_epoch == 0
            continue
        past = trials[rung.resume_from].candidate
        assert past.number < rung.number
        assert past.epochs == rung.first_epoch
        assert dict(past.hyperparameters) | {"epochs": rung.epochs} == rung.hyperparameters
    # The first bracket: 9 trials train 1 epoch, the best 3 of them continue to 3 epochs, the best of those to 9.
    first = rungs[:9]
    assert {rung.epochs for rung in first} == {1}
    best = sorted(first, key=quality, reverse=True)[:3]
    assert {rung.resume_from for rung in rungs[9:12]} == {rung.number for rung in best}
    assert (rungs[12].resume_from, rungs[12].epochs) == (max(rungs[9:12], key=quality).number, 9)
    trained = sum(rung.epochs - rung.first_epoch for rung in rungs)
    begun = sum(rung.resume_from is None for rung in rungs)
    assert trained < 0.6 * 9 * begun


def test_hyperband_with_eight_workers(tmp_path: Path) -> None:
    engine = KerasTunerEngine(experiment("hyperband", MIXED | {"epochs": 9}), tmp_path)
    under_way: list[Candidate] = []
    waits = 0
    while not isinstance(proposal := engine.ask(), Done) or under_way:
        if isinstance(proposal, Candidate):
            under_way.append(proposal)
        waits += isinstance(proposal, Wait)
        if len(under_way) == 8 or not isinstance(proposal, Candidate):
            tell(engine, under_way.pop())
    assert waits
    trials = engine.trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert len(trials) == 1 + (9 + 3 + 1) + (5 + 2) + 3


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_failed_trials_do_not_hold_up_a_bracket(tmp_path: Path, share: float) -> None:
    engine = KerasTunerEngine(experiment("hyperband", MIXED | {"epochs": 9}), tmp_path)
    trials = list(play(engine, lambda c: "failed" if (c.number * 7) % 10 < share * 10 else "complete"))
    assert reason(engine) == "every bracket of Hyperband was run"
    failed = {trial.number for trial in trials if trial.result.state == "failed"}
    assert len([trial for trial in trials if trial.candidate.resume_from is None]) == 1 + 9 + 5 + 3
    # No trial continues a failed one, which has no checkpoint.
    assert not [trial for trial in trials if trial.candidate.resume_from in failed]
    if share == 0.2:  # so few that all later rungs are full
        assert len(trials) == 1 + (9 + 3 + 1) + (5 + 2) + 3


def test_a_bracket_is_no_wider_than_the_space(tmp_path: Path) -> None:
    request = experiment("hyperband", {"layers": {"low": 1, "high": 3}, "batch_norm": [False, True], "epochs": 9})
    engine = KerasTunerEngine(request, tmp_path)
    trials = list(play(engine))
    assert "every combination of the space was tried" in reason(engine)
    assert len([trial for trial in trials if trial.candidate.epochs == 1]) == 6
    assert [trial for trial in trials if trial.candidate.first_epoch and trial.candidate.epochs == 9]


# Proposals


@pytest.mark.parametrize(
    ("algorithm", "block"), [("random", GRID | {"filters": [8, 16, 32, 64, 128, 256]}), ("bayesian", GRID)]
)
def test_a_small_space_is_tried_once_and_then_exhausted(tmp_path: Path, algorithm: str, block: dict[str, Any]) -> None:
    request = experiment(algorithm, block)
    engine = KerasTunerEngine(request, tmp_path)
    proposed = [to_text(trial.candidate.hyperparameters) for trial in play(engine)]
    assert set(proposed) == {to_text(values) for values in request.space.grid()}
    assert len(proposed) == len(set(proposed))
    assert "every combination of the space was tried" in reason(engine)
    assert "every combination of the space was tried" in reason(KerasTunerEngine(request, tmp_path))


def test_a_grid_with_nine_workers(tmp_path: Path) -> None:
    engine = KerasTunerEngine(experiment("grid", GRID), tmp_path)
    under_way = [ask(engine) for _ in range(9)]
    assert isinstance(engine.ask(), Wait)
    for candidate in under_way:
        tell(engine, candidate)
    assert reason(engine) == "every combination of the grid was proposed"


def test_the_bayesian_oracle_comes_close_to_the_optimum(tmp_path: Path) -> None:
    engine = KerasTunerEngine(experiment("bayesian", {"learning_rate": MIXED["learning_rate"]}), tmp_path)
    values = [tell(engine, ask(engine)).result.value or 0 for _ in range(12)]
    peak = quality(Candidate(0, {"learning_rate": 10**-2.5, "epochs": 1}))
    assert max(values) > 0.97 * peak


def test_the_bayesian_oracle_does_not_repeat_what_failed(tmp_path: Path) -> None:
    block = {"layers": {"low": 1, "high": 9}, "image_size": 512, "kernel_size": 1}
    engine = KerasTunerEngine(experiment("bayesian", block, baseline=False), tmp_path)
    # The model ignores failed trials, and has its peak at these.
    trials = list(play(engine, lambda c: "failed" if c.values.layers == 3 else "complete"))
    assert sorted(trial.candidate.values.layers for trial in trials) == list(range(1, 10))


def test_the_bayesian_oracle_estimates_trials_under_way_with_a_fitted_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unfitted model of Keras Tuner estimates 1 for trials under way, which is far better here than any real value."""
    engine = KerasTunerEngine(experiment("bayesian", SMALL, objective="parameters"), tmp_path)
    for number in range(4):
        engine.tell(TrialResult(ask(engine).number, "run", "complete", 1e6 + 1e5 * number))
    fitted: list[Any] = []
    regressor = keras_tuner.src.tuners.bayesian.sklearn.gaussian_process.GaussianProcessRegressor
    fit = regressor.fit

    def seen(self: Any, x: Any, y: Any) -> Any:
        fitted.append(y)
        return fit(self, x, y)

    monkeypatch.setattr(regressor, "fit", seen)
    ask(engine)
    ask(engine)
    assert len(fitted[-1]) == 5
    assert min(fitted[-1]) > 0.5e6


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband", "grid"])
def test_a_value_that_is_not_finite_counts_as_a_failure(tmp_path: Path, algorithm: str, value: float | None) -> None:
    request = experiment(algorithm, GRID, objective="val_loss")
    engine = KerasTunerEngine(request, tmp_path)
    for _ in range(6):
        candidate = ask(engine)
        engine.tell(TrialResult(candidate.number, "run", "complete", value if candidate.number < 4 else 0.5))
    numbers = [ask(engine).number, ask(KerasTunerEngine(request, tmp_path)).number]
    assert numbers == [6, 6]
    first = read_state(tmp_path)["oracle"]["trials"][:3]
    assert {trial["status"] for trial in first} == {"COMPLETED" if algorithm == "hyperband" else "FAILED"}
    assert {trial["score"] for trial in first} == {math.inf if algorithm == "hyperband" else None}


def test_a_pruned_trial_is_complete_for_the_oracle(tmp_path: Path) -> None:
    engine = KerasTunerEngine(experiment("bayesian", GRID), tmp_path)
    tell(engine, ask(engine), "pruned")
    (state,) = read_state(tmp_path)["oracle"]["trials"]
    assert (state["status"], state["score"]) == ("COMPLETED", pytest.approx(engine.trials()[0].result.value))


def test_reports_are_not_averaged_into_the_value(tmp_path: Path) -> None:
    request = experiment("random", GRID)
    engine = KerasTunerEngine(request, tmp_path)
    lost = ask(engine)
    assert all(engine.report(lost.number, epoch, 0.9) for epoch in (1, 2, 3))
    engine = KerasTunerEngine(request, tmp_path)
    assert ask(engine) == lost
    assert engine.report(lost.number, 1, 0.1)
    engine.tell(TrialResult(lost.number, "run", "complete", 0.1))
    assert read_state(tmp_path)["oracle"]["trials"][0]["score"] == 0.1


def test_a_second_result_of_a_trial_is_rejected(tmp_path: Path) -> None:
    engine = KerasTunerEngine(experiment("random", GRID), tmp_path)
    candidate = ask(engine)
    tell(engine, candidate)
    with pytest.raises(ValueError, match="has a result already"):
        tell(engine, candidate)
    assert ask(engine).number == 1


@pytest.mark.parametrize(("objective", "best"), [("val_auc", "max"), ("val_loss", "min"), ("parameters", "min")])
def test_the_direction_follows_the_objective(tmp_path: Path, objective: str, best: str) -> None:
    engine = KerasTunerEngine(experiment("random", GRID, objective=objective), tmp_path)
    tell(engine, ask(engine))
    (state,) = read_state(tmp_path)["oracle"]["trials"]
    assert state["metrics"]["metrics"][objective]["direction"] == best


def test_different_seeds_give_different_proposals(tmp_path: Path) -> None:
    proposed = []
    for number, seed in enumerate([0, 0, 1, 2]):
        engine = KerasTunerEngine(experiment("random", MIXED, seed=seed, baseline=False), tmp_path / str(number))
        proposed.append([to_text(tell(engine, ask(engine)).candidate.hyperparameters) for _ in range(3)])
    assert proposed[0] == proposed[1]
    assert len({proposal for of_seed in proposed for proposal in of_seed}) == 9


# Learned trials


def test_learned_trials_are_the_oracles_first(tmp_path: Path) -> None:
    request = experiment("bayesian", SMALL)
    earlier = [tell(engine, ask(engine)) for engine in [KerasTunerEngine(request, tmp_path / "a")] for _ in range(5)]
    engine = KerasTunerEngine(request, tmp_path / "b")
    engine.learn(earlier)
    learned = read_state(tmp_path / "b")["oracle"]["trials"]
    assert [state["score"] for state in learned] == [pytest.approx(trial.result.value) for trial in earlier]
    assert stored_trials(tmp_path / "b") == ()

    again = KerasTunerEngine(request, tmp_path / "b")
    again.learn(earlier)
    tell(again, ask(again))
    # The learned trials replace the three random ones: this proposal is the model's, and the same without the interruption.
    third = KerasTunerEngine(request, tmp_path / "b")
    third.learn(earlier)
    tell(engine, ask(engine))
    assert ask(third) == ask(engine)
    assert [state["score"] for state in read_state(tmp_path / "b")["oracle"]["trials"][:5]] == [
        s["score"] for s in learned
    ]


def test_the_driver_is_quiet_and_starts_no_device(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from pneumo.engines.keras_tuner_engine import KerasTunerEngine
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.result import TrialResult
search = {{"engine": "keras-tuner", "algorithm": "bayesian", "algorithm_settings": {{"num_initial_points": 2}}}}
block = {{"dropout": {{"low": 0.0, "high": 0.5}}}}
asked = build_experiment({{"name": "study", "hyperparameters": block, "search": search}}, "test")
engine = KerasTunerEngine(asked, Path({str(tmp_path)!r}))
for number in range(4):
    engine.tell(TrialResult(engine.ask().number, "run", "complete", 0.5))
from tensorflow.python.eager import context
assert context._context is None or not context._context._initialized
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
