"""The journal of a study with Keras Tuner: kills, failed operations, and files that cannot be read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras_tuner
import pytest

from pneumo.engines import journal, keras_tuner_storage
from pneumo.engines.keras_tuner_engine import KerasTunerEngine
from pneumo.spec.candidate import Candidate, Wait
from pneumo.spec.errors import RequestError
from tests.conftest import ROOT
from tests.support.keras_tuner_studies import (
    GRID,
    MIXED,
    NESTED,
    SMALL,
    ask,
    experiment,
    play_two_at_once,
    stored_trials,
    tell,
)


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband", "grid"])
def test_a_kill_at_any_point_loses_and_repeats_nothing(
    tmp_path: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = {"grid": NESTED, "bayesian": SMALL}.get(algorithm, MIXED)
    request = experiment(algorithm, block | {"layers": [1, 3], "epochs": 9}, **{"try": [{"layers": 3}]})
    trials = 7 if algorithm == "bayesian" else 14
    states: list[str] = []
    write = journal.write_journal

    def written(folder: Path, state: journal.Journal) -> None:
        write(folder, state)
        states.append((folder / journal.FILE).read_text())

    with monkeypatch.context() as patch:
        patch.setattr("pneumo.engines.keras_tuner_engine.write_journal", written)
        engine = KerasTunerEngine(request, tmp_path / "uninterrupted")
        play_two_at_once(engine, trials)
    uninterrupted = engine.trials()
    assert len(states) == 2 * trials

    for number, state in enumerate(states):
        folder = tmp_path / f"cut-{number}"
        folder.mkdir()
        (folder / journal.FILE).write_text(state)
        (folder / f"{journal.FILE}.part").write_text(state[: 40 * number])  # truncated: the next write was under way
        before = stored_trials(folder)
        assert before == uninterrupted[: len(before)]
        again = KerasTunerEngine(request, folder)
        further = min(len(before) + 3, trials)
        play_two_at_once(again, further)
        assert again.trials() == uninterrupted[:further]


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband", "grid"])
def test_an_operation_that_fails_has_no_effect(tmp_path: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    request = experiment(algorithm, {"grid": GRID, "bayesian": SMALL}.get(algorithm, MIXED))

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    def failing(operation: Callable[[], object]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", full)
            with pytest.raises(OSError, match="No space"):
                operation()

    smooth, rough = KerasTunerEngine(request, tmp_path / "smooth"), KerasTunerEngine(request, tmp_path / "rough")
    for _ in range(5):
        failing(rough.ask)
        candidate = ask(rough)
        failing(lambda candidate=candidate: tell(rough, candidate))  # type: ignore[misc]
        assert len(rough.trials()) == candidate.number
        tell(rough, candidate)
        tell(smooth, ask(smooth))
    assert rough.trials() == smooth.trials()


def test_an_oracle_that_raises_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = experiment("random", MIXED)
    engine = KerasTunerEngine(request, tmp_path / "a")
    tell(engine, ask(engine))
    with monkeypatch.context() as patch:
        patch.setattr(keras_tuner.oracles.RandomSearchOracle, "populate_space", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.ask()
    other = KerasTunerEngine(request, tmp_path / "b")
    tell(other, ask(other))
    assert ask(engine) == ask(other)  # it does not wait for the lock that the failed oracle still holds


def test_asking_without_a_candidate_changes_nothing(tmp_path: Path) -> None:
    request = experiment("hyperband", {"layers": {"low": 1, "high": 3}, "epochs": 9}, baseline=False)
    patient, eager = KerasTunerEngine(request, tmp_path / "a"), KerasTunerEngine(request, tmp_path / "b")
    for engine, times in ((patient, 1), (eager, 50)):
        under_way = [ask(engine) for _ in range(3)]
        for candidate in under_way:
            answers = [engine.ask() for _ in range(times)]
            assert isinstance(answers[0], Wait)
            assert {id(answer) for answer in answers} == {id(answers[0])}  # the oracle is asked once
            tell(engine, candidate)
            while isinstance(proposal := engine.ask(), Candidate):
                under_way.append(proposal)
    assert patient.trials() == eager.trials()


def test_trials_are_read_without_keras_tuner(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/studies.db"
    engine = KerasTunerEngine(
        experiment("hyperband", MIXED | {"epochs": 3}), keras_tuner_storage.study_folder("study", storage)
    )
    for _ in range(6):
        tell(engine, ask(engine))
    ask(engine)
    assert stored_trials(tmp_path / "studies.keras-tuner" / "study") == engine.trials()
    assert len(engine.trials()) == 6
    assert stored_trials(tmp_path / "nothing here") == ()
    program = f"""
import sys
from pneumo.engines.engine_table import engine_kind
study = engine_kind("keras-tuner").read_study("study", {storage!r})
assert len(study.trials) == 6
assert len(study.numbers) == 7
assert not {{"tensorflow", "keras", "keras_tuner", "sklearn"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": "x"}', "\x00"])
def test_an_invalid_journal_is_reported_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / journal.FILE).write_text(content)
    with pytest.raises(RequestError, match=journal.FILE) as caught:
        KerasTunerEngine(experiment("random", GRID), tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / journal.FILE).read_text() == content


def test_a_folder_that_cannot_be_created_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "study", Path("/proc/nowhere/study")):
        with pytest.raises(RequestError, match="--storage") as caught:
            KerasTunerEngine(experiment("random", GRID), folder)
        assert "\n" not in str(caught.value)
