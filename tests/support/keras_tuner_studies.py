"""Studies with Keras Tuner that are played rather than trained."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pneumo.engines.journal import finished_journal_trials, read_journal
from pneumo.engines.keras_tuner_engine import KerasTunerEngine
from pneumo.spec.candidate import Candidate, Done
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.result import State, Trial, TrialResult

MOST = 200
"""More than any study here has trials."""

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
"""For a Gaussian process, which takes seconds a proposal in the others."""

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
"""Settings with which each algorithm soon does what is its own."""


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
    """Plays until nothing more is proposed; one trial at a time, so there is nothing to wait for."""
    for _ in range(MOST):
        proposal = engine.ask()
        if not isinstance(proposal, Candidate):
            assert isinstance(proposal, Done)
            return
        yield tell(engine, proposal, state(proposal))
    raise AssertionError(f"more than {MOST} proposals")


def play_two_at_once(engine: KerasTunerEngine, trials: int) -> None:
    """Plays until so many trials are told, and no more are under way."""
    under_way: list[Candidate] = []
    while len(engine.trials()) < trials:
        asked = len(engine.trials()) + len(under_way)
        if len(under_way) < 2 and asked < trials and isinstance(proposal := engine.ask(), Candidate):
            under_way.append(proposal)
        else:
            tell(engine, under_way.pop(0))


def reason(engine: KerasTunerEngine) -> str:
    proposal = engine.ask()
    assert isinstance(proposal, Done)
    return proposal.reason


def plain(values: Any) -> str:
    return json.dumps(dict(values), sort_keys=True)


def stored_trials(folder: Path) -> tuple[Trial, ...]:
    """Return the finished trials that the journal in a folder has; empty if there is no journal."""
    journal = read_journal(folder)
    return finished_journal_trials(journal.proposals) if journal else ()
