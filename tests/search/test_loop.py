"""The loop of a search, with a real engine, real worker processes and a recorder in memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pneumo.compute.local import LocalProcesses
from pneumo.engines.engine_table import open_engine
from pneumo.engines.protocol import Engine
from pneumo.search.loop import Ending, Training, TrainingLoop
from pneumo.search.schedule import Study
from pneumo.search.screen import TrialListener
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import build_experiment
from tests.support.made_up_trials import train, warm_up


class MemoryRecorder:
    """A `Recorder` in memory."""

    def __init__(self) -> None:
        self.ends: dict[str, tuple[str, str | None]] = {}

    def begin(self, training: Training) -> str:
        run_id = f"run-{training.candidate.number}-{len(self.ends)}"
        self.ends[run_id] = ("running", None)
        return run_id

    def task(self, training: Training, run_id: str) -> tuple[Candidate, str]:
        return training.candidate, run_id

    def end(self, run_id: str, state: str, error: str | None = None, output: str = "") -> None:
        self.ends[run_id] = (state, error)


RunSearch = Callable[..., tuple[Ending, Engine, MemoryRecorder, str]]


@pytest.fixture(scope="module")
def places() -> Iterator[dict[int, LocalProcesses]]:
    """Worker processes by their number. Searches that run to their end use them one after another."""
    places: dict[int, LocalProcesses] = {}
    yield places
    for place in places.values():
        place.close()


@pytest.fixture
def run_search(tmp_path: Path, places: dict[int, LocalProcesses]) -> RunSearch:
    """Return a function that runs the search of one study, and resumes it if it is called again.

    It takes the `hyperparameters` block, `interrupted`, and the settings of the `search` block. It returns the ending, the
    engine, the recorder and the output.
    """
    storage = f"sqlite:///{tmp_path}/studies.db"

    def run(
        block: dict[str, Any], interrupted: Callable[[], bool] = lambda: False, **search: Any
    ) -> tuple[Ending, Engine, MemoryRecorder, str]:
        document = {"name": "s", "hyperparameters": {"epochs": 2} | block, "search": search}
        experiment: Experiment = build_experiment(document, "test")
        engine, recorder, output = open_engine(experiment, storage), MemoryRecorder(), io.StringIO()
        workers = experiment.search.worker_count
        place = places.pop(workers, None) or LocalProcesses(train, warm_up, workers, ())
        with TrialListener(experiment, Console(file=output, width=200), engine.trials()) as listener:
            try:
                loop = TrainingLoop(Study(experiment.search, engine), place, recorder, listener)
                ending = loop.run(interrupted)
            except BaseException:
                place.close()
                raise
        if ending.interrupted:
            place.close()
        else:
            places[workers] = place
        return ending, engine, recorder, output.getvalue()

    return run


RATES = {"low": 0.001, "high": 0.01}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_budget_of_trials_is_a_total(run_search: RunSearch, workers: int) -> None:
    ending, engine, recorder, output = run_search({"learning_rate": RATES}, trials=3, workers=workers)
    assert ending == Ending("all 3 trials are done")
    assert [t.result.state for t in engine.trials()] == ["complete"] * 3
    assert sorted(recorder.ends.values()) == [("complete", None)] * 3
    assert [t.result.history for t in engine.trials()] == [
        (t.candidate.values.learning_rate, 2 * t.candidate.values.learning_rate) for t in engine.trials()
    ]
    assert all(0 < t.result.started <= t.result.ended for t in engine.trials())
    assert output.count("complete") == 3

    ending, engine, recorder, output = run_search({"learning_rate": RATES}, trials=5, workers=workers)
    assert [t.number for t in engine.trials()] == list(range(5))
    assert len(recorder.ends) == 2


def test_bad_trials_cost_themselves_only(run_search: RunSearch) -> None:
    ending, engine, recorder, output = run_search({"layers": [1, 2, 3, 5]}, trials=9, algorithm="grid")
    assert ending.reason == "every combination of the grid was proposed"
    ends = {t.candidate.values.layers: (t.result.state, t.result.error) for t in engine.trials()}
    assert ends[1] == ("complete", None)
    assert ends[2] == ("failed", "no luck")
    assert ends[3] == ("failed", "the worker process was ended by SIGSEGV")
    assert 5 not in ends  # its layers pool the picture to nothing
    assert engine.skipped() == {"unbuildable": 1}
    assert sorted(recorder.ends.values(), key=str) == sorted(ends.values(), key=str)
    assert "SIGSEGV" in output


def test_an_interruption_closes_the_trial_under_way_and_a_later_search_runs_it_again(run_search: RunSearch) -> None:
    answers = iter([False, False])  # the interruption comes after the first trial was started
    ending, engine, recorder, _ = run_search(
        {"learning_rate": RATES}, interrupted=lambda: next(answers, True), trials=3
    )
    assert ending.interrupted
    assert list(recorder.ends.values())[-1] == ("killed", None)
    finished = len(engine.trials())

    ending, engine, recorder, _ = run_search({"learning_rate": RATES}, trials=3)
    assert not ending.interrupted
    assert [t.number for t in engine.trials()] == [0, 1, 2]
    assert len(recorder.ends) == 3 - finished


def test_no_trial_starts_after_the_timeout(run_search: RunSearch) -> None:
    ending, engine, _, _ = run_search({"learning_rate": RATES}, trials=1000, timeout=1e-9)
    assert ending.reason.startswith("the time of")
    assert engine.trials() == ()


def test_a_pruned_trial_is_told_as_pruned(run_search: RunSearch) -> None:
    block = {"learning_rate": RATES, "epochs": 4}
    _, engine, recorder, _ = run_search(block, trials=14, pruner="median", algorithm="random")
    states = {t.result.state for t in engine.trials()}
    assert states == {"complete", "pruned"}
    assert sorted(state for state, _ in recorder.ends.values()) == sorted(t.result.state for t in engine.trials())


def test_a_search_that_finds_nothing_better_ends_early_and_stays_ended(run_search: RunSearch) -> None:
    # A trial's value is its learning rate, and the tutorial's is above this range: the baseline stays the best.
    block = {"learning_rate": {"low": 1e-5, "high": 1e-4}}
    ending, engine, _, _ = run_search(block, trials=50, patience=4)
    assert ending == Ending("no better value in the last 4 finished trials", exhausted=True)
    assert len(engine.trials()) == 5
    ending, engine, recorder, _ = run_search(block, trials=50, patience=4)
    assert ending.exhausted
    assert recorder.ends == {}
    assert len(run_search(block, trials=50, patience=6)[1].trials()) == 7


def test_trial_after_trial_that_fails_ends_the_search_with_the_common_cause(run_search: RunSearch) -> None:
    block = {"layers": 2, "learning_rate": RATES}
    ending, engine, _, _ = run_search(block, trials=50, max_failures=3, baseline=False)
    assert ending == Ending("3 trials in a row failed, 3 of them: no luck", broken=True)
    assert len(engine.trials()) == 3
    # A resumed study gets another chance.
    assert len(run_search(block, trials=50, max_failures=3, baseline=False)[1].trials()) == 6


@pytest.mark.parametrize(
    "algorithm", ["optuna/random", "optuna/tpe", "optuna/grid", "keras-tuner/random", "keras-tuner/grid"]
)
def test_networks_that_cannot_be_built_use_up_no_trial(run_search: RunSearch, algorithm: str) -> None:
    engine_name, algorithm = algorithm.split("/")
    rates = RATES | {"step": 0.001}
    ending, engine, recorder, _ = run_search(
        {"layers": [5, 1, 6], "learning_rate": rates}, trials=6, engine=engine_name, algorithm=algorithm, max_failures=1
    )
    assert ending == Ending("all 6 trials are done")
    assert [trial.result.state for trial in engine.trials()] == ["complete"] * 6
    assert len(recorder.ends) == 6
    assert engine.skipped()["unbuildable"]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("algorithm", ["tpe", "random", "qmc"])
def test_a_search_of_few_networks_trains_each_once_and_ends(
    run_search: RunSearch, algorithm: str, workers: int
) -> None:
    options = {"trials": 8, "algorithm": algorithm, "workers": workers}
    ending, engine, recorder, _ = run_search({"filters": [2, 4]}, **options)
    assert ending == Ending("every combination of the space was tried", exhausted=True)
    assert sorted(trial.candidate.values.filters for trial in engine.trials()) == [2, 4, 32]  # 32 is the baseline
    assert len(recorder.ends) == 3
    assert engine.skipped()["repeat"] > 0
    assert run_search({"filters": [2, 4]}, **options)[2].ends == {}  # the same command again trains nothing


@pytest.mark.parametrize("pruner", ["median", "percentile", "asha", "hyperband"])
def test_a_trial_that_trained_all_epochs_is_complete(run_search: RunSearch, pruner: str) -> None:
    block = {"learning_rate": RATES, "epochs": 3}
    _, engine, _, _ = run_search(block, trials=14, pruner=pruner, algorithm="random")
    assert {t.result.state for t in engine.trials()} >= {"complete"}
    for trial in engine.trials():
        assert (trial.result.state == "complete") == (len(trial.result.history) == 3)
