"""The engines under the contract: each algorithm of each engine, one without an algorithm, and one whose storage fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from pneumo.engines import engine_table, retrying
from pneumo.engines.engine_table import open_engine, reopen_engine
from pneumo.engines.protocol import Engine
from pneumo.engines.retrying import RetryingEngine
from pneumo.spec.algorithms import ALGORITHMS
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from tests.support.engine_studies import experiment, without_torch
from tests.support.scripted_engine import ScriptedEngine

PROPOSING = [
    pytest.param((engine, algorithm), id=f"{engine}/{algorithm}", marks=[without_torch] if algorithm == "gp" else [])
    for engine in engine_table.ENGINES
    for algorithm in ALGORITHMS[engine]
]
PROPOSING.append(pytest.param(("scripted", "random"), id="scripted"))
"""The engines that propose candidates of their own."""

ENGINES = PROPOSING + [
    pytest.param(("retrying", algorithm), id=f"retrying/{algorithm}") for algorithm in ("tpe", "bayesian")
]
"""All engines: also those that pass on what another one proposes."""

Open = Callable[[Experiment, str], Engine]
"""Function that opens an engine on a storage."""


def open_scripted(request: Experiment, storage: str) -> Engine:
    file = Path(storage.removeprefix("sqlite:///")).with_suffix(".json")
    file.parent.mkdir(parents=True, exist_ok=True)
    return ScriptedEngine(request, file)


def open_retrying(request: Experiment, storage: str) -> Engine:
    """Open a `RetryingEngine` whose storage fails in about every tenth call, before or after the call was carried out."""
    random = Random(0)

    def failing(engine: Engine) -> Engine:
        return cast(Engine, FailingEngine(engine, random))

    engine: RetryingEngine = RetryingEngine(
        failing(open_engine(request, storage)),
        lambda: failing(reopen_engine(request, storage, engine.id)),
        "it",
        60,
        print,
    )
    return engine


class FailingEngine:
    """An engine whose methods sometimes fail, as if a database were unreachable or an answer were lost."""

    def __init__(self, engine: Engine, random: Random) -> None:
        self.id, self._engine, self._random = engine.id, engine, random

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if self._random.random() < 0.05:
                raise OSError("away")
            answer = getattr(self._engine, name)(*arguments)
            if self._random.random() < 0.05:
                raise OSError("the answer is lost")
            return answer

        return call


def in_space(request: Experiment, candidate: Candidate) -> bool:
    """Return whether the space contains a candidate, or the full training of which it is a rung."""
    values = dict(candidate.hyperparameters)
    if candidate.full_epochs is not None:
        assert 0 <= candidate.first_epoch < candidate.epochs <= candidate.full_epochs
        values["epochs"] = candidate.full_epochs
    return request.space.contains(values)


@pytest.fixture(params=ENGINES)
def which(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return the engine and the algorithm."""
    engine, algorithm = request.param
    return engine, algorithm


@pytest.fixture
def make(which: tuple[str, str]) -> Callable[..., Experiment]:
    return lambda *args, **keywords: experiment(*which, *args, **keywords)


@pytest.fixture
def begin(which: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.001)
    return {"scripted": open_scripted, "retrying": open_retrying}.get(which[0], open_engine)
