"""Where trials leave their checkpoints: to go on after a kill, and for those that continue them; and with which seed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from pneumo.spec.candidate import Candidate
from pneumo.spec.result import State, Trial


class Checkpoints:
    """The checkpoints of a study, a file a training in a folder of the study's own.

    That of a trial lies there while it is under way, and beyond its end where a later trial may continue it. `told` are
    the study's trials so far. `seed` is given where a trial is trained again with another one.
    """

    def __init__(self, folder: Path, told: Iterable[Trial]) -> None:
        self._folder = folder.absolute()
        self._continues = {t.number: t.candidate.resume_from for t in told if t.candidate.resume_from is not None}

    def first(self, candidate: Candidate) -> int:
        """The number of the trial that the training began with: its seed is that of all that continue it."""
        if candidate.resume_from is None:
            return candidate.number
        self._continues[candidate.number] = candidate.resume_from
        number = candidate.number
        while number in self._continues:
            number = self._continues[number]
        return number

    def own(self, candidate: Candidate, seed: int | None = None) -> str:
        """Where the candidate leaves its checkpoint, and goes on from what it left there before it was killed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return str(self._file(candidate.number, seed))

    def below(self, candidate: Candidate) -> str | None:
        """The checkpoint of the trial that the candidate continues."""
        return None if candidate.resume_from is None else str(self._file(candidate.resume_from))

    def ended(self, candidate: Candidate, state: State, seed: int | None = None) -> None:
        """Deletes what the candidate left, unless a later trial may continue it."""
        if state == "failed" or not candidate.can_continue:
            file = self._file(candidate.number, seed)
            for left in (file, file.with_name(f"{file.name}.tmp")):
                left.unlink(missing_ok=True)

    def tidy(self, told: Iterable[Trial]) -> None:
        """Deletes all but what a later trial may continue of these, once nothing is under way any more."""
        kept = {self._file(t.number) for t in told if t.candidate.can_continue and t.result.state != "failed"}
        if not self._folder.is_dir():
            return
        for file in self._folder.iterdir():
            if file not in kept:
                file.unlink()
        with contextlib.suppress(OSError):  # not empty
            self._folder.rmdir()

    def _file(self, number: int, seed: int | None = None) -> Path:
        return self._folder / (f"trial-{number:04d}.npz" if seed is None else f"confirm-{number:04d}-seed-{seed}.npz")
