"""An engine whose storage goes away: real storages, taken away and put back.

The contract of every engine is in test_contract.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pneumo.engines import retrying
from pneumo.engines.registry import describe_storage, open_engine, reopen_engine
from pneumo.engines.retrying import OutageError, RetryingEngine
from pneumo.spec.result import TrialResult
from tests.support.engine_studies import ask, experiment, play, tell

KINDS = [("optuna", "tpe", "studies.db"), ("keras-tuner", "bayesian", "studies.keras-tuner")]
"""Engine, algorithm, and where the studies lie in the storage's folder."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.01)


def opened(
    kind: tuple[str, str, str],
    folder: Path,
    outage: float,
    say: Callable[[str], None],
    interrupted: Callable[[], bool] = lambda: False,
) -> RetryingEngine:
    asked, storage = experiment(*kind[:2]), f"sqlite:///{folder}/studies.db"
    engine: RetryingEngine = RetryingEngine(
        open_engine(asked, storage),
        lambda: reopen_engine(asked, storage, engine.id),
        describe_storage(asked, storage),
        outage,
        say,
        interrupted,
    )
    return engine


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_a_storage_that_is_away_for_a_while_is_waited_for(kind: tuple[str, str, str], folder: Path) -> None:
    said: list[str] = []
    there, elsewhere = folder / "a" / kind[2], folder / kind[2]

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("Waiting"):
            elsewhere.rename(there)

    undisturbed = play(opened(kind, folder / "b", 60, print), 7)
    engine = opened(kind, folder / "a", 60, say)
    trials = play(engine, 2)
    first, second = ask(engine), ask(engine)
    there.rename(elsewhere)
    trials.append(tell(engine, first))  # at its first report
    third = ask(engine)
    there.rename(elsewhere)
    engine.tell(TrialResult(second.number, "run", "failed"))
    assert [t.number for t in engine.trials()] == [0, 1, 2, 3]
    assert [first.number, second.number, third.number] == [2, 3, 4]
    assert trials == undisturbed[:3]
    assert len(said) == 4
    assert all(line.startswith("Waiting for the study's ") and "(search.outage: 60 s)" in line for line in said[::2])
    assert all(line.startswith("It is back after") for line in said[1::2])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_one_that_stays_away_ends_it_and_nothing_is_lost(kind: tuple[str, str, str], folder: Path) -> None:
    engine = opened(kind, folder / "a", 0.3, print)
    trials = play(engine, 2)
    under_way = ask(engine)
    there, elsewhere = folder / "a" / kind[2], folder / kind[2]
    there.rename(elsewhere)
    with pytest.raises(
        OutageError, match=r"was unreachable for 0\.3 s \(search\.outage\): .*; all earlier results are stored"
    ):
        tell(engine, under_way)
    if there.is_dir():  # nothing was made in its place
        assert list(there.rglob("*")) == []
        shutil.rmtree(there)
    assert not there.exists()
    elsewhere.rename(there)
    again = opened(kind, folder / "a", 0.3, print)
    assert again.trials() == tuple(trials)
    assert ask(again) == under_way


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_another_study_in_its_place_is_not_taken_for_it(kind: tuple[str, str, str], folder: Path) -> None:
    engine, other = opened(kind, folder / "a", 3, print), opened(kind, folder / "b", 3, print)
    for name, identity in (("a", other.id), ("b", engine.id)):
        with pytest.raises(OSError, match="study study is not in it"):
            reopen_engine(experiment(*kind[:2]), f"sqlite:///{folder}/{name}/studies.db", identity)


def test_an_interruption_ends_the_waiting(folder: Path) -> None:
    engine = opened(KINDS[0], folder / "a", 60, print, interrupted=lambda: True)
    ask(engine)  # what answers is not held up
    (folder / "a" / "studies.db").rename(folder / "gone")
    with pytest.raises(KeyboardInterrupt):
        ask(engine)


def test_a_call_that_is_wrong_is_not_made_again(folder: Path) -> None:
    said: list[str] = []
    engine = opened(KINDS[0], folder / "a", 60, said.append)
    with pytest.raises(KeyError):
        engine.tell(TrialResult(7, "run", "failed"))
    assert said == []
