"""An engine whose storage becomes unreachable: real storages are moved away and put back.

The contract of an engine is tested in test_contract.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pneumo.engines import retrying
from pneumo.engines.engine_table import describe_storage, open_engine, reopen_engine
from pneumo.engines.retrying import OutageError, RetryingEngine
from pneumo.spec.result import TrialResult
from tests.support.engine_studies import ask, experiment, play, tell

KINDS = [("optuna", "tpe", "studies.db"), ("keras-tuner", "bayesian", "studies.keras-tuner")]
"""Engine, algorithm, and name of the file or folder with the studies."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.01)


def open_retrying(
    kind: tuple[str, str, str],
    folder: Path,
    outage: float,
    say: Callable[[str], None],
    interrupted: Callable[[], bool] = lambda: False,
) -> RetryingEngine:
    request, storage = experiment(*kind[:2]), f"sqlite:///{folder}/studies.db"
    engine: RetryingEngine = RetryingEngine(
        open_engine(request, storage),
        lambda: reopen_engine(request, storage, engine.id),
        describe_storage(request, storage),
        outage,
        say,
        interrupted,
    )
    return engine


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_a_short_outage_of_the_storage_is_waited_for(kind: tuple[str, str, str], folder: Path) -> None:
    lines: list[str] = []
    path, moved = folder / "a" / kind[2], folder / kind[2]

    def say(line: str) -> None:
        lines.append(line)
        if line.startswith("Waiting"):
            moved.rename(path)

    undisturbed = play(open_retrying(kind, folder / "b", 60, print), 7)
    engine = open_retrying(kind, folder / "a", 60, say)
    trials = play(engine, 2)
    first, second = ask(engine), ask(engine)
    path.rename(moved)
    trials.append(tell(engine, first))  # at its first report
    third = ask(engine)
    path.rename(moved)
    engine.tell(TrialResult(second.number, "run", "failed"))
    assert [t.number for t in engine.trials()] == [0, 1, 2, 3]
    assert [first.number, second.number, third.number] == [2, 3, 4]
    assert trials == undisturbed[:3]
    assert len(lines) == 4
    assert all(line.startswith("Waiting for the study's ") and "(search.outage: 60 s)" in line for line in lines[::2])
    assert all(line.startswith("It is back after") for line in lines[1::2])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_a_storage_that_stays_unreachable_raises_and_loses_nothing(kind: tuple[str, str, str], folder: Path) -> None:
    engine = open_retrying(kind, folder / "a", 0.3, print)
    trials = play(engine, 2)
    under_way = ask(engine)
    path, moved = folder / "a" / kind[2], folder / kind[2]
    path.rename(moved)
    with pytest.raises(
        OutageError, match=r"was unreachable for 0\.3 s \(search\.outage\): .*; all earlier results are stored"
    ):
        tell(engine, under_way)
    if path.is_dir():  # nothing was created in its place
        assert list(path.rglob("*")) == []
        shutil.rmtree(path)
    assert not path.exists()
    moved.rename(path)
    again = open_retrying(kind, folder / "a", 0.3, print)
    assert again.trials() == tuple(trials)
    assert ask(again) == under_way


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_another_study_in_the_same_place_is_rejected(kind: tuple[str, str, str], folder: Path) -> None:
    engine, other = open_retrying(kind, folder / "a", 3, print), open_retrying(kind, folder / "b", 3, print)
    for name, identity in (("a", other.id), ("b", engine.id)):
        with pytest.raises(OSError, match="study study is not in it"):
            reopen_engine(experiment(*kind[:2]), f"sqlite:///{folder}/{name}/studies.db", identity)


def test_an_interruption_ends_the_waiting(folder: Path) -> None:
    engine = open_retrying(KINDS[0], folder / "a", 60, print, interrupted=lambda: True)
    ask(engine)  # a call that is answered is not interrupted
    (folder / "a" / "studies.db").rename(folder / "gone")
    with pytest.raises(KeyboardInterrupt):
        ask(engine)


def test_a_wrong_call_is_not_repeated(folder: Path) -> None:
    lines: list[str] = []
    engine = open_retrying(KINDS[0], folder / "a", 60, lines.append)
    with pytest.raises(KeyError):
        engine.tell(TrialResult(7, "run", "failed"))
    assert lines == []
