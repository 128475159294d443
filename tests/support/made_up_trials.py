"""Trials for worker processes of the tests that train nothing. A worker imports this file, so it imports nothing heavy."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pneumo.compute.place import Channel
from pneumo.spec.candidate import Candidate
from pneumo.spec.result import TrialResult


def warm_up() -> None:
    """Do nothing: these workers import no heavy library."""


@contextmanager
def train(payload: tuple[Candidate, str], channel: Channel) -> Iterator[TrialResult]:
    """Run a trial whose value is its learning rate. Two layers make it fail, three kill the process."""
    yield _trained(*payload, channel)


def _trained(candidate: Candidate, run_id: str, channel: Channel) -> TrialResult:
    layers, rate = candidate.values.layers, candidate.values.learning_rate
    if layers == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if layers == 2:
        return TrialResult(candidate.number, run_id, "failed", error="no luck")
    for epoch in range(1, candidate.epochs + 1):
        channel.progress(epoch, 1, 1)
        if not channel.report(epoch, rate * epoch, {"val_auc": rate * epoch}):
            return TrialResult(candidate.number, run_id, "pruned", rate * epoch)
    return TrialResult(candidate.number, run_id, "complete", rate)


Killed = tuple[Candidate, str, str]
"""Candidate, run and folder of a trial whose worker is killed."""


@contextmanager
def train_killed(payload: Killed, channel: Channel) -> Iterator[TrialResult]:
    """Report each epoch. The worker is killed in its second epoch, as often as the folder that it is given says."""
    candidate, run_id, folder = payload
    rate = candidate.values.learning_rate
    for epoch in range(1, candidate.epochs + 1):
        channel.report(epoch, rate * epoch, {"val_auc": rate * epoch})
        kill = next(iter(Path(folder).glob(f"{candidate.number}-*")), None)
        if epoch == 2 and kill:
            kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    yield TrialResult(candidate.number, run_id, "complete", rate)
