"""Where trials that continue an earlier one find what it left, and with which seed they go on."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from pneumo.spec.candidate import Candidate
from pneumo.spec.result import Trial


class Rungs:
    """The checkpoints of a study, a file a trial in a folder of the study's own.

    Only trials that are rungs of a longer training leave one. `told` are the study's trials so far.
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

    def resume(self, candidate: Candidate) -> str | None:
        """The checkpoint to go on from."""
        return None if candidate.resume_from is None else str(self._file(candidate.resume_from))

    def keep(self, candidate: Candidate) -> str | None:
        """The checkpoint to leave: None where nothing can continue the trial."""
        if candidate.full_epochs is None or candidate.epochs >= candidate.full_epochs:
            return None
        self._folder.mkdir(parents=True, exist_ok=True)
        return str(self._file(candidate.number))

    def remove(self) -> None:
        """Deletes every checkpoint, once nothing will be continued any more."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self._folder / f"trial-{number:04d}.npz"
