"""What trials train on: the NVIDIA GPUs that TensorFlow can use, or the cores of the CPU."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pneumo.compute.gpus import Gpu, find_mig_part, usable_gpus
from pneumo.spec.cores import usable_cores
from pneumo.spec.errors import RequestError
from pneumo.spec.names import Variables
from pneumo.spec.wording import count_of

VISIBLE = "CUDA_VISIBLE_DEVICES"

GPU_OVERHEAD = 600_000_000
"""Estimated bytes of a GPU's memory that a process takes besides what TensorFlow allocates: CUDA's context and kernels."""

PICTURES_SHARE = 4
"""A trial's training pictures stay in its GPU's memory if they take at most 1 / `PICTURES_SHARE` of it."""

LEAST_GPU_MEMORY = 500_000_000
"""Fewest bytes of a GPU's memory that a trial is given."""


@dataclass(frozen=True)
class Devices:
    """What the trials of a search train on.

    Attributes:
        gpus: The GPUs that they may use. Without one, they use the CPU.
        cores: Number of cores that this process may use.
        share: Share of a GPU that each trial gets, above 0 and at most 1.
        fault: Why trials cannot use the GPU that is there; None if they can, or if there is none.
    """

    gpus: tuple[Gpu, ...]
    cores: int
    share: float = 1.0
    fault: str | None = None

    @property
    def trials_per_gpu(self) -> int:
        """Number of trials at the same time on one GPU."""
        return int(1 / self.share + 1e-9)

    @property
    def slots(self) -> int | None:
        """Number of trials at the same time for which there are GPUs; None without a GPU."""
        return len(self.gpus) * self.trials_per_gpu or None

    @property
    def ids(self) -> tuple[str, ...]:
        """The GPUs as CUDA_VISIBLE_DEVICES names them."""
        return tuple(gpu.id for gpu in self.gpus)

    @property
    def gpu_memory(self) -> int | None:
        """Bytes of a GPU's memory that TensorFlow may allocate in each trial; None for no limit.

        It is the share of the smallest GPU: CUDA may number GPUs in another order than their driver does.
        """
        if not self.gpus or self.trials_per_gpu == 1:
            return None
        return int(min(gpu.memory for gpu in self.gpus) * self.share) - GPU_OVERHEAD

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables of a worker, apart from which GPU it has. TensorFlow reads them when it starts."""
        if not self.gpus:
            # TensorFlow might find libraries that this module does not, and then it would train on all GPUs at once.
            return {VISIBLE: "-1"} if self.fault else {}
        memory = self.gpu_memory
        pictures = {Variables.GPU_PICTURES: str((memory or min(gpu.memory for gpu in self.gpus)) // PICTURES_SHARE)}
        if memory is None:
            return {Variables.GPU_MEMORY: "all"} | pictures
        # With a limit, TensorFlow ignores the memory growth that is set through its API.
        return {Variables.GPU_MEMORY: str(memory // 2**20), "TF_FORCE_GPU_ALLOW_GROWTH": "true"} | pictures

    def describe(self, workers: int) -> str:
        """Return what the trials of so many workers train on, in a line."""
        if not self.gpus:
            cores = count_of(self.cores, "core")
            at_a_time = f", {workers} trials at a time" if workers > 1 else ""
            return f"Training on: CPU, {cores}{at_a_time}{f' (no usable GPU: {self.fault})' if self.fault else ''}"
        used = self.gpus[:workers]
        names = ", ".join(f"{number} x {name}" for name, number in Counter(gpu.name for gpu in used).items())
        at_a_time = f", {workers} trials at a time" if workers > len(used) else ""
        unused = f" (of {len(self.gpus)}; --workers auto uses all)" if len(used) < len(self.gpus) else ""
        return f"Training on: {names}{at_a_time}{unused}"


def find_devices(gpu_share: float = 1.0) -> Devices:
    """Return what the trials of a search train on. No GPU is touched, and TensorFlow is not imported.

    Args:
        gpu_share: Share of a GPU that each trial gets.

    Raises:
        RequestError: CUDA_VISIBLE_DEVICES names a GPU that is not there or cannot be used, or there is none to share.
    """
    named = _named_gpus()
    gpus: tuple[Gpu, ...]
    if named == ():
        gpus, fault = (), None  # the user wants the CPU
    else:
        gpus, fault = usable_gpus()
    if named:
        gpus = tuple(_find_named(name, gpus, fault) for name in named)
    devices = Devices(gpus, usable_cores(), gpu_share, fault)
    if gpu_share < 1 and not gpus:
        reason = fault or (f"{VISIBLE} hides all" if named == () else "this machine has none")
        raise RequestError(
            f"--gpu-share {gpu_share:g}: there is no usable GPU to share: {reason}; leave it out (in the experiment "
            "search.gpu_share) to train on the CPU"
        )
    if devices.gpu_memory is not None and devices.gpu_memory < LEAST_GPU_MEMORY:
        smallest = min(gpu.memory for gpu in gpus)
        least = math.ceil(100 * (GPU_OVERHEAD + LEAST_GPU_MEMORY) / smallest) / 100
        raise RequestError(
            f"--gpu-share {gpu_share:g}: a trial would have too little of the {smallest / 1e9:.1f} GB of the GPU; it needs a "
            f"share of {least:.2f} at least"
        )
    return devices


def _named_gpus() -> tuple[str, ...] | None:
    """Return the GPUs that the user names; empty if trials must not use any, None if the user does not say."""
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return None
    return tuple(part.strip() for part in visible.split(",") if part.strip() not in ("", "-1"))


def _find_named(name: str, gpus: Sequence[Gpu], fault: str | None) -> Gpu:
    """Return the GPU that CUDA_VISIBLE_DEVICES names.

    Raises:
        RequestError: There is none.
    """
    found = [gpu for gpu in gpus if (gpu.id == name if name.isdigit() else gpu.uuid.startswith(name))]
    if len(found) == 1:
        return replace(found[0], id=name)
    if gpus and (part := find_mig_part(name)):
        return part
    there = (
        f"it has GPU {', '.join(gpu.id for gpu in gpus)}"
        if gpus
        else f"no usable GPU: {fault}"
        if fault
        else "it has none"
    )
    raise RequestError(
        f"{VISIBLE}={os.environ.get(VISIBLE)}: this machine has no GPU {name} that trials can use ({there}); name another one, "
        f"or none ({VISIBLE}=-1) to train on the CPU"
    )
