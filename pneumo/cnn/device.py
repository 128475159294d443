"""Choose the device and its precision, warm up a worker process, and free memory after a trial."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pneumo.spec.hyperparameters import Hyperparameters
from pneumo.spec.names import Variables

if TYPE_CHECKING:
    import keras

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Device:
    """The device that the trials of this process run on.

    Attributes:
        name: As the vendor calls it.
        kind: `gpu` or `cpu`.
        fastest_precision: The precision in which it computes fastest.
    """

    name: str
    kind: Literal["gpu", "cpu"]
    fastest_precision: Precision


def warm_up(*, deterministic: bool = False) -> Device:
    """Import TensorFlow and Keras and initialize the device, which each process does once.

    Call it in a worker before anything else imports TensorFlow, while the driver reads the pictures. It trains nothing: a
    tiny network would cost 2.5 s here and save 0.7 s of the first trial.

    Args:
        deterministic: Whether operations must give the same bits each time. An operation that cannot then raises
            `tf.errors.UnimplementedError`. The bits still depend on the device and on the number of threads.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    # Keras imports both, if it can, for wrappers and galleries that nothing here uses. That is a third of its import time.
    with _absent("sklearn", "matplotlib"):
        import tensorflow as tf

    import pneumo.cnn.fit  # noqa: F401

    # Each trial traces Keras' functions again; TensorFlow takes that for a mistake and warns.
    tf.get_logger().setLevel("ERROR")
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    device = find_device()
    tf.zeros(1)  # the first operation initializes the device
    return device


@contextmanager
def _absent(*names: str) -> Generator[None]:
    """Make imports of these modules fail as if they were not installed. Modules that are already imported stay."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def find_device(
    gpus: Sequence[Any] | None = None,
    *,
    set_memory_growth: Callable[[Any, bool], None] | None = None,
    limit_memory: Callable[[Any, int], None] | None = None,
    details: Callable[[Any], Mapping[str, Any]] | None = None,
    cpuinfo: Path = Path("/proc/cpuinfo"),
) -> Device:
    """Return the device of this process: its first visible GPU, otherwise the CPU.

    Sets memory growth on each visible GPU, since TensorFlow otherwise takes all of its memory. If this process has a share of
    a GPU, the environment variable PNEUMO_GPU_MEMORY says how much it may allocate.

    Args:
        gpus: Replaces `tf.config.list_physical_devices("GPU")` in tests.
        set_memory_growth: Replaces `tf.config.experimental.set_memory_growth` in tests.
        limit_memory: Replaces a call of `tf.config.set_logical_device_configuration` in tests; takes a GPU and MiB.
        details: Replaces `tf.config.experimental.get_device_details` in tests.
        cpuinfo: Linux' description of the CPU.

    Raises:
        RuntimeError: TensorFlow has run an operation before; memory growth must be set earlier. Or this process was given a
            GPU and TensorFlow finds none.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU") if gpus is None else gpus
    set_memory_growth = set_memory_growth or tf.config.experimental.set_memory_growth
    details = details or tf.config.experimental.get_device_details
    memory = os.environ.get(Variables.GPU_MEMORY)
    if memory and not gpus:
        raise RuntimeError(
            f"TensorFlow finds no GPU, though the NVIDIA driver lists GPU {os.environ.get('CUDA_VISIBLE_DEVICES')}; its "
            "libraries may not fit: install them with `make gpu`, or set CUDA_VISIBLE_DEVICES=-1 to train on the CPU"
        )
    for gpu in gpus:
        if memory and memory.isdigit():
            # It excludes memory growth through this API; TF_FORCE_GPU_ALLOW_GROWTH sets that, see `compute.devices`.
            (limit_memory or _limit_memory)(gpu, int(memory))
        else:
            set_memory_growth(gpu, True)
    if gpus:
        gpu = details(gpus[0])
        capability = gpu.get("compute_capability", (0, 0))
        return Device(str(gpu.get("device_name", "GPU")), "gpu", _gpu_precision(capability))
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    has_bfloat16 = bool(flags and {"avx512_bf16", "amx_bf16"} & set(flags[1].split()))
    name = model[1].strip() if model else platform.processor() or platform.machine()
    return Device(name, "cpu", "bfloat16" if has_bfloat16 else "float32")


def picture_memory() -> int:
    """Return the bytes of the device's memory that the training pictures may take; 0 on the CPU, which gains nothing."""
    return int(os.environ.get(Variables.GPU_PICTURES, "0"))


def resolve_precision(values: Hyperparameters, device: Device) -> Hyperparameters:
    """Return the hyperparameters with `precision: auto` replaced by the device's fastest precision."""
    if values.precision != "auto":
        return values
    return values.model_copy(update={"precision": device.fastest_precision})


def exhausted_memory(error: BaseException, device: Device) -> Literal["host", "GPU"] | None:
    """Return which memory was exhausted, or None if the error of a training on this device has another cause."""
    import tensorflow as tf

    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "host"
    if isinstance(error, tf.errors.ResourceExhaustedError) or "OUT_OF_MEMORY" in str(error):
        return "GPU" if device.kind == "gpu" and "device:CPU" not in str(error) else "host"
    return None


def release_memory(model: keras.Model) -> None:
    """Free the memory of a trial. The model cannot be used afterwards.

    TensorFlow keeps the memory of variables whose Python objects are deleted, 52 MB for each trial of the tutorial's network.
    Assigning an empty tensor to each variable leaves 6 MB, and `malloc_trim` after that 1 to 3 MB.
    """
    import keras

    optimizer = getattr(model, "optimizer", None)
    free_variables([*model.variables, *(optimizer.variables if optimizer else [])])
    keras.backend.clear_session()  # it also collects garbage
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc only
        trim(0)


def free_variables(variables: Sequence[Any]) -> None:
    """Free the memory of variables of Keras, which cannot be used afterwards."""
    import tensorflow as tf

    for variable in variables:
        tensor = variable.value
        tf.raw_ops.AssignVariableOp(resource=tensor.handle, value=tf.zeros([0], tensor.dtype))


def _limit_memory(gpu: Any, mebibytes: int) -> None:
    import tensorflow as tf

    tf.config.set_logical_device_configuration(gpu, [tf.config.LogicalDeviceConfiguration(memory_limit=mebibytes)])


def _gpu_precision(capability: tuple[int, int]) -> Precision:
    """Return the precision of the tensor cores: float16 from compute capability 7 (Volta), bfloat16 from 8 (Ampere)."""
    if capability >= (8, 0):
        return "bfloat16"
    return "float16" if capability >= (7, 0) else "float32"
