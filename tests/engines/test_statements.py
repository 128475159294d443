"""What a trial costs in statements of SQL, which must not grow with the study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from pneumo.engines.engine_table import open_engine
from pneumo.engines.protocol import Engine
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.result import TrialResult

RATES = {"low": 0.0001, "high": 0.01, "log": True}


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Return a list to which every statement is added."""
    seen: list[str] = []

    def see(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", see)
    yield seen
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", see)


def ask(engine: Engine) -> Candidate:
    candidate = engine.ask()
    assert isinstance(candidate, Candidate)
    return candidate


def test_a_trial_takes_as_many_statements_however_many_are_finished_or_under_way(
    tmp_path: Path, statements: list[str]
) -> None:
    document = {"name": "s", "hyperparameters": {"learning_rate": RATES, "epochs": 2}, "search": {"pruner": "median"}}
    engine = open_engine(build_experiment(document, "test"), f"sqlite:///{tmp_path}/studies.db")

    def run_trial() -> int:
        """Run a trial of one report, and return the statements that it took."""
        before = len(statements)
        candidate = ask(engine)
        assert engine.report(candidate.number, 1, 0.5)
        engine.tell(TrialResult(candidate.number, "run", "complete", 0.5 + candidate.number / 1000))
        assert engine.trials()[-1].number == candidate.number
        return len(statements) - before

    for _ in range(11):  # TPE proposes at random until it has ten results
        run_trial()
    counts = [run_trial() for _ in range(3)]
    under_way = [ask(engine) for _ in range(5)]
    counts += [run_trial() for _ in range(2)]
    assert len(set(counts)) == 1, counts
    engine.tell(TrialResult(under_way[2].number, "run", "failed", error="bad luck"))
    numbers = [trial.number for trial in engine.trials()]
    assert numbers == [*range(14), under_way[2].number, 19, 20]
