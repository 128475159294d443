"""The `compute` block of an experiment: what each trial takes of a Ray cluster, and which folder all of its nodes see."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pneumo.spec.errors import Fault, RequestError, SettingError, quote

RAY_ADDRESS = r"auto|local|(ray://)?(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):\d{1,5}"

Amount = Annotated[float, Field(gt=0, le=1_000_000)]


class ComputeSpec(BaseModel):
    """The `compute` block of an experiment. All but `shared` counts with the option --ray only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: Annotated[
        int,
        Field(ge=1, le=1024, description="With --ray: cores of a trial. Without a GPU it trains with as many threads."),
    ] = 1
    gpus: Annotated[
        float | None,
        Field(
            ge=0,
            le=64,
            description="With --ray: GPUs of a trial. A fraction such as 0.5 puts two trials on one GPU. null means one if "
            "the cluster has GPUs, otherwise none.",
        ),
    ] = None
    resources: Annotated[
        dict[str, Amount],
        Field(description="With --ray: amounts of the cluster's custom resources that a trial takes, by name."),
    ] = {}
    shared: Annotated[
        str | None,
        Field(
            min_length=1,
            description="A folder that all machines see under this path. Checkpoints are kept there, so that another search "
            "of a shared study continues from them; with --ray the decoded pictures too. null means that checkpoints stay "
            "with their search, and that each node gets the pictures through Ray's object store.",
        ),
    ] = None

    @field_validator("gpus")
    @classmethod
    def _check_gpus(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise SettingError(Fault((), f"a fraction below 1, or a whole number, got {gpus:g}"))
        return gpus

    @field_validator("resources")
    @classmethod
    def _check_resources(cls, resources: dict[str, float]) -> dict[str, float]:
        faults = [
            Fault((name,), f"a whole number above 1, or a fraction, got {amount:g}")
            for name, amount in resources.items()
            if amount > 1 and amount != int(amount)
        ]
        own = {"CPU": "cpus", "GPU": "gpus", "memory": "nothing; pneumo estimates it"}
        faults += [Fault((name,), f"is Ray's own; give {own[name]}") for name in resources if name in own]
        if faults:
            raise SettingError(*faults)
        return resources


def check_ray_address(address: str) -> str:
    """Return the value of --ray.

    Raises:
        RequestError: It is no address.
    """
    if not re.fullmatch(RAY_ADDRESS, address):
        raise RequestError(f"--ray: auto, local, HOST:PORT or ray://HOST:PORT, got {quote(repr(address))}")
    return address
