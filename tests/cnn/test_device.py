"""Tests of pneumo.cnn.device: the device, its precision, and the memory freed after a trial."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pneumo.cnn.batches import Examples
from pneumo.cnn.build import build
from pneumo.cnn.device import Device, find_device, release_memory, resolve_precision
from pneumo.cnn.fit import EpochOutcome, fit
from pneumo.spec.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class Gpu:
    device_name: str
    compute_capability: tuple[int, int]


@pytest.mark.parametrize(
    ("gpu", "fastest"),
    [
        (Gpu("NVIDIA H100 80GB HBM3", (9, 0)), "bfloat16"),
        (Gpu("NVIDIA A10G", (8, 6)), "bfloat16"),
        (Gpu("Tesla T4", (7, 5)), "float16"),
        (Gpu("Tesla P100", (6, 0)), "float32"),
    ],
)
def test_a_gpu_is_named_grows_its_memory_and_has_its_precision(gpu: Gpu, fastest: str) -> None:
    second = Gpu("another", (5, 0))
    grown: list[tuple[Any, bool]] = []
    device = find_device(
        [gpu, second], set_memory_growth=lambda gpu, enabled: grown.append((gpu, enabled)), details=vars
    )
    assert (device.name, device.kind, device.fastest_precision) == (gpu.device_name, "gpu", fastest)
    assert grown == [(gpu, True), (second, True)]


def test_a_share_of_a_gpu_has_a_limit_instead_of_growth_through_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(gpu: Any, enabled: bool) -> None:
        raise ValueError("Cannot set memory growth on device when virtual devices configured")  # as TensorFlow does

    monkeypatch.setenv("PNEUMO_GPU_MEMORY", "37575")
    limits: list[tuple[Any, int]] = []
    for _ in range(2):  # it is called for each trial
        find_device(
            ["gpu"],
            set_memory_growth=refuse,
            limit_memory=lambda gpu, mebibytes: limits.append((gpu, mebibytes)),
            details=lambda _: {},
        )
    assert limits == [("gpu", 37575)] * 2


@pytest.mark.parametrize("memory", ["all", "37575"])
def test_a_worker_that_was_given_a_gpu_does_not_train_on_the_cpu(monkeypatch: pytest.MonkeyPatch, memory: str) -> None:
    monkeypatch.setenv("PNEUMO_GPU_MEMORY", memory)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(RuntimeError, match="TensorFlow finds no GPU, though the NVIDIA driver lists GPU 3; "):
        find_device([])


def test_a_gpu_that_says_nothing_of_itself_computes_in_float32() -> None:
    device = find_device(["gpu"], set_memory_growth=lambda *_: None, details=lambda _: {})
    assert device == Device("GPU", "gpu", "float32")


@pytest.mark.parametrize(("flag", "fastest"), [("avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16"), ("", "float32")])
def test_a_cpu_is_named_and_has_its_precision(tmp_path: Path, flag: str, fastest: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        f"processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 {flag}\n\nprocessor\t: 1\n"
    )
    device = find_device([], cpuinfo=cpuinfo)
    assert (device.name, device.kind, device.fastest_precision) == ("Some CPU @ 2 GHz", "cpu", fastest)


def test_a_machine_without_cpuinfo_still_has_a_name(tmp_path: Path) -> None:
    device = find_device([], cpuinfo=tmp_path / "none")
    assert device.name
    assert device.fastest_precision == "float32"


def test_auto_becomes_what_the_device_computes_fastest() -> None:
    a100 = Device("NVIDIA A100", "gpu", "bfloat16")
    assert resolve_precision(Hyperparameters(precision="auto"), a100) == Hyperparameters(precision="bfloat16")
    assert resolve_precision(Hyperparameters(precision="float16"), a100).precision == "float16"


def _trial(seed: int) -> None:
    pixels, labels = np.zeros((16, 64, 64), np.uint8), np.arange(16) % 2
    pictures = Examples(pixels, np.arange(16), labels)
    values = Hyperparameters(epochs=1)
    model = build(values, seed=seed)
    fit(model, values, pictures, pictures, seed=seed, after_epoch=lambda *_: EpochOutcome(0.0, True))
    release_memory(model)


@pytest.mark.slow
def test_memory_stays_flat_from_trial_to_trial() -> None:
    process, used = psutil.Process(), []
    for seed in range(12):
        _trial(seed)
        used.append(process.memory_info().rss / 2**20)
    # Without `release_memory` a trial of the tutorial's network leaves 52 MB.
    assert (used[-1] - used[3]) / 8 < 12


WARMED_UP = """
import sys
from pneumo.cnn.device import warm_up
warm_up()
assert "keras" in sys.modules
print("sklearn" in sys.modules, "matplotlib" in sys.modules)
import sklearn.metrics, matplotlib.pyplot
"""


def test_keras_is_imported_without_the_libraries_that_only_its_other_parts_need() -> None:
    done = subprocess.run([sys.executable, "-c", WARMED_UP], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
