"""`python -m pneumo.search` for drills, run by its path: a trial with `SEGFAULTS` filters makes a native library crash, no
process may have more address space than `MEMORY`, and every epoch leaves a checkpoint, however quick it is."""

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
MEMORY = 12 * 2**30
"""Bytes. TensorFlow alone has half of it as address space, though not as memory."""

train = trial.run_trial


@contextmanager
def drilled(task: TrialTask, channel: Channel) -> Iterator[TrialResult | FullDiskError]:
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
