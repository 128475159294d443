"""What training runs on: the device, its fastest precision, a warm start, and memory given back after a trial."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pneumo.spec.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    import keras

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Device:
    """What trials of this process run on. `fastest`: the precision it computes fastest."""

    name: str
    kind: Literal["gpu", "cpu"]
    fastest: Precision


def warm_up(*, deterministic: bool = False) -> Device:
    """Pay what a process pays once: import TensorFlow, Keras and this folder, and take the device.

    `deterministic`: from here on an operation gives the same bits every time, and one that cannot raises
    `tf.errors.UnimplementedError`. Bits still follow from the device and from the number of threads.

    Call it first in a worker, before anything else imports TensorFlow, while the data are being read. It trains nothing:
    a tiny network would cost 2.5 s here and save 0.7 s of the first trial.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    import tensorflow as tf

    import pneumo.cnn.fit  # noqa: F401

    # Every trial traces Keras' functions anew, which TensorFlow takes for a mistake and warns of.
    tf.get_logger().setLevel("ERROR")
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    found = device()
    tf.zeros(1)  # the first operation starts the device
    return found


def device(
    gpus: Sequence[Any] | None = None,
    *,
    set_memory_growth: Callable[[Any, bool], None] | None = None,
    details: Callable[[Any], Mapping[str, Any]] | None = None,
    cpuinfo: Path = Path("/proc/cpuinfo"),
) -> Device:
    """The device of this process: its first visible GPU, else the CPU.

    Memory growth is set on every visible GPU, since TensorFlow otherwise takes all memory of each; that must come before
    TensorFlow's first operation and raises `RuntimeError` after it. The arguments stand in for what TensorFlow and the
    system say: `tf.config.list_physical_devices("GPU")`, `tf.config.experimental.set_memory_growth` and
    `get_device_details`, and Linux' list of the CPU's features.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU") if gpus is None else gpus
    set_memory_growth = set_memory_growth or tf.config.experimental.set_memory_growth
    details = details or tf.config.experimental.get_device_details
    for gpu in gpus:
        set_memory_growth(gpu, True)
    if gpus:
        told = details(gpus[0])
        capability = told.get("compute_capability", (0, 0))
        return Device(str(told.get("device_name", "GPU")), "gpu", _gpu_precision(capability))
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    fast = bool(flags and {"avx512_bf16", "amx_bf16"} & set(flags[1].split()))
    name = model[1].strip() if model else platform.processor() or platform.machine()
    return Device(name, "cpu", "bfloat16" if fast else "float32")


def resolved(values: Hyperparameters, on: Device) -> Hyperparameters:
    """The hyperparameters with `precision: auto` replaced by what the device computes fastest."""
    return values.model_copy(update={"precision": on.fastest}) if values.precision == "auto" else values


def out_of_memory(error: BaseException, on: Device) -> Literal["host", "GPU"] | None:
    """Which memory ran out, where that is what an error of a training on this device says; None where it is another."""
    import tensorflow as tf

    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "host"
    if isinstance(error, tf.errors.ResourceExhaustedError) or "OUT_OF_MEMORY" in str(error):
        return "GPU" if on.kind == "gpu" and "device:CPU" not in str(error) else "host"
    return None


def release(model: keras.Model) -> None:
    """Give back what a trial holds; the model is of no use afterwards.

    TensorFlow keeps the memory of variables whose Python objects are gone, 52 MB a trial of the tutorial's network, so
    each is emptied by hand (6 MB left), and the C library is told to hand free memory back (1 to 3 MB left).
    """
    import keras
    import tensorflow as tf

    optimizer = getattr(model, "optimizer", None)
    for variable in [*model.variables, *(optimizer.variables if optimizer else [])]:
        tensor = variable.value
        tf.raw_ops.AssignVariableOp(resource=tensor.handle, value=tf.zeros([0], tensor.dtype))
    keras.backend.clear_session()  # collects garbage too
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc only
        trim(0)


def _gpu_precision(capability: tuple[int, int]) -> Precision:
    """Tensor cores: float16 from compute capability 7 (Volta), bfloat16 from 8 (Ampere)."""
    if capability >= (8, 0):
        return "bfloat16"
    return "float16" if capability >= (7, 0) else "float32"
