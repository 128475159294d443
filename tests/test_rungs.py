"""Who goes on from whom."""

from __future__ import annotations

from pathlib import Path

from pneumo.rungs import Rungs
from pneumo.spec.candidate import Candidate
from pneumo.spec.result import Trial, TrialResult


def rung(number: int, epochs: int, resume_from: int | None = None, full: int | None = 9) -> Candidate:
    return Candidate(number, {"epochs": epochs}, resume_from=resume_from, full_epochs=full)


def told(*candidates: Candidate) -> list[Trial]:
    return [Trial(candidate, TrialResult(candidate.number, "run", "complete", 0.5)) for candidate in candidates]


def test_a_chain_has_the_seed_of_its_first_also_after_a_restart(tmp_path: Path) -> None:
    first, second, third = rung(2, 1), rung(5, 3, 2), rung(7, 9, 5)
    rungs = Rungs(tmp_path, [])
    assert [rungs.first(candidate) for candidate in (first, second, third)] == [2, 2, 2]
    assert Rungs(tmp_path, told(first, second)).first(third) == 2


def test_a_rung_finds_what_the_one_below_left(tmp_path: Path) -> None:
    rungs = Rungs(tmp_path / "checkpoints", [])
    below, above = rung(2, 1), rung(5, 3, 2)
    assert rungs.resume(below) is None
    assert rungs.resume(above) == rungs.keep(below)
    assert rungs.keep(above) != rungs.keep(below)


def test_only_what_can_be_continued_leaves_a_checkpoint(tmp_path: Path) -> None:
    rungs = Rungs(tmp_path / "checkpoints", [])
    assert rungs.keep(rung(0, 9)) is None  # trained to its end
    assert rungs.keep(rung(1, 5, full=None)) is None  # no rung
    assert not (tmp_path / "checkpoints").exists()
    kept = rungs.keep(rung(2, 3))
    assert kept
    Path(kept).touch()
    rungs.remove()
    assert not (tmp_path / "checkpoints").exists()
    rungs.remove()
