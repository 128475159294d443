"""`python -m pneumo.search`, but that a trial with `SEGFAULTS` filters makes a native library crash, and that no process may
have more address space than `MEMORY`: a program for the tests, run by its path."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from pneumo import search, trial
from pneumo.command import run
from pneumo.compute.place import Channel
from pneumo.spec.errors import FullDiskError
from pneumo.spec.result import TrialResult

SEGFAULTS = 7
MEMORY = 12 * 2**30
"""Bytes. TensorFlow alone has half of it as address space, though not as memory."""

train = trial.run


@contextmanager
def crashing(task: trial.TrialTask, channel: Channel) -> Iterator[TrialResult | FullDiskError]:
    if task.candidate.values.filters == SEGFAULTS:
        ctypes.string_at(0)
    with train(task, channel) as result:
        yield result


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    trial.run = crashing
    run(search.app, "search")
