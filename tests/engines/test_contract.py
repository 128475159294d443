"""The contract of an engine, tested for every engine, algorithm and pruner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from pneumo.engines import engine_table
from pneumo.engines.engine_table import open_engine
from pneumo.spec.algorithms import ALGORITHMS
from pneumo.spec.candidate import Candidate, Done
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import TrialResult
from tests.support.engine_contract import Open, in_space
from tests.support.engine_studies import ask, experiment, play, quality, tell
from tests.support.spaces import blocks


def test_the_table_has_every_engine_that_an_experiment_may_name() -> None:
    assert set(engine_table.ENGINES) == set(ALGORITHMS)


@pytest.mark.parametrize("name", engine_table.ENGINES)
def test_a_stored_study_is_read_without_its_engine(folder: Path, name: str) -> None:
    storage = f"sqlite:///{folder}/studies.db"
    kind = engine_table.engine_kind(name)
    assert kind.read_study("study", storage) is None
    assert list(folder.iterdir()) == []  # reading creates nothing
    request = experiment(name, "random")
    engine = open_engine(request, storage)
    trials = play(engine, 2)
    ask(engine)
    study = kind.read_study("study", storage)
    assert study is not None
    assert (study.id, study.experiment) == (engine.id, request.to_yaml())
    assert (study.numbers, study.lost) == ((0, 1, 2), ())
    assert [trial.result for trial in study.trials] == [trial.result for trial in trials]
    assert engine_table.stored_studies("study", storage) == (study,)
    assert engine_table.read_finished_trials("study", storage) == study.trials
    assert kind.read_id("study", storage) == engine.id
    assert kind.read_id("another", storage) is None
    assert engine_table.stored_studies("another", storage) == ()
    assert str(folder) in kind.describe_storage("study", storage)


def test_candidates_lie_in_the_space_and_the_first_is_the_tutorials(
    make: Callable[..., Experiment], begin: Open, storage: str
) -> None:
    request = make()
    trials = play(begin(request, storage), 12)
    assert [t.number for t in trials] == list(range(12))
    assert trials[0].candidate.hyperparameters == request.space.baseline()
    for trial in trials:
        values = trial.candidate.hyperparameters
        assert in_space(request, trial.candidate)
        assert ("momentum" in values) == (values["optimizer"] == "sgd")
        assert trial.candidate.searched == {d.name for d in request.space.searched} & set(values)


def test_without_baseline_the_engine_begins(make: Callable[..., Experiment], begin: Open, storage: str) -> None:
    request = make(baseline=False, seed=3)
    assert ask(begin(request, storage)).hyperparameters != request.space.baseline()


def test_the_same_seed_proposes_the_same(make: Callable[..., Experiment], begin: Open, folder: Path) -> None:
    first = play(begin(make(), f"sqlite:///{folder}/a.db"), 4)
    assert play(begin(make(), f"sqlite:///{folder}/b.db"), 4) == first
    if make().search.algorithm != "grid" or make().search.engine == "optuna":  # Keras Tuner's grid knows no seed
        assert play(begin(make(seed=1), f"sqlite:///{folder}/c.db"), 4) != first


@pytest.mark.parametrize("pruner", ["none", "hyperband"])
def test_a_killed_study_proposes_the_same_as_an_uninterrupted_one(
    make: Callable[..., Experiment], begin: Open, folder: Path, storage: str, pruner: str
) -> None:
    if pruner != "none" and not make().search.capabilities.pruners:
        pytest.skip("supports no pruner")
    request = make(pruner=pruner)
    uninterrupted = play(begin(request, f"sqlite:///{folder}/uninterrupted.db"), 8)

    engine = begin(request, storage)
    play(engine, 5)
    lost = ask(engine)
    for epoch in (1, 2):
        if not engine.report(lost.number, epoch, quality(lost) * epoch / 3):
            break
    # the process is killed here and closes nothing
    again = begin(request, storage)
    assert [t.number for t in again.trials()] == list(range(5))
    play(again, 3)
    assert list(begin(request, storage).trials()) == uninterrupted


def test_candidates_without_a_result_are_proposed_again_first(
    make: Callable[..., Experiment], begin: Open, storage: str
) -> None:
    engine = begin(make(), storage)
    play(engine, 2)
    lost = [ask(engine), ask(engine)]
    again = begin(make(), storage)
    assert [ask(again), ask(again)] == lost
    assert ask(again).number == 4


def test_a_study_without_finished_trials_accepts_a_changed_experiment(
    make: Callable[..., Experiment], begin: Open, storage: str
) -> None:
    first = begin(make(), storage)
    ask(first)
    block = make().hyperparameters | {"epochs": 3}
    again = begin(make(block, objective="val_loss"), storage)
    assert again.id == first.id
    assert ask(again).epochs == 3
    again.tell(TrialResult(0, "run", "complete", 0.5))
    assert begin(make(block, objective="val_loss"), storage).id == first.id


@pytest.mark.parametrize("name", engine_table.ENGINES)
def test_a_study_that_an_earlier_version_recorded_has_not_changed(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions recorded `search.terminator: false`, a setting that no longer exists."""
    storage = f"sqlite:///{folder}/studies.db"
    request = experiment(name, "random")
    recorded = request.to_yaml().replace("  max_failures:", "  terminator: false\n  max_failures:")
    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "to_yaml", lambda _: recorded)
        lost = ask(open_engine(request, storage))
    engine = open_engine(request, storage)
    (study,) = engine_table.stored_studies("study", storage)
    assert (study.numbers, study.experiment) == ((0,), recorded)  # the study was not created again
    assert ask(engine) == lost
    trial = tell(engine, lost)
    assert open_engine(request, storage).trials() == (trial,)


