"""Playing a study without training: an experiment, made-up values, asking and telling."""

from __future__ import annotations

import importlib.util
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pneumo.engines.protocol import Engine
from pneumo.spec.algorithms import ALGORITHMS
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.result import Trial, TrialResult

without_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch (extra gp) is not here")

BLOCK: dict[str, Any] = {
    "layers": {"low": 1, "high": 4},
    "filters": [16, 32],
    "batch_norm": [False, True],
    "optimizer": ["adam", "sgd"],
    "momentum": {"low": 0.0, "high": 0.9, "step": 0.3},
    "learning_rate": {"low": 0.001, "high": 0.009, "step": 0.002},
}


RANGES: dict[str, Any] = {
    "layers": {"low": 1, "high": 4},
    "dropout": {"low": 0.0, "high": 0.5, "step": 0.1},
    "learning_rate": {"low": 0.001, "high": 0.009},
}
"""For algorithms that take no choices."""


def experiment(engine: str, algorithm: str, block: dict[str, Any] | None = None, **search: Any) -> Experiment:
    if engine in ("scripted", "retrying"):
        engine = next(name for name, algorithms in ALGORITHMS.items() if algorithm in algorithms)
    search = {"engine": engine, "algorithm": algorithm} | search
    block = (BLOCK if ALGORITHMS[engine][algorithm].choices else RANGES) if block is None else block
    return build_experiment({"name": "study", "hyperparameters": block, "search": search}, "test")


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
