"""Studies without training: an experiment, and trials with made-up values."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
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
"""A space for algorithms that support no choices."""


def experiment(engine: str, algorithm: str, block: dict[str, Any] | None = None, **search: Any) -> Experiment:
    """Return an experiment with this engine and algorithm. `search` has further keys of its `search` block."""
    if engine in ("scripted", "retrying"):
        engine = next(name for name, algorithms in ALGORITHMS.items() if algorithm in algorithms)
    search = {"engine": engine, "algorithm": algorithm} | search
    block = (BLOCK if ALGORITHMS[engine][algorithm].choices else RANGES) if block is None else block
    return build_experiment({"name": "study", "hyperparameters": block, "search": search}, "test")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder in memory if possible, because a study commits some hundred times and a disk delays each commit."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with Optuna's tables and no study. A copy of it costs a third of making the tables."""
    path = tmp_path_factory.mktemp("database") / "studies.db"
    optuna.storages.RDBStorage(f"sqlite:///{path}")
    return path


@pytest.fixture
def storage(folder: Path, empty_database: Path) -> str:
    (folder / "a folder").mkdir()
    shutil.copy(empty_database, folder / "a folder" / "studies.db")
    return f"sqlite:///{folder}/a folder/studies.db"


def quality(candidate: Candidate) -> float:
    """Return a made-up objective between 0 and 1 that algorithms can maximize."""
    values = candidate.values
    return 1 / (1 + abs(math.log10(values.learning_rate) + 2.5) + abs(values.layers - 3) + (values.optimizer == "adam"))


def tell(engine: Engine, candidate: Candidate) -> Trial:
    """Report three epochs of a candidate, tell its result, and return the trial."""
    result = TrialResult(candidate.number, f"run-{candidate.number}", "complete", quality(candidate))
    for epoch in (1, 2, 3):
        if not engine.report(candidate.number, epoch, quality(candidate) * epoch / 3):
            result = TrialResult(candidate.number, result.run_id, "pruned", quality(candidate) * epoch / 3)
            break
    engine.tell(result)
    return Trial(candidate, result)


def ask(engine: Engine) -> Candidate:
    """Return the next candidate. Fail if there is none."""
    proposal = engine.ask()
    assert isinstance(proposal, Candidate)
    return proposal


def play(engine: Engine, trials: int) -> list[Trial]:
    """Run so many trials one after another, and return them."""
    return [tell(engine, ask(engine)) for _ in range(trials)]
