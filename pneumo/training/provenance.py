"""Tags that identify the code, the libraries and the number of threads of a training.

Together with the parameters and the pictures they determine its numbers to the last bit. Each trial's run has them, so that
a replay can report what differs.
"""

from __future__ import annotations

import os
import platform
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from pneumo.spec.cores import THREADS_VARIABLE, scheduled_cores
from pneumo.spec.names import Tags

TRAINING_FILES = (
    "cnn/augment.py",
    "cnn/batches.py",
    "cnn/build.py",
    "cnn/checkpoint.py",
    "cnn/effects.py",
    "cnn/explain.py",
    "cnn/fit.py",
    "cnn/fused.py",
    "cnn/load.py",
    "cnn/optimizer.py",
    "cnn/predictor.py",
    "cnn/steps.py",
    "cnn/stress.py",
    "data/decoding/*.py",
    "data/phantom.py",
    "evidence/attention.py",
    "evidence/metrics.py",
    "evidence/stress.py",
    "spec/hyperparameters.py",
    "spec/network.py",
    "spec/objective.py",
    "spec/stress.py",
    "training/attention.py",
    "training/stress.py",
    "training/train.py",
)
"""Files of this package that decide the numbers of a training. The code that reads and splits the pictures is left out,
because the digests of the parts identify its result."""

LIBRARIES = ("tensorflow", "keras", "numpy", "pillow", "scikit-learn")
"""Distributions that compute the network, the pixels and the metrics."""


def tags() -> dict[str, str]:
    """Return the tags of a trial that is trained in this process."""
    return {
        Tags.CODE: code_digest(),
        Tags.LIBRARIES: library_versions(),
        Tags.THREADS: str(thread_count()),
    }


def code_digest(package: Path = Path(__file__).parents[1]) -> str:
    """Return 12 hexadecimal digits that identify the code of `TRAINING_FILES`.

    The digest covers the text of the files and their paths within the package, not the place of the package.
    """
    digest = sha256()
    for path in sorted({path for pattern in TRAINING_FILES for path in package.glob(pattern)}):
        text = path.read_bytes().replace(b"\r\n", b"\n")  # git may check out either line ending
        digest.update(f"{path.relative_to(package).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:12]


def library_versions() -> str:
    """Return the names and versions of Python and `LIBRARIES`, as `python 3.11.7, tensorflow 2.21.0`."""
    return ", ".join([f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in LIBRARIES)])


def thread_count() -> int:
    """Return the number of threads with which TensorFlow computes one operation in this process.

    A sum is split among the threads, so the last bits of sums, and finally of each weight, depend on their number.
    """
    setting = os.environ.get(THREADS_VARIABLE, "")
    if setting.isdigit() and int(setting):
        return int(setting)
    return scheduled_cores()  # TensorFlow's default
