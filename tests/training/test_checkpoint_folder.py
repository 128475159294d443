"""Tests of pneumo.training.checkpoint_folder: chains of trials, and which checkpoints are deleted."""

from __future__ import annotations

from pathlib import Path

from pneumo.spec.candidate import Candidate
from pneumo.spec.result import State, Trial, TrialResult
from pneumo.training.checkpoint_folder import CheckpointFolder


def rung(number: int, epochs: int, resume_from: int | None = None, full: int | None = 9) -> Candidate:
    return Candidate(number, {"epochs": epochs}, resume_from=resume_from, full_epochs=full)


def finished(*candidates: Candidate, state: State = "complete") -> list[Trial]:
    return [Trial(candidate, TrialResult(candidate.number, "run", state, 0.5)) for candidate in candidates]


def file_names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_chain_has_the_seed_of_its_first_also_after_a_restart(tmp_path: Path) -> None:
    first, second, third = rung(2, 1), rung(5, 3, 2), rung(7, 9, 5)
    checkpoints = CheckpointFolder(tmp_path, [])
    assert [checkpoints.first_trial(candidate) for candidate in (first, second, third)] == [2, 2, 2]
    assert CheckpointFolder(tmp_path, finished(first, second)).first_trial(third) == 2


def test_a_rung_finds_its_own_and_what_the_one_below_left(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path / "checkpoints", [])
    below, above = rung(2, 1), rung(5, 3, 2)
    assert checkpoints.continued_path(below) is None
    assert checkpoints.continued_path(above) == checkpoints.own_path(below)
    assert checkpoints.own_path(above) != checkpoints.own_path(below)
    assert checkpoints.own_path(below, seed=7) != checkpoints.own_path(below, seed=8) != checkpoints.own_path(below)


def test_only_what_can_be_continued_outlives_its_trial(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path / "checkpoints", [])
    whole, plain, lower, failed = rung(0, 9), rung(1, 5, full=None), rung(2, 3), rung(3, 3)
    for candidate in (whole, plain, lower, failed):
        Path(checkpoints.own_path(candidate)).touch()
        Path(f"{checkpoints.own_path(candidate)}.tmp").touch()  # of a process that was killed while writing
        checkpoints.delete_finished(candidate, "failed" if candidate is failed else "complete")
    Path(checkpoints.own_path(plain, seed=7)).touch()
    checkpoints.delete_finished(plain, "complete", seed=7)
    assert file_names(tmp_path / "checkpoints") == {"trial-0002.npz", "trial-0002.npz.tmp"}


def test_at_the_end_all_else_goes_also_what_a_killed_process_left(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    checkpoints = CheckpointFolder(folder, [])
    checkpoints.delete_unneeded(())
    plain, lower, failed = rung(1, 5, full=None), rung(2, 3), rung(3, 3)
    for file in (
        checkpoints.own_path(plain),
        checkpoints.own_path(lower),
        checkpoints.own_path(failed),
        checkpoints.own_path(plain, 7),
    ):
        Path(file).touch()
    checkpoints.delete_unneeded([*finished(plain, lower), *finished(failed, state="failed")])
    assert file_names(folder) == {"trial-0002.npz"}
    checkpoints.delete_unneeded(())
    assert not folder.exists()
