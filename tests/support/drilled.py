"""`python -m pneumo.search` with trials that fail on purpose. A test runs this file by its path.

A trial with `SEGFAULTS` filters crashes in native code, no process gets more address space than `MEMORY`, and a checkpoint is
written after every epoch, however short the epoch is.
"""

from __future__ import annotations

import ctypes
import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from pneumo.compute.place import Channel
from pneumo.console.command import run_command
from pneumo.search import __main__ as search
from pneumo.spec.errors import FullDiskError
from pneumo.spec.result import TrialResult
from pneumo.training import trial
from pneumo.training.task import TrialTask

SEGFAULTS = 7
"""Filters of a trial that crashes."""

MEMORY = 12 * 2**30
"""Address space of a process, bytes. TensorFlow reserves half of it, but uses less memory."""

train = trial.run_trial


@contextmanager
def drilled(task: TrialTask, channel: Channel) -> Iterator[TrialResult | FullDiskError]:
    """Run a trial in the worker, or crash."""
    if task.candidate.values.filters == SEGFAULTS:
        ctypes.string_at(0)
    from pneumo.cnn import checkpoint

    checkpoint.MAX_WRITE_SHARE = math.inf
    with train(task, channel) as result:
        yield result


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    trial.run_trial = drilled
    run_command(search.app, "search")
