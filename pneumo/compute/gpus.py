"""The NVIDIA GPUs of this machine, and whether TensorFlow has the libraries to use them."""

from __future__ import annotations

import ctypes.util
import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEVICE_FILE = Path("/dev/nvidia0")
"""A file that is there if the kernel knows an NVIDIA GPU."""

INSTALL = "install the GPU libraries with `make gpu`"

LIBRARIES = {"nvidia.cudnn": "cudnn", "nvidia.cublas": "cublas"}
"""Some of the libraries that TensorFlow needs on a GPU, by their Python packages: their names as the linker knows them."""

SMI_SECONDS = 20
"""Longest time that `nvidia-smi` may take."""


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        id: How CUDA_VISIBLE_DEVICES names it: an index, a UUID or the beginning of one.
        name: As the vendor calls it.
        memory: Its memory in bytes.
        uuid: Its UUID.
    """

    id: str
    name: str
    memory: int
    uuid: str = ""


def usable_gpus() -> tuple[tuple[Gpu, ...], str | None]:
    """Return the GPUs that TensorFlow can use, and why it cannot use those that are there.

    The reason is None if it can use them, or if there is none. TensorFlow is not imported, which would take seconds; a worker
    that finds no GPU of its own says so when it starts.
    """
    try:
        import pynvml
    except ImportError:
        return (), _name_unusable(INSTALL)
    try:
        pynvml.nvmlInit()
    except Exception as error:  # there is no driver, or it is another version than the kernel's
        return (), _name_unusable(f"the NVIDIA driver does not answer: {error}")
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        gpus = tuple(_read_gpu(pynvml, str(index), handle) for index, handle in enumerate(handles))
    except Exception as error:
        return (), _name_unusable(f"the NVIDIA driver does not answer: {error}")
    finally:
        pynvml.nvmlShutdown()
    if gpus and not all(_is_installed(package, library) for package, library in LIBRARIES.items()):
        return (), INSTALL
    return gpus, None


def find_mig_part(uuid: str) -> Gpu | None:
    """Return the part of a GPU (MIG) that has this UUID; None if there is none."""
    if not uuid.startswith("MIG-"):
        return None
    import pynvml

    pynvml.nvmlInit()
    try:
        return _read_gpu(pynvml, uuid, pynvml.nvmlDeviceGetHandleByUUID(uuid))
    except Exception:  # NVMLError, whose classes pynvml makes at run time
        return None
    finally:
        pynvml.nvmlShutdown()


def _read_gpu(pynvml: Any, id_: str, handle: Any) -> Gpu:
    name, uuid = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)
    return Gpu(id_, _to_text(name), int(pynvml.nvmlDeviceGetMemoryInfo(handle).total), _to_text(uuid))


def _to_text(value: str | bytes) -> str:
    """Return what older versions of pynvml give as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _name_unusable(reason: str) -> str | None:
    """Return the reason if there is a GPU at all, without asking its library; None if there is none."""
    return reason if _is_listed_by_smi() or DEVICE_FILE.exists() else None


def _is_listed_by_smi() -> bool:
    """Return whether `nvidia-smi`, which comes with the driver, lists a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        command = [program, "-L"]
        listed = subprocess.run(  # noqa: S603  (a program of the user's PATH, with a fixed argument)
            command, capture_output=True, text=True, timeout=SMI_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU " in listed.stdout


def _is_installed(package: str, library: str) -> bool:
    """Return whether a library is there, as a Python package or as a library of the system."""
    try:
        if importlib.util.find_spec(package):
            return True
    except ModuleNotFoundError:  # the package above it is not there
        pass
    return ctypes.util.find_library(library) is not None
