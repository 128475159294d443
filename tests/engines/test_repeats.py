"""No engine proposes what it proposed before, or what cannot be built; a space without anything else ends the study."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import optuna
import pytest

from pneumo.engines.engine_table import open_engine, stored_studies
from pneumo.engines.protocol import Engine
from pneumo.engines.untried import trainable_combinations
from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.errors import RequestError
from pneumo.spec.result import State, Trial, TrialResult
from tests.support.engine_contract import ENGINES, PROPOSING, Open
from tests.support.engine_studies import ask, experiment, play, quality, tell

SPACES: dict[str, dict[str, Any]] = {
    "two values": {"filters": [2, 4]},
    "one value": {},
    "booleans": {"batch_norm": [False, True], "horizontal_flip": [False, True]},
    "integers": {"layers": {"low": 1, "high": 3}},
    "steps": {"dropout": {"low": 0.0, "high": 0.4, "step": 0.2}, "dense_units": {"low": 8, "high": 16, "step": 8}},
    "conditions": {"optimizer": ["adam", "sgd"], "momentum": [0.0, 0.5, 0.9]},
    "own conditions": {"layers": [1, 2], "dropout": {"values": [0.1, 0.2], "when": {"layers": 2}}},
    "inactive growth": {"layers": [1, 2], "filter_growth": [1.0, 1.5, 2.0]},
    "rounded filters": {"layers": 2, "filters": 1, "filter_growth": [0.5, 1.0, 1.2, 2.0]},
    "equal optimizers": {"optimizer": ["adam", "adamw"], "weight_decay": [0.0, 0.1]},
    "too many layers": {"layers": {"low": 1, "high": 6}},
    "too small pictures": {"layers": [2, 4, 6], "image_size": [32, 64]},
    "of no effect": {"layers": 1, "filter_growth": {"low": 1.0, "high": 2.0}},
}
"""Spaces of few networks. In the last one, an endless number of values gives one."""

MOST = 60
"""Number of trials that no space here gives."""


def is_supported(which: tuple[str, str], block: dict[str, Any]) -> bool:
    try:
        experiment(*which, block)
    except RequestError:
        return False
    return True


def play_to_end(engine: Engine, state: State = "complete") -> tuple[list[Trial], Done]:
    """Run one trial after another until there are no more candidates."""
    trials: list[Trial] = []
    while isinstance(proposal := engine.ask(), Candidate):
        assert len(trials) < MOST
        value = None if state == "failed" else quality(proposal)
        trials.append(Trial(proposal, TrialResult(proposal.number, "run", state, value, error="out of memory")))
        if state == "pruned":
            engine.report(proposal.number, 1, 0.1)
        engine.tell(trials[-1].result)
    assert isinstance(proposal, Done)
    return trials, proposal


def keys(trials: list[Trial]) -> list[object]:
    return [trial.candidate.key for trial in trials]


@pytest.mark.parametrize(
    ("space", "state"),
    [
        *((space, "complete") for space in SPACES),
        ("two values", "pruned"),
        ("integers", "pruned"),
        ("integers", "failed"),
    ],
)
@pytest.mark.parametrize("which", PROPOSING, indirect=True)
def test_each_network_is_proposed_once_and_then_the_study_ends(
    which: tuple[str, str], begin: Open, storage: str, space: str, state: State
) -> None:
    if not is_supported(which, SPACES[space]):
        pytest.skip("the algorithm does not support the space")
    request = experiment(*which, SPACES[space])
    engine = begin(request, storage)
    trials, done = play_to_end(engine, state)
    assert len(set(keys(trials))) == len(trials)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    combinations = trainable_combinations(request.space, MOST)
    if combinations is not None and which[1] != "hyperband":  # its brackets need not use the whole space
        assert set(keys(trials)) == {*combinations, Candidate(0, request.space.baseline()).key}
    assert "combination" in done.reason or "bracket" in done.reason or which[0] == "scripted"

    again = begin(request, storage)
    assert again.trials() == tuple(trials)
    assert again.skipped() == engine.skipped()
    assert isinstance(again.ask(), Done)
    assert again.skipped() == engine.skipped()  # a study that is resumed after its end does not count more and more


@pytest.mark.parametrize("which", ENGINES, indirect=True)
def test_candidates_under_way_are_not_repeated(which: tuple[str, str], begin: Open, storage: str) -> None:
    block = SPACES["steps"]
    engine = begin(experiment(*which, block), storage)
    under_way: list[Candidate] = []
    while isinstance(proposal := engine.ask(), Candidate):
        under_way.append(proposal)
    assert len({candidate.key for candidate in under_way}) == len(under_way) > 3
    for candidate in under_way:
        tell(engine, candidate)
    if isinstance(proposal, Wait):
        proposal = engine.ask()
    assert isinstance(proposal, Done) or which[1] == "hyperband"


@pytest.mark.parametrize("which", ENGINES, indirect=True)
def test_a_study_that_is_killed_after_each_step_skips_the_same(
    which: tuple[str, str], begin: Open, folder: Path
) -> None:
    request = experiment(*which, SPACES["too many layers"])
    uninterrupted = begin(request, f"sqlite:///{folder}/a.db")
    trials, _ = play_to_end(uninterrupted)

    storage = f"sqlite:///{folder}/b.db"
    for number in range(len(trials)):
        lost = ask(begin(request, storage))
        engine = begin(request, storage)
        candidate = ask(engine)
        assert candidate == lost
        assert candidate.number == number
        engine.tell(TrialResult(number, "run", "complete", quality(candidate), error="out of memory"))
    engine = begin(request, storage)
    assert isinstance(engine.ask(), Done)
    assert [trial.candidate for trial in engine.trials()] == [trial.candidate for trial in trials]
    assert engine.skipped() == uninterrupted.skipped()


@pytest.mark.parametrize("which", ENGINES, indirect=True)
def test_known_configurations_are_trained_once(which: tuple[str, str], begin: Open, storage: str) -> None:
    """One repeats the baseline, one repeats another and one cannot be built."""
    layers: dict[str, Any] = {"layers": {"low": 1, "high": 6}, "dropout": {"low": 0.0, "high": 0.4, "step": 0.1}}
    known: list[dict[str, Any]] = [{"layers": 1}, {"layers": 2}, {"layers": 6}, {"dropout": 0.2}, {"layers": 2}]
    options: dict[str, Any] = {"try": known}
    engine = begin(experiment(*which, layers, **options), storage)
    trials = play(engine, 4)
    proposed = [(t.candidate.values.layers, t.candidate.values.dropout) for t in trials]
    assert proposed[:3] == [(1, 0.0), (2, 0.0), (1, 0.2)]
    assert proposed[3] not in proposed[:3]
    if which[0] != "scripted":
        assert engine.skipped()["repeat"] >= 2
        assert engine.skipped()["unbuildable"] >= 1


@pytest.mark.parametrize("algorithm", ["random", "tpe", "grid"])
def test_what_an_earlier_study_trained_is_not_trained_again(folder: Path, algorithm: str) -> None:
    request = experiment("optuna", algorithm, SPACES["steps"])
    earlier = play(open_engine(request, f"sqlite:///{folder}/a.db"), 5)
    learned = [trial for trial in earlier if request.space.contains(trial.candidate.hyperparameters)]
    assert learned
    storage = f"sqlite:///{folder}/b.db"
    open_engine(request, storage).learn(learned)
    trials, _ = play_to_end(open_engine(request, storage))
    assert set(keys(trials)[1:]).isdisjoint(keys(learned))
    assert len(trials) == 1 + 6 - len(learned)


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [("optuna", "tpe"), ("optuna", "random"), ("optuna", "qmc"), ("optuna", "nsga2"), ("keras-tuner", "grid")],
)
def test_a_study_of_an_earlier_version_with_repeats_is_resumed(
    storage: str, name: str, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = {"filters": [2, 4], "layers": [1, 6]} if name == "keras-tuner" else {"filters": [2, 4, 8]}
    request = experiment(name, algorithm, block)
    module = importlib.import_module(f"pneumo.engines.{name.replace('-', '_')}_engine")
    with monkeypatch.context() as patch:
        patch.setattr(module, "skip_reason", lambda candidate, tried: None)
        engine = open_engine(request, storage)
        recorded = play(engine, 4 if name == "keras-tuner" else 7)
        lost = ask(engine)
    _forget_skipped(Path(storage.removeprefix("sqlite:///")))
    untrainable = [trial for trial in recorded if trial.candidate.values.layers == 6]
    assert len(set(keys(recorded))) < len(recorded) or untrainable

    again = open_engine(request, storage)
    assert again.trials() == tuple(recorded)
    assert ask(again) == lost  # its run is recorded, so it keeps its number
    tell(again, lost)
    trials, _ = play_to_end(again)
    assert {trial.candidate.values.filters for trial in [*recorded, *trials]} >= {2, 4}
    assert set(keys(trials)).isdisjoint([*keys(recorded), lost.key])
    (study,) = stored_studies("study", storage)
    assert study.numbers == tuple(range(len(recorded) + 1 + len(trials)))
    assert study.lost == ()


def _forget_skipped(database: Path) -> None:
    """Remove from a journal of Keras Tuner what earlier versions did not write."""
    for file in database.parent.rglob("pneumo.json"):
        state = json.loads(file.read_text())
        del state["skipped"]
        file.write_text(json.dumps(state))


@pytest.mark.parametrize("killed_at", ["set_user_attr", "tell"])
def test_a_kill_while_a_proposal_is_skipped_leaves_no_trace(
    folder: Path, killed_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed before the proposal is marked as skipped, or before Optuna is told."""
    request = experiment("optuna", "random", SPACES["too many layers"])
    trials, _ = play_to_end(open_engine(request, f"sqlite:///{folder}/a.db"))
    storage = f"sqlite:///{folder}/b.db"
    kills = 0

    def die(*_: Any, **__: Any) -> None:
        raise InterruptedError

    for number in range(len(trials)):
        engine = open_engine(request, storage)
        with monkeypatch.context() as patch:
            if killed_at == "tell":
                patch.setattr(engine._study, "tell", die)  # type: ignore[attr-defined]
            else:
                mark = optuna.Trial.set_user_attr
                patch.setattr(
                    optuna.Trial,
                    "set_user_attr",
                    lambda trial, key, value, mark=mark: die() if key == "pneumo.skipped" else mark(trial, key, value),
                )
            try:
                candidate = ask(engine)
            except InterruptedError:
                kills += 1
                candidate = None
        if candidate is None:
            engine = open_engine(request, storage)
            candidate = ask(engine)
        assert candidate == trials[number].candidate
        engine.tell(TrialResult(number, "run", "complete", quality(candidate), error="out of memory"))
    assert kills
    (study,) = stored_studies("study", storage)
    assert study.numbers == tuple(range(len(trials)))
    assert study.lost == ()