def test_candidates_under_way_have_numbers_of_their_own(
    make: Callable[..., Experiment], begin: Open, storage: str
) -> None:
    engine = begin(make(), storage)
    under_way = [ask(engine) for _ in range(4)]
    for candidate in reversed(under_way):
        tell(engine, candidate)
    assert [t.candidate for t in engine.trials()] == under_way


def test_failures_are_kept_and_the_study_goes_on(make: Callable[..., Experiment], begin: Open, storage: str) -> None:
    engine = begin(make(), storage)
    failed = TrialResult(ask(engine).number, "run", "failed", error="out of memory")
    engine.tell(failed)
    play(engine, 2)
    assert begin(make(), storage).trials()[0].result == failed


def test_known_configurations_follow_the_baseline(make: Callable[..., Experiment], begin: Open, storage: str) -> None:
    known: list[dict[str, Any]] = [{"layers": 3}, {"layers": 2, "learning_rate": 0.005}]
    request = make(**{"try": known})
    engine = begin(request, storage)
    trials = play(engine, 2)
    trials += play(begin(request, storage), 3)
    hyperparameters = [trial.candidate.hyperparameters for trial in trials]
    assert hyperparameters[0] == request.space.baseline()
    for expected, values in zip(known, hyperparameters[1:3], strict=True):
        assert values == {**values, **expected}
        assert request.space.contains(values)
    assert trials[3].candidate.hyperparameters not in hyperparameters[:3]


def test_learned_trials_of_an_earlier_study_have_no_numbers(
    make: Callable[..., Experiment], begin: Open, folder: Path
) -> None:
    request = make()
    earlier = [
        t
        for t in play(begin(request, f"sqlite:///{folder}/a.db"), 6)
        if request.space.contains(t.candidate.hyperparameters)
    ]
    storage = f"sqlite:///{folder}/b.db"
    engine = begin(request, storage)
    engine.learn(earlier)
    assert engine.trials() == ()
    again = begin(request, storage)
    again.learn(earlier)  # as a search does that was killed in between
    trials = play(again, 3)
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert trials[0].candidate.hyperparameters == request.space.baseline()
    last = begin(request, storage)
    assert last.trials() == tuple(trials)
    assert ask(last).number == 3


def test_failures_in_a_row_leave_the_engine_proposing(
    make: Callable[..., Experiment], begin: Open, storage: str
) -> None:
    engine = begin(make(), storage)
    for number in range(7):
        candidate = ask(engine)
        assert candidate.number == number
        engine.tell(TrialResult(number, "run", "failed", error="out of memory"))
    assert [t.result.state for t in begin(make(), storage).trials()] == ["failed"] * 7


@pytest.mark.slow
def test_hundreds_of_proposals_lie_in_their_spaces(which: tuple[str, str], begin: Open, folder: Path) -> None:
    if which[0] == "retrying":
        pytest.skip("proposes the same as the engine that it calls")
    capabilities = ALGORITHMS["optuna" if which[0] == "scripted" else which[0]][which[1]]
    # Keras Tuner's Gaussian process takes up to seconds for a proposal, and more with each finished trial.
    slow_settings: dict[str, Any] = (
        {"algorithm_settings": {"num_initial_points": 18}} if which == ("keras-tuner", "bayesian") else {}
    )
    spaces, proposals = 0, 0

    @settings(max_examples=500, deadline=None, derandomize=True, database=None)
    @given(blocks(capabilities))
    def run(block: dict[str, Any]) -> None:
        nonlocal spaces, proposals
        if proposals >= 300:
            return
        try:
            request = experiment(*which, block, **slow_settings)
        except RequestError:
            return  # the grid has too many combinations
        spaces += 1
        engine = begin(request, f"sqlite:///{folder}/{spaces}.db")
        for _ in range(20):
            proposal = engine.ask()
            if isinstance(proposal, Done):
                break
            assert isinstance(proposal, Candidate)
            if proposal.number:  # the first is the baseline, which may lie outside the space
                assert in_space(request, proposal), proposal
            engine.tell(TrialResult(proposal.number, "run", "complete", quality(proposal)))
            proposals += 1

    run()
    assert proposals >= 300


def test_a_baseline_outside_the_space_is_still_the_first(
    make: Callable[..., Experiment], begin: Open, storage: str
) -> None:
    layers = [2, 3] if make().search.capabilities.choices else {"low": 2, "high": 3}
    request = make({"layers": layers, "learning_rate": {"low": 0.002, "high": 0.008, "step": 0.002}})
    trials = play(begin(request, storage), 6)
    assert trials[0].candidate.values.layers == 1
    assert all(in_space(request, t.candidate) for t in trials[1:])
    assert begin(request, storage).trials() == tuple(trials)


@pytest.mark.parametrize("name", ["optuna", "keras-tuner"])
@pytest.mark.parametrize("layers", [[1, 2], [2, 3]], ids=["baseline inside", "baseline outside"])
def test_a_grid_proposes_each_combination_once_and_ends(storage: str, layers: list[int], name: str) -> None:
    request = experiment(name, "grid", {"layers": layers, "optimizer": ["adam", "sgd"], "momentum": [0.0, 0.5]})
    engine = open_engine(request, storage)
    trials = []
    while isinstance(proposal := engine.ask(), Candidate):
        trials.append(tell(engine, proposal))
    assert isinstance(proposal, Done)
    outside = 0 if 1 in layers else 1
    assert len(trials) == 6 + outside
    assert len({tuple(sorted(t.candidate.hyperparameters.items())) for t in trials}) == 6 + outside
