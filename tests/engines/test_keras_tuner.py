"""What is special to Keras Tuner: its brackets, its model, its state; the promises of every engine are in test_engines."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
import pytest

from pneumo.engines import journal, keras_tuner_storage
from pneumo.engines.keras_tuner_engine import KerasTunerEngine
from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.errors import RequestError
from pneumo.spec.result import TrialResult
from tests.conftest import ROOT
from tests.support.keras_tuner_studies import (
    GRID,
    MIXED,
    NESTED,
    SMALL,
    ask,
    experiment,
    plain,
    play,
    play_two_at_once,
    quality,
    reason,
    stored_trials,
    tell,
)

# Hyperband


def test_hyperband_goes_on_with_the_best_of_each_rung(tmp_path: Path) -> None:
    asked = experiment("hyperband", MIXED | {"epochs": 9})
    trials = list(play(engine := KerasTunerEngine(asked, tmp_path)))
    assert reason(engine) == "every bracket of Hyperband was run"

    baseline, *rungs = [trial.candidate for trial in trials]
    assert (baseline.epochs, baseline.first_epoch, baseline.resume_from, baseline.full_epochs) == (9, 0, None, None)
    assert {rung.full_epochs for rung in rungs} == {9}
    assert not [rung for rung in rungs if any(name.startswith("tuner") for name in rung.hyperparameters)]
    for rung in rungs:
        assert asked.space.contains(dict(rung.hyperparameters) | {"epochs": 9})
        if rung.resume_from is None:
            assert rung.first_epoch == 0
            continue
        past = trials[rung.resume_from].candidate
        assert past.number < rung.number
        assert past.epochs == rung.first_epoch
        assert dict(past.hyperparameters) | {"epochs": rung.epochs} == rung.hyperparameters
    # The first bracket: 9 trials of an epoch, the best 3 of them go on to 3, the best of those to 9.
    first = rungs[:9]
    assert {rung.epochs for rung in first} == {1}
    best = sorted(first, key=quality, reverse=True)[:3]
    assert {rung.resume_from for rung in rungs[9:12]} == {rung.number for rung in best}
    assert (rungs[12].resume_from, rungs[12].epochs) == (max(rungs[9:12], key=quality).number, 9)
    trained = sum(rung.epochs - rung.first_epoch for rung in rungs)
    begun = sum(rung.resume_from is None for rung in rungs)
    assert trained < 0.6 * 9 * begun


def test_hyperband_in_many_hands(tmp_path: Path) -> None:
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
    # None of them left anything to go on from.
    assert not [trial for trial in trials if trial.candidate.resume_from in failed]
    if share == 0.2:  # so few that they do not count: the rungs above are as full as ever
        assert len(trials) == 1 + (9 + 3 + 1) + (5 + 2) + 3


def test_a_bracket_is_no_wider_than_the_space(tmp_path: Path) -> None:
    asked = experiment("hyperband", {"layers": {"low": 1, "high": 3}, "batch_norm": [False, True], "epochs": 9})
    engine = KerasTunerEngine(asked, tmp_path)
    trials = list(play(engine))
    assert "every combination of the space was tried" in reason(engine)
    assert len([trial for trial in trials if trial.candidate.epochs == 1]) == 6
    assert [trial for trial in trials if trial.candidate.first_epoch and trial.candidate.epochs == 9]


# Proposals


@pytest.mark.parametrize(
    ("algorithm", "block"), [("random", GRID | {"filters": [8, 16, 32, 64, 128, 256]}), ("bayesian", GRID)]
)
def test_a_small_space_is_tried_once_and_then_it_is_over(tmp_path: Path, algorithm: str, block: dict[str, Any]) -> None:
    asked = experiment(algorithm, block)
    engine = KerasTunerEngine(asked, tmp_path)
    proposed = [plain(trial.candidate.hyperparameters) for trial in play(engine)]
    assert set(proposed) == {plain(values) for values in asked.space.grid()}
    assert len(proposed) == len(set(proposed))
    assert "every combination of the space was tried" in reason(engine)
    assert "every combination of the space was tried" in reason(KerasTunerEngine(asked, tmp_path))


def test_a_grid_is_in_many_hands_at_once(tmp_path: Path) -> None:
    engine = KerasTunerEngine(experiment("grid", GRID), tmp_path)
    under_way = [ask(engine) for _ in range(9)]
    assert isinstance(engine.ask(), Wait)
    for candidate in under_way:
        tell(engine, candidate)
    assert reason(engine) == "every combination of the grid was proposed"


def test_the_bayesian_oracle_climbs(tmp_path: Path) -> None:
    engine = KerasTunerEngine(experiment("bayesian", {"learning_rate": MIXED["learning_rate"]}), tmp_path)
    values = [tell(engine, ask(engine)).result.value or 0 for _ in range(12)]
    peak = quality(Candidate(0, {"learning_rate": 10**-2.5, "epochs": 1}))
    assert max(values) > 0.97 * peak


def test_the_bayesian_oracle_does_not_repeat_what_failed(tmp_path: Path) -> None:
    block = {"layers": {"low": 1, "high": 9}, "image_size": 512, "kernel_size": 1}
    engine = KerasTunerEngine(experiment("bayesian", block, baseline=False), tmp_path)
    # Where the model, which passes over failures, sees the peak.
    trials = list(play(engine, lambda c: "failed" if c.values.layers == 3 else "complete"))
    assert sorted(trial.candidate.values.layers for trial in trials) == list(range(1, 10))


def test_the_bayesian_oracle_guesses_what_is_under_way_by_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras Tuner's own guess, before its model was fitted, is 1: far better here than anything that was found."""
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
def test_a_value_that_is_no_number_counts_as_a_failure(tmp_path: Path, algorithm: str, value: float | None) -> None:
    asked = experiment(algorithm, GRID, objective="val_loss")
    engine = KerasTunerEngine(asked, tmp_path)
    for _ in range(6):
        candidate = ask(engine)
        engine.tell(TrialResult(candidate.number, "run", "complete", value if candidate.number < 4 else 0.5))
    numbers = [ask(engine).number, ask(KerasTunerEngine(asked, tmp_path)).number]
    assert numbers == [6, 6]
    first = kept(tmp_path)["oracle"]["trials"][:3]
    assert {trial["status"] for trial in first} == {"COMPLETED" if algorithm == "hyperband" else "FAILED"}
    assert {trial["score"] for trial in first} == {math.inf if algorithm == "hyperband" else None}


