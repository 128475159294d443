"""The driver's side of checkpoints: where each training writes its own, which one it continues, and their deletion."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import State, Trial


def checkpoints_of(experiment: Experiment, study_id: str) -> Path:
    """Return the folder of a study's checkpoints: in `compute.shared`, or in `mlruns/` of the current folder.

    Several projects may use one common folder, so the study's id tells their studies of equal names apart there.
    """
    if experiment.compute.shared:
        return Path(experiment.compute.shared, "checkpoints", f"{experiment.name}-{study_id}")
    return Path("mlruns", "checkpoints", experiment.name)


class CheckpointFolder:
    """The folder with the checkpoints of one study, one file for each training.

    A checkpoint exists while its trial runs, and afterwards if a later trial may continue it.

    Args:
        folder: The folder; it is created when it is needed.
        finished_trials: The study's finished trials.
    """

    def __init__(self, folder: Path, finished_trials: Iterable[Trial]) -> None:
        self._folder = folder.absolute()
        self._continued = {
            trial.number: trial.candidate.resume_from
            for trial in finished_trials
            if trial.candidate.resume_from is not None
        }

    def first_trial(self, candidate: Candidate) -> int:
        """Return the number of the first trial of the chain that the candidate continues, otherwise its own number.

        All trials of a chain have the seed of the first.
        """
        if candidate.resume_from is None:
            return candidate.number
        self._continued[candidate.number] = candidate.resume_from
        number = candidate.number
        while number in self._continued:
            number = self._continued[number]
        return number

    def own_path(self, candidate: Candidate, seed: int | None = None) -> str:
        """Return the path of the candidate's own checkpoint, and create the folder.

        Args:
            candidate: The candidate.
            seed: The seed of a confirmation; None for the trial itself.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        return str(self._file(candidate.number, seed))

    def continued_path(self, candidate: Candidate) -> str | None:
        """Return the path of the checkpoint of the trial that the candidate continues, or None if it continues none."""
        return None if candidate.resume_from is None else str(self._file(candidate.resume_from))

    def delete_finished(self, candidate: Candidate, state: State, seed: int | None = None) -> None:
        """Delete the checkpoint of a finished training, unless a later trial may continue it."""
        if state == "failed" or not candidate.can_continue:
            file = self._file(candidate.number, seed)
            for path in (file, file.with_name(f"{file.name}.tmp")):
                path.unlink(missing_ok=True)

    def delete_unneeded(self, finished_trials: Iterable[Trial]) -> None:
        """Delete all checkpoints except those of the given trials that a later trial may continue.

        No training may be running. The folder is removed if it is then empty.
        """
        needed = {
            self._file(trial.number)
            for trial in finished_trials
            if trial.candidate.can_continue and trial.result.state != "failed"
        }
        if not self._folder.is_dir():
            return
        for file in self._folder.iterdir():
            if file not in needed:
                file.unlink()
        with contextlib.suppress(OSError):  # the folder is not empty
            self._folder.rmdir()

    def _file(self, number: int, seed: int | None = None) -> Path:
        return self._folder / (f"trial-{number:04d}.npz" if seed is None else f"confirm-{number:04d}-seed-{seed}.npz")
