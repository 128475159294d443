"""What every engine promises, over every algorithm and pruner."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from pneumo.engines.protocol import Engine, open_engine
from pneumo.spec.candidate import Candidate, Done
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment, make_experiment
from pneumo.spec.result import Trial, TrialResult

ALGORITHMS = [("optuna", "tpe"), ("optuna", "random"), ("optuna", "grid")]
BLOCK: dict[str, Any] = {
    "layers": {"low": 1, "high": 4},
    "filters": [16, 32],
    "batch_norm": [False, True],
    "optimizer": ["adam", "sgd"],
    "momentum": {"low": 0.0, "high": 0.9, "step": 0.3},
    "learning_rate": {"low": 0.001, "high": 0.009, "step": 0.002},
}


def experiment(engine: str, algorithm: str, block: dict[str, Any] = BLOCK, **search: Any) -> Experiment:
    search = {"engine": engine, "algorithm": algorithm} | search
    return make_experiment({"name": "study", "hyperparameters": block, "search": search}, "test")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a study commits some hundred times, and a disk makes each wait."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def storage(folder: Path) -> str:
    return f"sqlite:///{folder}/a folder/studies.db"


def quality(candidate: Candidate) -> float:
    """A made-up objective between 0 and 1, so that algorithms have something to climb."""
    values = candidate.values
    return 1 / (1 + abs(math.log10(values.learning_rate) + 2.5) + abs(values.layers - 3) + (values.optimizer == "adam"))


def tell(engine: Engine, candidate: Candidate) -> Trial:
    result = TrialResult(candidate.number, f"run-{candidate.number}", "complete", quality(candidate))
    for epoch in (1, 2, 3):
        if not engine.report(candidate.number, epoch, quality(candidate) * epoch / 3):
            result = TrialResult(candidate.number, result.run_id, "pruned", quality(candidate) * epoch / 3)
            break
    engine.tell(result)
    return Trial(candidate, result)


def ask(engine: Engine) -> Candidate:
    proposal = engine.ask()
    assert isinstance(proposal, Candidate)
    return proposal


def play(engine: Engine, trials: int) -> list[Trial]:
    return [tell(engine, ask(engine)) for _ in range(trials)]


@pytest.fixture(params=ALGORITHMS, ids="/".join)
def make(request: pytest.FixtureRequest) -> Callable[..., Experiment]:
    engine, algorithm = request.param
    return lambda *args, **keywords: experiment(engine, algorithm, *args, **keywords)


def test_candidates_lie_in_the_space_and_the_first_is_the_tutorials(
    make: Callable[..., Experiment], storage: str
) -> None:
    asked = make()
    trials = play(open_engine(asked, storage), 12)
    assert [t.number for t in trials] == list(range(12))
    assert trials[0].candidate.hyperparameters == asked.space.baseline()
    for trial in trials:
        values = trial.candidate.hyperparameters
        assert asked.space.holds(values)
        assert ("momentum" in values) == (values["optimizer"] == "sgd")
        assert trial.candidate.searched == {d.name for d in asked.space.searched} & set(values)


def test_without_baseline_the_engine_begins(make: Callable[..., Experiment], storage: str) -> None:
    asked = make(baseline=False, seed=3)
    assert ask(open_engine(asked, storage)).hyperparameters != asked.space.baseline()


def test_the_same_seed_proposes_the_same(make: Callable[..., Experiment], folder: Path) -> None:
    first = play(open_engine(make(), f"sqlite:///{folder}/a.db"), 4)
    assert play(open_engine(make(), f"sqlite:///{folder}/b.db"), 4) == first
    assert play(open_engine(make(seed=1), f"sqlite:///{folder}/c.db"), 4) != first


@pytest.mark.parametrize("pruner", ["none", "hyperband"])
@pytest.mark.parametrize("killed_at", [0, 6])
def test_a_killed_study_goes_on_as_if_it_had_not_been(
    make: Callable[..., Experiment], folder: Path, killed_at: int, pruner: str
) -> None:
    asked = make(pruner=pruner)
    whole = play(open_engine(asked, f"sqlite:///{folder}/whole.db"), 10)

    cut = f"sqlite:///{folder}/cut.db"
    engine = open_engine(asked, cut)
    play(engine, killed_at)
    lost = ask(engine)
    for epoch in (1, 2):
        if not engine.report(lost.number, epoch, quality(lost) * epoch / 3):
            break
    # here the process is gone, with nothing closed
    again = open_engine(asked, cut)
    assert [t.number for t in again.trials()] == list(range(killed_at))
    play(again, 10 - killed_at)
    assert list(open_engine(asked, cut).trials()) == whole


def test_what_was_under_way_is_proposed_again_first(make: Callable[..., Experiment], storage: str) -> None:
    engine = open_engine(make(), storage)
    play(engine, 2)
    lost = [ask(engine), ask(engine)]
    again = open_engine(make(), storage)
    assert [ask(again), ask(again)] == lost
    assert ask(again).number == 4


def test_a_study_in_which_nothing_was_told_takes_a_new_experiment(
    make: Callable[..., Experiment], storage: str
) -> None:
    first = open_engine(make(), storage)
    ask(first)
    again = open_engine(make(BLOCK | {"epochs": 3}, objective="val_loss"), storage)
    assert again.id == first.id
    assert ask(again).epochs == 3
    again.tell(TrialResult(0, "run", "complete", 0.5))
    study = optuna.load_study(study_name="study", storage=storage)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert open_engine(make(BLOCK | {"epochs": 3}, objective="val_loss"), storage).id == first.id


def test_candidates_under_way_have_numbers_of_their_own(make: Callable[..., Experiment], storage: str) -> None:
    engine = open_engine(make(), storage)
    under_way = [ask(engine) for _ in range(4)]
    for candidate in reversed(under_way):
        tell(engine, candidate)
    assert [t.candidate for t in engine.trials()] == under_way


def test_failures_are_kept_and_the_study_goes_on(make: Callable[..., Experiment], storage: str) -> None:
    engine = open_engine(make(), storage)
    failed = TrialResult(ask(engine).number, "run", "failed", error="out of memory")
    engine.tell(failed)
    play(engine, 2)
    assert open_engine(make(), storage).trials()[0].result == failed


def test_a_baseline_outside_the_space_is_still_the_first(make: Callable[..., Experiment], storage: str) -> None:
    asked = make({"layers": [2, 3], "learning_rate": {"low": 0.002, "high": 0.008, "step": 0.002}})
    trials = play(open_engine(asked, storage), 6)
    assert trials[0].candidate.values.layers == 1
    assert all(asked.space.holds(t.candidate.hyperparameters) for t in trials[1:])
    assert open_engine(asked, storage).trials() == tuple(trials)


@pytest.mark.parametrize("layers", [[1, 2], [2, 3]], ids=["baseline inside", "baseline outside"])
def test_a_grid_proposes_each_combination_once_and_ends(storage: str, layers: list[int]) -> None:
    asked = experiment("optuna", "grid", {"layers": layers, "optimizer": ["adam", "sgd"], "momentum": [0.0, 0.5]})
    engine = open_engine(asked, storage)
    trials = []
    while isinstance(proposal := engine.ask(), Candidate):
        trials.append(tell(engine, proposal))
    assert isinstance(proposal, Done)
    outside = 0 if 1 in layers else 1
    assert len(trials) == 6 + outside
    assert len({tuple(sorted(t.candidate.hyperparameters.items())) for t in trials}) == 6 + outside


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
    assert study.best_value == max(t.result.value or 0 for t in trials)
    assert [t.params["layers"] for t in study.trials] == [t.candidate.hyperparameters["layers"] for t in trials]


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