def test_a_pruned_trial_is_one_with_a_value(tmp_path: Path) -> None:
    engine = KerasTunerEngine(experiment("bayesian", GRID), tmp_path)
    tell(engine, ask(engine), "pruned")
    (state,) = kept(tmp_path)["oracle"]["trials"]
    assert (state["status"], state["score"]) == ("COMPLETED", pytest.approx(engine.trials()[0].result.value))


def test_reports_are_not_averaged_into_the_value(tmp_path: Path) -> None:
    asked = experiment("random", GRID)
    engine = KerasTunerEngine(asked, tmp_path)
    lost = ask(engine)
    assert all(engine.report(lost.number, epoch, 0.9) for epoch in (1, 2, 3))
    engine = KerasTunerEngine(asked, tmp_path)
    assert ask(engine) == lost
    assert engine.report(lost.number, 1, 0.1)
    engine.tell(TrialResult(lost.number, "run", "complete", 0.1))
    assert kept(tmp_path)["oracle"]["trials"][0]["score"] == 0.1


def test_a_trial_is_told_once(tmp_path: Path) -> None:
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
    (state,) = kept(tmp_path)["oracle"]["trials"]
    assert state["metrics"]["metrics"][objective]["direction"] == best


def test_seeds_differ_also_the_first(tmp_path: Path) -> None:
    proposed = []
    for number, seed in enumerate([0, 0, 1, 2]):
        engine = KerasTunerEngine(experiment("random", MIXED, seed=seed, baseline=False), tmp_path / str(number))
        proposed.append([plain(tell(engine, ask(engine)).candidate.hyperparameters) for _ in range(3)])
    assert proposed[0] == proposed[1]
    assert len({proposal for one in proposed for proposal in one}) == 9


# What is learned


def test_learned_trials_are_the_oracles_first(tmp_path: Path) -> None:
    asked = experiment("bayesian", SMALL)
    earlier = [tell(engine, ask(engine)) for engine in [KerasTunerEngine(asked, tmp_path / "a")] for _ in range(5)]
    engine = KerasTunerEngine(asked, tmp_path / "b")
    engine.learn(earlier)
    learned = kept(tmp_path / "b")["oracle"]["trials"]
    assert [state["score"] for state in learned] == [pytest.approx(trial.result.value) for trial in earlier]
    assert stored_trials(tmp_path / "b") == ()

    again = KerasTunerEngine(asked, tmp_path / "b")
    again.learn(earlier)
    tell(again, ask(again))
    # Its three first points are learned: this is the model's, and the same as without the interruption.
    third = KerasTunerEngine(asked, tmp_path / "b")
    third.learn(earlier)
    tell(engine, ask(engine))
    assert ask(third) == ask(engine)
    assert [state["score"] for state in kept(tmp_path / "b")["oracle"]["trials"][:5]] == [s["score"] for s in learned]


# What is kept


