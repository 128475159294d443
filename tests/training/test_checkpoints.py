"""Who goes on from what, and what is left of it."""

from __future__ import annotations

from pathlib import Path

from pneumo.spec.candidate import Candidate
from pneumo.spec.result import State, Trial, TrialResult
from pneumo.training.checkpoints import Checkpoints


def rung(number: int, epochs: int, resume_from: int | None = None, full: int | None = 9) -> Candidate:
    return Candidate(number, {"epochs": epochs}, resume_from=resume_from, full_epochs=full)


def told(*candidates: Candidate, state: State = "complete") -> list[Trial]:
    return [Trial(candidate, TrialResult(candidate.number, "run", state, 0.5)) for candidate in candidates]


def left(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_chain_has_the_seed_of_its_first_also_after_a_restart(tmp_path: Path) -> None:
    first, second, third = rung(2, 1), rung(5, 3, 2), rung(7, 9, 5)
    checkpoints = Checkpoints(tmp_path, [])
    assert [checkpoints.first(candidate) for candidate in (first, second, third)] == [2, 2, 2]
    assert Checkpoints(tmp_path, told(first, second)).first(third) == 2


def test_a_rung_finds_its_own_and_what_the_one_below_left(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", [])
    below, above = rung(2, 1), rung(5, 3, 2)
    assert checkpoints.below(below) is None
    assert checkpoints.below(above) == checkpoints.own(below)
    assert checkpoints.own(above) != checkpoints.own(below)
    assert checkpoints.own(below, seed=7) != checkpoints.own(below, seed=8) != checkpoints.own(below)


def test_only_what_can_be_continued_outlives_its_trial(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", [])
    whole, plain, lower, failed = rung(0, 9), rung(1, 5, full=None), rung(2, 3), rung(3, 3)
    for candidate in (whole, plain, lower, failed):
        Path(checkpoints.own(candidate)).touch()
        Path(f"{checkpoints.own(candidate)}.tmp").touch()  # of a writing that was killed
        checkpoints.ended(candidate, "failed" if candidate is failed else "complete")
    Path(checkpoints.own(plain, seed=7)).touch()
    checkpoints.ended(plain, "complete", seed=7)
    assert left(tmp_path / "checkpoints") == {"trial-0002.npz", "trial-0002.npz.tmp"}


def test_at_the_end_all_else_goes_also_what_a_killed_process_left(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, [])
    checkpoints.tidy(())
    plain, lower, failed = rung(1, 5, full=None), rung(2, 3), rung(3, 3)
    for file in (checkpoints.own(plain), checkpoints.own(lower), checkpoints.own(failed), checkpoints.own(plain, 7)):
        Path(file).touch()
    checkpoints.tidy([*told(plain, lower), *told(failed, state="failed")])
    assert left(folder) == {"trial-0002.npz"}
    checkpoints.tidy(())
    assert not folder.exists()
