"""How many workers a study gets: as many as were asked for, if there are trials and memory for them."""

from __future__ import annotations

from dataclasses import dataclass

from pneumo.compute.disk import format_bytes
from pneumo.compute.footprint import largest_trial_memory
from pneumo.compute.memory import available_memory, total_memory
from pneumo.spec.experiment import Experiment

DRIVER_MEMORY = 400_000_000
"""Estimated bytes of the search's own process."""


@dataclass(frozen=True)
class WorkerPlan:
    """The workers of a search.

    Attributes:
        asked: Number of workers that were asked for.
        slots: Number of workers that fit into the memory that is free now, and at most `asked`.
        shares: Number of workers among which the cores are divided. It depends on the experiment and on the machine, not on
            how much memory is free and how many trials are left. So a resumed study computes the same figures.
        free: Free memory in bytes.
        each: Memory in bytes of the largest trial.
    """

    asked: int
    slots: int
    shares: int
    free: int
    each: int

    def workers(self, trainings: int) -> int:
        """Return the number of workers for so many trainings at the same time."""
        return min(self.slots, trainings)

    def describe(self, trainings: int) -> str | None:
        """Return why there are fewer workers than asked for, in one line; None if there are as many, or nothing to train."""
        workers = self.workers(trainings)
        if not 0 < workers < self.asked:
            return None
        if workers == trainings:
            left = "one training is left" if trainings == 1 else f"{trainings} trainings are left"
            return f"Workers: {workers} of {self.asked}: {left}"
        return (
            f"Workers: {workers} of {self.asked}: memory allows {workers} "
            f"({format_bytes(self.free)} free, up to {format_bytes(self.each)} each)"
        )


def plan_workers(experiment: Experiment) -> WorkerPlan:
    """Return how many workers a study can have on this machine now.

    There is one at least. If it does not fit, its trial fails, and says so.
    """
    asked, each, free = experiment.search.workers, largest_trial_memory(experiment), available_memory()

    def fit(memory: int) -> int:
        return min(asked, max(1, (memory - DRIVER_MEMORY) // each))

    return WorkerPlan(asked, fit(free), min(fit(total_memory()), count_trainings(experiment)), free, each)


def count_trainings(experiment: Experiment, finished_trials: int = 0) -> int:
    """Return how many trainings of a study are left at most that can run at the same time: its trials, or its confirmations."""
    search, confirm = experiment.search, experiment.search.confirm
    return max(search.trials - finished_trials, confirm.top * confirm.seeds if confirm else 0)
