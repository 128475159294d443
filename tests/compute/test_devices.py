"""What trials train on: GPUs that a made-up driver lists, with and without the libraries for them, and the CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pneumo.compute import devices, gpus
from pneumo.compute.devices import Devices, find_devices
from pneumo.compute.gpus import INSTALL, Gpu
from pneumo.spec.errors import RequestError

GB = 10**9
H100 = "NVIDIA H100 80GB HBM3"
FAULT = f"no usable GPU: {INSTALL}"


class Machine:
    """A made-up machine. At first it has 2 cores, no GPU, and neither pynvml nor the GPU libraries.

    Args:
        folder: Where a made-up `nvidia-smi` is put.
        monkeypatch: Puts the machine in the place of the real one.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch
        monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it raises ImportError
        monkeypatch.setattr(gpus, "DEVICE_FILE", folder / "nvidia0")
        monkeypatch.setattr(gpus, "_is_installed", lambda package, library: False)
        monkeypatch.setattr(devices, "usable_cores", lambda: 2)
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(self, *names: str, memory: int = 80 * GB, error: str = "") -> None:
        """Install pynvml, which lists GPUs of these names, and the libraries; with `error`, the driver answers with it."""

        def init() -> None:
            if error:
                raise OSError(error)

        driver = SimpleNamespace(
            nvmlInit=init,
            nvmlShutdown=lambda: None,
            nvmlDeviceGetCount=lambda: len(names),
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetHandleByUUID=lambda uuid: {"MIG-1f": 0}[uuid],
            nvmlDeviceGetName=lambda handle: names[handle],
            nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}aa7",
            nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=memory),
        )
        self._monkeypatch.setitem(sys.modules, "pynvml", driver)
        self._monkeypatch.setattr(gpus, "_is_installed", lambda package, library: True)

    def add_smi(self, *names: str) -> None:
        """Add `nvidia-smi`, which comes with the driver."""
        program = self._folder / "nvidia-smi"
        lines = "\n".join(f"echo 'GPU {index}: {name}'" for index, name in enumerate(names))
        program.write_text(f"#!/bin/sh\n{lines or 'exit 9'}\n")
        program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_machine_without_a_gpu_trains_on_the_cpu(machine: Machine) -> None:
    machine.add_smi()  # some images have the program and no GPU
    found = find_devices()
    assert (found.slots, found.fault, found.environment) == (None, None, {})
    assert found.describe(1) == "Training on: CPU, 2 cores"
    assert found.describe(3) == "Training on: CPU, 2 cores, 3 trials at a time"


@pytest.mark.parametrize("sign", ["nvidia-smi", "/dev/nvidia0", "pynvml without CUDA"])
def test_a_gpu_without_its_libraries_is_said_and_no_trial_uses_it(
    machine: Machine, sign: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sign == "nvidia-smi":
        machine.add_smi(H100)
    elif sign == "/dev/nvidia0":
        (tmp_path / "nvidia0").touch()
    else:
        machine.install(H100)
        monkeypatch.setattr(gpus, "_is_installed", lambda package, library: package == "nvidia.cublas")
    found = find_devices()
    assert found.describe(1) == f"Training on: CPU, 2 cores ({FAULT})"
    assert found.environment == {"CUDA_VISIBLE_DEVICES": "-1"}


def test_a_driver_that_does_not_answer_is_said(machine: Machine) -> None:
    machine.add_smi(H100)
    machine.install(H100, error="Driver/library version mismatch")
    reason = "no usable GPU: the NVIDIA driver does not answer: Driver/library version mismatch"
    assert find_devices().describe(1) == f"Training on: CPU, 2 cores ({reason})"


def test_all_gpus_are_used_and_named(machine: Machine) -> None:
    machine.install(H100, H100, "NVIDIA A10G")
    found = find_devices()
    assert (found.ids, found.slots) == (("0", "1", "2"), 3)
    assert found.environment == {"PNEUMO_GPU_MEMORY": "all", "PNEUMO_GPU_PICTURES": str(found.gpus[2].memory // 4)}
    assert found.describe(3) == f"Training on: 2 x {H100}, 1 x NVIDIA A10G"
    assert found.describe(2) == f"Training on: 2 x {H100} (of 3; --workers auto uses all)"


@pytest.mark.parametrize(
    ("visible", "ids"),
    [("1", ("1",)), ("1,0", ("1", "0")), ("GPU-1aa", ("GPU-1aa",)), ("MIG-1f", ("MIG-1f",)), ("", ()), ("-1", ())],
)
def test_cuda_visible_devices_chooses(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, visible: str, ids: tuple[str, ...]
) -> None:
    machine.install(H100, H100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_devices()
    assert found.ids == ids
    assert found.fault is None


def test_shares_of_a_gpu_have_a_limit_of_its_memory_that_leaves_room_for_cuda(machine: Machine) -> None:
    machine.install(H100, H100, memory=80 * GB)
    found = find_devices(0.5)
    assert found.slots == 4
    assert found.gpu_memory == 40 * GB - devices.GPU_OVERHEAD
    assert found.environment == {
        "PNEUMO_GPU_MEMORY": str((40 * GB - devices.GPU_OVERHEAD) // 2**20),
        "PNEUMO_GPU_PICTURES": str((40 * GB - devices.GPU_OVERHEAD) // 4),
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    assert found.describe(4) == f"Training on: 2 x {H100}, 4 trials at a time"
    assert [find_devices(share).trials_per_gpu for share in (1.0, 0.6, 0.4, 1 / 3, 0.1)] == [1, 1, 2, 3, 10]


@pytest.mark.parametrize(
    ("installed", "visible", "share", "message"),
    [
        (
            2,
            "2",
            1.0,
            "CUDA_VISIBLE_DEVICES=2: this machine has no GPU 2 that trials can use (it has GPU 0, 1); name another",
        ),
        (2, "0,GPU-9", 1.0, "CUDA_VISIBLE_DEVICES=0,GPU-9: this machine has no GPU GPU-9 that"),
        (2, "MIG-7", 1.0, "this machine has no GPU MIG-7 that"),
        (0, "0", 1.0, f"this machine has no GPU 0 that trials can use ({FAULT}); name another one, or none"),
        (0, None, 0.5, f"--gpu-share 0.5: there is no usable GPU to share: {INSTALL}; leave it out"),
        (
            2,
            "-1",
            0.5,
            "--gpu-share 0.5: there is no usable GPU to share: CUDA_VISIBLE_DEVICES hides all; leave it out",
        ),
        (
            2,
            None,
            0.01,
            "--gpu-share 0.01: a trial would have too little of the 80.0 GB of the GPU; it needs a share of 0.02 at",
        ),
    ],
)
def test_gpus_that_are_not_to_be_had_are_refused_in_one_line(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, installed: int, visible: str | None, share: float, message: str
) -> None:
    machine.add_smi(H100, H100)
    if installed:
        machine.install(*[H100] * installed)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(RequestError) as refusal:
        find_devices(share)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_machine_with_nothing_to_share_says_so(machine: Machine) -> None:
    with pytest.raises(RequestError, match="this machine has none; leave it out"):
        find_devices(0.5)


def test_the_smallest_gpu_sets_the_limit() -> None:
    mixed = Devices((Gpu("0", "small", 10 * GB), Gpu("1", "large", 80 * GB)), 2, 0.5)
    assert mixed.gpu_memory == 5 * GB - devices.GPU_OVERHEAD
