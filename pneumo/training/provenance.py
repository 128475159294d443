"""What a training's bits follow from beside its parameters and its pictures: the code, the libraries, the threads.

Each trial has them as tags of its run, so that who trains it again can tell what differs.
"""

from __future__ import annotations

import os
import platform
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from pneumo.spec.names import Tags

TRAINING = (
    "cnn/augment.py",
    "cnn/build.py",
    "cnn/checkpoint.py",
    "cnn/fit.py",
    "data/decoding/*.py",
    "data/phantom.py",
    "evidence/metrics.py",
    "spec/hyperparameters.py",
    "spec/objective.py",
    "training/trial.py",
)
"""The files of this package that a training and its metrics follow from. What reads and cuts the pictures is not among them:
that the same ones were trained on, each in its part, is what the digests of the parts tell."""

LIBRARIES = ("tensorflow", "keras", "numpy", "pillow", "scikit-learn")
"""What computes: the network, the pixels, the metrics."""

THREADS = "TF_NUM_INTRAOP_THREADS"
"""The environment variable that TensorFlow reads when it starts: the threads that share one operation."""


def tags() -> dict[str, str]:
    """The tags of a trial that is trained in this process."""
    return {Tags.CODE: code(), Tags.LIBRARIES: libraries(), Tags.THREADS: str(threads())}


def code(package: Path = Path(__file__).parents[1]) -> str:
    """12 hexadecimal digits that tell the code of `TRAINING`: paths within the package and text, wherever it lies."""
    digest = sha256()
    for path in sorted({path for pattern in TRAINING for path in package.glob(pattern)}):
        text = path.read_bytes().replace(b"\r\n", b"\n")  # as git may check it out
        digest.update(f"{path.relative_to(package).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:12]


def libraries() -> str:
    """Name and version of Python and of each of `LIBRARIES`, as `python 3.11.7, tensorflow 2.21.0`."""
    return ", ".join([f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in LIBRARIES)])


def threads() -> int:
    """The threads with which TensorFlow computes one operation in this process.

    Sums are added up in as many parts, so their last bits, and in the end every weight, follow from it.
    """
    asked = os.environ.get(THREADS, "")
    if asked.isdigit() and int(asked):
        return int(asked)
    # Its default: the cores that the process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