def kept(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / journal.FILE).read_text())
    return state


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband", "grid"])
def test_a_kill_at_any_point_loses_and_repeats_nothing(
    tmp_path: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = {"grid": NESTED, "bayesian": SMALL}.get(algorithm, MIXED)
    asked = experiment(algorithm, block | {"layers": [1, 3], "epochs": 9}, **{"try": [{"layers": 3}]})
    trials = 7 if algorithm == "bayesian" else 14
    states: list[str] = []
    write = journal.write_journal

    def written(folder: Path, state: journal.Journal) -> None:
        write(folder, state)
        states.append((folder / journal.FILE).read_text())

    with monkeypatch.context() as patch:
        patch.setattr("pneumo.engines.keras_tuner_engine.write_journal", written)
        engine = KerasTunerEngine(asked, tmp_path / "whole")
        play_two_at_once(engine, trials)
    whole = engine.trials()
    assert len(states) == 2 * trials

    for number, state in enumerate(states):
        folder = tmp_path / f"cut-{number}"
        folder.mkdir()
        (folder / journal.FILE).write_text(state)
        (folder / f"{journal.FILE}.part").write_text(state[: 40 * number])  # torn: the next write was under way
        before = stored_trials(folder)
        assert before == whole[: len(before)]
        again = KerasTunerEngine(asked, folder)
        further = min(len(before) + 3, trials)
        play_two_at_once(again, further)
        assert again.trials() == whole[:further]


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband", "grid"])
def test_an_operation_that_fails_has_not_happened(
    tmp_path: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = experiment(algorithm, {"grid": GRID, "bayesian": SMALL}.get(algorithm, MIXED))

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    def failing(operation: Callable[[], object]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", full)
            with pytest.raises(OSError, match="No space"):
                operation()

    smooth, rough = KerasTunerEngine(asked, tmp_path / "smooth"), KerasTunerEngine(asked, tmp_path / "rough")
    for _ in range(5):
        failing(rough.ask)
        candidate = ask(rough)
        failing(lambda told=candidate: tell(rough, told))  # type: ignore[misc]
        assert len(rough.trials()) == candidate.number
        tell(rough, candidate)
        tell(smooth, ask(smooth))
    assert rough.trials() == smooth.trials()


def test_an_oracle_that_raises_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = experiment("random", MIXED)
    engine = KerasTunerEngine(asked, tmp_path / "a")
    tell(engine, ask(engine))
    with monkeypatch.context() as patch:
        patch.setattr(keras_tuner.oracles.RandomSearchOracle, "populate_space", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.ask()
    other = KerasTunerEngine(asked, tmp_path / "b")
    tell(other, ask(other))
    assert ask(engine) == ask(other)  # it does not wait for the lock that the first oracle still holds


def test_asking_in_vain_changes_nothing(tmp_path: Path) -> None:
    asked = experiment("hyperband", {"layers": {"low": 1, "high": 3}, "epochs": 9}, baseline=False)
    patient, eager = KerasTunerEngine(asked, tmp_path / "a"), KerasTunerEngine(asked, tmp_path / "b")
    for engine, times in ((patient, 1), (eager, 50)):
        under_way = [ask(engine) for _ in range(3)]
        for candidate in under_way:
            answers = [engine.ask() for _ in range(times)]
            assert isinstance(answers[0], Wait)
            assert {id(answer) for answer in answers} == {id(answers[0])}  # no oracle is asked again and again
            tell(engine, candidate)
            while isinstance(proposal := engine.ask(), Candidate):
                under_way.append(proposal)
    assert patient.trials() == eager.trials()


def test_trials_are_read_without_keras_tuner(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/studies.db"
    engine = KerasTunerEngine(
        experiment("hyperband", MIXED | {"epochs": 3}), keras_tuner_storage.study_folder("study", storage)
    )
    for _ in range(6):
        tell(engine, ask(engine))
    ask(engine)
    assert stored_trials(tmp_path / "studies.keras-tuner" / "study") == engine.trials()
    assert len(engine.trials()) == 6
    assert stored_trials(tmp_path / "nothing here") == ()
    program = f"""
import sys
from pneumo.engines.registry import engine_kind
study = engine_kind("keras-tuner").read_study("study", {storage!r})
assert len(study.trials) == 6
assert len(study.numbers) == 7
assert not {{"tensorflow", "keras", "keras_tuner", "sklearn"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": "x"}', "\x00"])
def test_a_journal_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / journal.FILE).write_text(content)
    with pytest.raises(RequestError, match=journal.FILE) as caught:
        KerasTunerEngine(experiment("random", GRID), tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / journal.FILE).read_text() == content


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "study", Path("/proc/nowhere/study")):
        with pytest.raises(RequestError, match="--storage") as caught:
            KerasTunerEngine(experiment("random", GRID), folder)
        assert "\n" not in str(caught.value)


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
