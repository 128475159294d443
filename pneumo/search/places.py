"""Where the trials of a search run: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pneumo.compute.devices import Devices, find_devices
from pneumo.compute.footprint import largest_trial_memory
from pneumo.compute.place import Place, PlaceError
from pneumo.compute.workers import plan_workers, resolve_workers
from pneumo.spec.compute import check_ray_address
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.search import MOST_WORKERS
from pneumo.spec.wording import count_of

if TYPE_CHECKING:
    from pneumo.compute.ray_cluster import Needs, RayCluster


class PlacePlan(Protocol):
    """Where the trials of a search are to run."""

    @property
    def experiment(self) -> Experiment:
        """The study's experiment; after `open` with a number of workers in place of `auto`."""
        ...

    def open(self) -> Place:
        """Start the first worker, and return the place."""
        ...

    def describe(self, trainings: int) -> str:
        """Return what so many trainings run on, a line each."""
        ...

    def preview(self, trainings: int) -> str:
        """Return what is known of that before the place is open."""
        ...


def check_ray_request(address: str) -> None:
    """Check the option --ray, and that Ray is installed.

    Raises:
        RequestError: The address is none, or Ray is missing.
    """
    from pneumo.compute.ray_cluster import check_ray

    check_ray_address(address)
    check_ray()


def plan_place(experiment: Experiment, ray: str | None) -> PlacePlan:
    """Return where the trials of a search run.

    Args:
        experiment: The study's experiment.
        ray: The option --ray; None for processes of this machine.

    Raises:
        RequestError: GPUs that are named are not there.
    """
    if ray is not None:
        return _OnRay(experiment, ray)
    devices = find_devices(experiment.search.gpu_share)
    return _OnThisMachine(resolve_workers(experiment, devices), devices)


class _OnThisMachine:
    """Worker processes of this machine."""

    def __init__(self, experiment: Experiment, devices: Devices) -> None:
        self.experiment, self._devices = experiment, devices
        self._workers = plan_workers(experiment, devices)

    def open(self) -> Place:
        from pneumo.compute.local import LocalProcesses
        from pneumo.training import trial

        return LocalProcesses(
            trial.run_trial,
            trial.warm_up,
            self._workers.slots,
            self._devices.ids,
            self.experiment.search.trial_timeout,
            self._workers.shares,
            self._devices.environment,
        )

    def describe(self, trainings: int) -> str:
        return self._workers.describe(trainings)

    preview = describe


@dataclass(frozen=True)
class _Room:
    """What a cluster has room for: so many trials at a time, which take `needs` each, on so many nodes."""

    trials: int
    nodes: int
    needs: Needs


class _OnRay:
    """Actors of a Ray cluster. With a number of workers there are so many at most, otherwise as many as there is room for."""

    def __init__(self, experiment: Experiment, address: str) -> None:
        search = experiment.search
        is_free = search.workers == "auto" or "workers" not in search.model_fields_set
        self._slots = None if is_free else search.worker_count
        self.experiment = experiment
        self._address, self._room = address, _Room(0, 0, self._needs(0.0))

    def open(self) -> Place:
        """Connect to the cluster.

        Raises:
            RequestError: It cannot be reached, or this machine has no room for a trial.
        """
        from pneumo.compute.ray_cluster import RayCluster

        if shared := self.experiment.compute.shared:
            os.environ["PNEUMO_CACHE"] = shared
        try:
            cluster = RayCluster(self._address, self.experiment.search.outage)
        except PlaceError as error:
            raise RequestError(str(error)) from error
        try:
            return self._open_on(cluster)
        except BaseException:
            cluster.close()
            raise

    def describe(self, trainings: int) -> str:
        room = self._room
        where = f"Ray ({self._address}), {count_of(room.nodes, 'node')} with room for {count_of(room.trials, 'trial')}"
        line = f"Training on: {where} at a time, each with {room.needs.describe()}"
        if self._slots is None or room.trials >= self._slots:
            return line
        return f"{line}\nWorkers: {room.trials} of {self._slots} have room; others start when nodes join"

    def preview(self, trainings: int) -> str:
        most = f", at most {count_of(self._slots, 'trial')} at a time" if self._slots else ""
        return f"Training on: Ray ({self._address}), each trial with {self._room.needs.describe()}{most}"

    def _open_on(self, cluster: RayCluster) -> Place:
        from pneumo.compute.ray_place import RayPlace, fit_needs
        from pneumo.training.elsewhere import DistantTrials, run_distant_trial
        from pneumo.training.trial import warm_up

        search, compute = self.experiment.search, self.experiment.compute
        gpus = search.gpu_share if compute.gpus is None and search.gpu_share < 1 else compute.gpus
        needs, nodes = fit_needs(self._needs(0.0), cluster, gpus), cluster.resources()
        if self._address == "local" and not any(map(needs.fit, nodes)):
            raise RequestError(
                f"--ray local: this machine has no room for a trial that takes {needs.describe()}; set compute.cpus, "
                "compute.gpus or compute.resources lower"
            )
        place = RayPlace(run_distant_trial, warm_up, cluster, needs, self._slots, search.trial_timeout, search.outage)
        self._room = _Room(place.room, len(nodes), needs)
        workers = max(1, min(place.room, MOST_WORKERS)) if self._slots is None else self._slots
        self.experiment = self.experiment.model_copy(update={"search": search.model_copy(update={"workers": workers})})
        return DistantTrials(place, has_shared_cache=compute.shared is not None)

    def _needs(self, gpus: float) -> Needs:
        from pneumo.compute.ray_cluster import Needs

        compute = self.experiment.compute
        return Needs(compute.cpus, gpus, largest_trial_memory(self.experiment), compute.resources)
