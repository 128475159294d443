"""A place whose trials take no time, and a study on it with the real engine, recorder, outbox and sender."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.compute.place import Ended, Event, Report, Task
from pneumo.data.prepare import Prepared
from pneumo.data.split import Count
from pneumo.spec.result import State, TrialResult
from pneumo.tracking.trial_log import TrialLog
from pneumo.training.task import TrialTask


@dataclass(frozen=True)
class Scripted:
    """A trial under way: what its worker was handed, and its log."""

    number: int
    task: TrialTask

    @property
    def log(self) -> TrialLog:
        assert self.task.outbox is not None
        return TrialLog(self.task.outbox, self.task.run_id, "val_auc")

    def value(self, epoch: int) -> float:
        """Return a smooth function of the candidate that grows with the epoch."""
        rate: Any = self.task.candidate.hyperparameters["learning_rate"]
        return float(0.9 - 0.05 * (np.log10(rate) + 3) ** 2 - 0.1 / epoch)


class ScriptedPlace:
    """A `Place` whose trials return at once. Their events come in turn, as those of workers that are equally fast.

    A trial writes into its run what a worker writes, without a model and plots.

    Args:
        workers: Number of tasks at the same time.

    Attributes:
        worker_seconds: CPU seconds of what happens in other processes if workers are real.
    """

    def __init__(self, workers: int) -> None:
        self.worker_seconds = 0.0
        self._workers = workers
        self._trials: dict[int, Scripted] = {}
        self._events: deque[Event] = deque()
        self._epochs: dict[int, int] = {}

    @property
    def free(self) -> int:
        return self._workers - len(self._trials)

    def start(self, workers: int) -> None:
        """Do nothing."""

    def submit(self, task: Task) -> None:
        trial = self._trials[task.number] = Scripted(task.number, task.payload)
        with self._in_worker():
            trial.log.tag({"pneumo.device": "none", "pneumo.precision": "float32"})
        self._report(trial, 1)

    def next_event(self, timeout: float) -> Event | None:
        return self._events.popleft() if self._events else None

    def answer(self, number: int, go_on: bool) -> None:
        trial, epoch = self._trials[number], self._epochs[number]
        if go_on and epoch < trial.task.candidate.epochs:
            self._report(trial, epoch + 1)
        else:
            self._end(trial, epoch, "complete" if go_on else "pruned")

    def close(self) -> None:
        """Do nothing."""

    def _report(self, trial: Scripted, epoch: int) -> None:
        self._epochs[trial.number] = epoch
        value = trial.value(epoch)
        metrics = {"val_auc": value, "loss": 1 - value, "val_loss": 1 - value, "val_accuracy": value}
        with self._in_worker():
            trial.log.epoch(metrics, epoch)
        self._events.append(Report(trial.number, epoch, value, metrics))

    def _end(self, trial: Scripted, epoch: int, state: State) -> None:
        value = trial.value(epoch)
        metrics = {f"best_val_{position}": value for position in range(20)} | {"best_epoch": float(epoch)}
        with self._in_worker():
            trial.log.artifacts({"history.csv": "epoch\n" * epoch, "predictions.csv": "name,label,probability\n" * 200})
            trial.log.finish(metrics)
            trial.log.tag({"pneumo.plots": "none"})
        del self._trials[trial.number], self._epochs[trial.number]
        candidate = trial.task.candidate
        self._events.append(
            Ended(trial.number, TrialResult(candidate.number, trial.task.run_id, state, value, metrics))
        )

    @contextmanager
    def _in_worker(self) -> Iterator[None]:
        start = time.thread_time()
        yield
        self.worker_seconds += time.thread_time() - start


def no_pictures(folder: Path) -> Prepared:
    """Return prepared pictures of which there are none."""
    none = np.zeros(0, np.int64)
    counts = tuple(Count(part, label, 0, 0) for part in ("training", "validation") for label in (0, 1))
    return Prepared("phantom", "no pictures", (), none.astype(np.uint8), (), (), none, none, (), counts, "", (), folder)
