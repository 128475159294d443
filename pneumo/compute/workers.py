"""How many workers a study gets: as many as were asked for, if there are trials, memory and GPUs for them."""

from __future__ import annotations

from dataclasses import dataclass

from pneumo.compute.devices import Devices
from pneumo.compute.disk import format_bytes
from pneumo.compute.footprint import largest_trial_memory
from pneumo.compute.memory import available_memory, total_memory
from pneumo.spec.experiment import Experiment
from pneumo.spec.search import MOST_WORKERS

CORES_PER_WORKER = 2
"""Cores for each worker that `auto` starts without a GPU (docs/performance.md says how it was found)."""

DRIVER_MEMORY = 400_000_000
"""Estimated bytes of the search's own process."""


@dataclass(frozen=True)
class WorkerPlan:
    """The workers of a search.

    Attributes:
        asked: Number of workers that were asked for.
        slots: Number of workers that fit into the memory that is free now and onto the GPUs, and at most `asked`.
        shares: Number of workers among which the cores are divided. It depends on the experiment and on the machine, not on
            how much memory is free and how many trials are left. So a resumed study computes the same figures.
        free: Free memory in bytes.
        each: Memory in bytes of the largest trial.
        devices: What trials train on.
        is_bounded_by_gpus: Whether there would be more slots with more GPUs.
    """

    asked: int
    slots: int
    shares: int
    free: int
    each: int
    devices: Devices
    is_bounded_by_gpus: bool = False

    def workers(self, trainings: int) -> int:
        """Return the number of workers for so many trainings at the same time."""
        return min(self.slots, trainings)

    def describe(self, trainings: int) -> str:
        """Return what so many trainings run on, what is wrong with it, and why there are fewer workers than asked for.

        Each is one line.
        """
        lines = [self.devices.describe(max(1, self.workers(trainings)))]
        if self.devices.fault:
            lines.append("Warning: this machine has a GPU, and no trial uses it")
        return "\n".join([*lines, *([reason] if (reason := self.explain(trainings)) else [])])

    def explain(self, trainings: int) -> str | None:
        """Return why there are fewer workers than asked for, or too many for the cores, in one line; None if all is well."""
        workers, gpus = self.workers(trainings), len(self.devices.gpus)
        if not gpus and self.devices.cores < workers == self.asked:
            cores = "one core" if self.devices.cores == 1 else f"{self.devices.cores} cores"
            return (
                f"Workers: {workers} share {cores}, which is no faster than fewer; --workers auto takes as many as pay"
            )
        if not 0 < workers < self.asked:
            return None
        if workers == trainings:
            left = "one training is left" if trainings == 1 else f"{trainings} trainings are left"
            return f"Workers: {workers} of {self.asked}: {left}"
        if self.is_bounded_by_gpus:
            room = "1 GPU has room" if gpus == 1 else f"{gpus} GPUs have room"
            return f"Workers: {workers} of {self.asked}: {room} for {workers}; a smaller --gpu-share puts more on each"
        return (
            f"Workers: {workers} of {self.asked}: memory allows {workers} "
            f"({format_bytes(self.free)} free, up to {format_bytes(self.each)} each)"
        )


def resolve_workers(experiment: Experiment, devices: Devices) -> Experiment:
    """Return the experiment with `search.workers: auto` replaced by the number of workers that pays on these devices.

    That is one for each share of a GPU, or one for every two cores: two workers of one thread are not faster than one of two
    threads, and take twice the memory. The number depends on the machine only, so a resumed study computes the same figures.
    """
    if experiment.search.workers != "auto":
        return experiment
    number = min(devices.slots or max(1, devices.cores // CORES_PER_WORKER), MOST_WORKERS)
    return experiment.model_copy(update={"search": experiment.search.model_copy(update={"workers": number})})


def plan_workers(experiment: Experiment, devices: Devices) -> WorkerPlan:
    """Return how many workers a study can have on this machine now.

    There is one at least. If it does not fit, its trial fails, and says so.
    """
    asked, each, free = experiment.search.worker_count, largest_trial_memory(experiment), available_memory()

    def fit(memory: int) -> int:
        return min(asked, max(1, (memory - DRIVER_MEMORY) // each))

    slots, shares = fit(free), min(fit(total_memory()), count_trainings(experiment))
    most = devices.slots or asked
    return WorkerPlan(asked, min(slots, most), shares, free, each, devices, most < slots)


def count_trainings(experiment: Experiment, finished_trials: int = 0) -> int:
    """Return how many trainings of a study are left at most that can run at the same time: its trials, or its confirmations."""
    search, confirm = experiment.search, experiment.search.confirm
    return max(search.trials - finished_trials, confirm.top * confirm.seeds if confirm else 0)
