"""Studies with Keras Tuner, without training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pneumo.engines.journal import FILE, finished_journal_trials, read_journal
from pneumo.engines.keras_tuner_engine import KerasTunerEngine
from pneumo.spec.candidate import Candidate, Done
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.result import State, Trial, TrialResult

MOST = 200
"""Number of trials that no study in these tests reaches."""

NOTHING: dict[str, Any] = {}
GRID: dict[str, Any] = {"layers": {"low": 1, "high": 3}, "optimizer": ["adam", "sgd"], "momentum": [0.0, 0.5]}
MIXED: dict[str, Any] = {
    "layers": {"low": 1, "high": 8, "log": True},
    "filters": [16, 64, 32],
    "batch_norm": [False, True],
    "optimizer": ["adam", "sgd", "rmsprop"],
    "momentum": {"low": 0.0, "high": 0.9, "step": 0.3},
    "dropout": {"low": 0.0, "high": 0.5},
    "learning_rate": {"low": 0.0001, "high": 0.1, "log": True},
    "image_size": 256,
}
SMALL = {name: MIXED[name] for name in ("layers", "learning_rate")}
"""A space for a Gaussian process, which takes seconds for each proposal in the others."""

NESTED: dict[str, Any] = {
    "optimizer": ["adam", "sgd", "rmsprop"],
    "momentum": {"values": [0.5, 0.9], "when": {"optimizer": ["sgd", "rmsprop"]}},
    "schedule": {"values": ["constant", "cosine"], "when": {"momentum": 0.9}},
    "batch_norm": [False, True],
    "label_smoothing": {"values": [0.0, 0.1], "when": {"schedule": "cosine", "batch_norm": True}},
    "weight_decay": {"values": [0.0, 0.01], "when": {"pooling": "max"}},
    "zoom": {"values": [0.1, 0.3], "when": {"pooling": "average"}},
    "shear": {"value": 5.0, "when": {"batch_norm": True}},
    "rotation": {"values": [0.0, 10.0], "when": {"shear": 5.0}},
}
"""Conditions on searched hyperparameters and on fixed ones, on several at once and on conditional ones."""

SHORT = {"bayesian": {"num_initial_points": 3}, "hyperband": {"factor": 3, "hyperband_iterations": 1}}
"""Settings with which each algorithm reaches its characteristic behaviour after few trials."""


def experiment(algorithm: str, block: dict[str, Any], **search: Any) -> Experiment:
    search = {"algorithm_settings": SHORT.get(algorithm, {})} | search
    search |= {"engine": "keras-tuner", "algorithm": algorithm}
    return build_experiment({"name": "study", "hyperparameters": block, "search": search}, "test")


def quality(candidate: Candidate) -> float:
    values = candidate.values
    return 1 / (1 + abs(math.log10(values.learning_rate) + 2.5) + abs(values.layers - 3) + (values.optimizer == "adam"))


def ask(engine: KerasTunerEngine) -> Candidate:
    proposal = engine.ask()
    assert isinstance(proposal, Candidate)
    return proposal


def tell(engine: KerasTunerEngine, candidate: Candidate, state: State = "complete") -> Trial:
    value = None if state == "failed" else quality(candidate)
    result = TrialResult(candidate.number, f"run-{candidate.number}", state, value, history=(0.1, 0.2))
    engine.tell(result)
    return Trial(candidate, result)


def play(engine: KerasTunerEngine, state: Callable[[Candidate], State] = lambda _: "complete") -> Iterator[Trial]:
    """Run one trial after another until there are no more candidates, and yield the trials."""
    for _ in range(MOST):
        proposal = engine.ask()
        if not isinstance(proposal, Candidate):
            assert isinstance(proposal, Done)
            return
        yield tell(engine, proposal, state(proposal))
    raise AssertionError(f"more than {MOST} proposals")


def play_two_at_once(engine: KerasTunerEngine, trials: int) -> None:
    """Run trials, two at a time, until so many are finished and none is under way."""
    under_way: list[Candidate] = []
    while len(engine.trials()) < trials:
        proposed = len(engine.trials()) + len(under_way)
        if len(under_way) < 2 and proposed < trials and isinstance(proposal := engine.ask(), Candidate):
            under_way.append(proposal)
        else:
            tell(engine, under_way.pop(0))


def reason(engine: KerasTunerEngine) -> str:
    """Return why the engine has no more candidates."""
    proposal = engine.ask()
    assert isinstance(proposal, Done)
    return proposal.reason


def to_text(values: Any) -> str:
    return json.dumps(dict(values), sort_keys=True)


def stored_trials(folder: Path) -> tuple[Trial, ...]:
    """Return the finished trials that the journal in a folder has; empty if there is no journal."""
    journal = read_journal(folder)
    return finished_journal_trials(journal.proposals) if journal else ()


def read_state(folder: Path) -> dict[str, Any]:
    """Return the content of the journal in a folder."""
    state: dict[str, Any] = json.loads((folder / FILE).read_text())
    return state
