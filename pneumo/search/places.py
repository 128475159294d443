"""Where the trials of a search run: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pneumo.compute.footprint import largest_trial_memory
from pneumo.compute.place import Place, PlaceError
from pneumo.compute.workers import WorkerPlan, plan_workers
from pneumo.spec.compute import check_ray_address
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.wording import count_of

if TYPE_CHECKING:
    from pneumo.compute.ray_cluster import Needs
    from pneumo.compute.ray_place import RayPlace


@dataclass(frozen=True)
class RayPlan:
    """The workers of a search on a Ray cluster: how many, what each takes, and on how many nodes."""

    address: str
    slots: int | None
    room: int
    nodes: int
    needs: Needs

    def describe(self, trainings: int) -> str | None:
        """Return where the trainings run, in one line; None if there is nothing to train."""
        if not trainings:
            return None
        size = f"{count_of(self.nodes, 'node')}, room for {count_of(self.room, 'trial')} at a time"
        line = f"Workers: on Ray ({self.address}): {size}, each with {self.needs.describe()}"
        return line if self.slots is None or self.room >= self.slots else f"{line}; {self.slots} were asked for"


def check_ray_request(address: str) -> None:
    """Check the option --ray, and that Ray is installed.

    Raises:
        RequestError: The address is none, or Ray is missing.
    """
    from pneumo.compute.ray_cluster import check_ray

    check_ray_address(address)
    check_ray()


def open_place(experiment: Experiment, ray: str | None) -> tuple[Place, WorkerPlan | RayPlan]:
    """Start the first worker of a search, and return where its trials run and how many at a time.

    Args:
        experiment: The study's experiment.
        ray: The option --ray.

    Raises:
        RequestError: The Ray cluster cannot be reached, or has no room for a trial.
    """
    if ray is not None:
        return _open_ray(experiment, ray)
    from pneumo.compute.local import LocalProcesses
    from pneumo.training import trial

    plan, limit = plan_workers(experiment), experiment.search.trial_timeout
    place = LocalProcesses(trial.run_trial, trial.warm_up, plan.slots, trial_timeout=limit, shares=plan.shares)
    return place, plan


def _open_ray(experiment: Experiment, address: str) -> tuple[Place, RayPlan]:
    from pneumo.compute.ray_cluster import Needs, RayCluster
    from pneumo.compute.ray_place import RayPlace, fit_needs
    from pneumo.training.elsewhere import DistantTrials, run_distant_trial
    from pneumo.training.trial import warm_up

    search, compute = experiment.search, experiment.compute
    if compute.shared:
        os.environ["PNEUMO_CACHE"] = compute.shared
    # Without a number of workers, there are as many as the cluster has room for.
    slots = search.workers if "workers" in search.model_fields_set else None
    needs = Needs(compute.cpus, memory=largest_trial_memory(experiment), resources=compute.resources)
    try:
        cluster = RayCluster(address, search.outage)
    except PlaceError as error:
        raise RequestError(str(error)) from error
    try:
        needs = fit_needs(needs, cluster, compute.gpus)
        nodes = cluster.resources()
        if address == "local" and not any(map(needs.fit, nodes)):
            raise RequestError(
                f"--ray local: this machine has no room for a trial that takes {needs.describe()}; set compute.cpus, "
                "compute.gpus or compute.resources lower"
            )
        place: RayPlace = RayPlace(
            run_distant_trial, warm_up, cluster, needs, slots, search.trial_timeout, search.outage
        )
    except BaseException:
        cluster.close()
        raise
    plan = RayPlan(address, slots, place.room, len(nodes), needs)
    return DistantTrials(place, has_shared_cache=compute.shared is not None), plan