@pytest.mark.parametrize("which", ENGINES, indirect=True)
def test_a_large_space_skips_nothing(which: tuple[str, str], begin: Open, storage: str) -> None:
    block = {
        "learning_rate": {"low": 0.001, "high": 0.009, "step": 0.000_01},
        "dense_units": {"low": 8, "high": 16},
    }
    engine = begin(experiment(*which, block), storage)
    play(engine, 8)
    assert engine.skipped().total() == 0


RECORDED = {
    ("optuna", "tpe"): [0.213286, 0.006012],
    ("optuna", "random"): [0.213286, 0.006012],
    ("optuna", "qmc"): [0.007334, 0.007888],
    ("optuna", "cmaes"): [0.240628, 0.003521],
    ("optuna", "nsga2"): [0.213286, 0.006012],
    ("keras-tuner", "random"): [0.087007, 0.001155],
    ("keras-tuner", "bayesian"): [0.087007, 0.001155],
}
"""The dropout rate and the learning rate of trial 5 of a study, as the version before the skipping of repeats proposed them."""


@pytest.mark.parametrize(("name", "algorithm"), RECORDED)
def test_a_study_without_repeats_has_the_candidates_of_the_version_before(
    storage: str, name: str, algorithm: str
) -> None:
    block = {"learning_rate": {"low": 0.001, "high": 0.1, "log": True}, "dropout": {"low": 0.0, "high": 0.5}}
    last = play(open_engine(experiment(name, algorithm, block), storage), 6)[-1].candidate.values
    assert [last.dropout, last.learning_rate] == pytest.approx(RECORDED[name, algorithm], abs=1e-6)
