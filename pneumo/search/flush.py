"""The search's side of the outbox: send what an earlier search left, wait at the end, say what remains."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Console

from pneumo.console.command import INTERRUPTED, NOTHING_FIT, TypedCommand
from pneumo.console.display import say, say_command
from pneumo.search.summary import say_resume
from pneumo.spec.names import Tags
from pneumo.spec.result import Trial

if TYPE_CHECKING:
    from pneumo.tracking.outbox import Outbox
    from pneumo.tracking.sender import Outage, Sender
    from pneumo.tracking.store import Store


def never() -> bool:
    """Return False: nobody interrupts."""
    return False


@dataclass(frozen=True)
class Flush:
    """The way from a study's outbox to MLflow.

    Args:
        outbox: What is still to be sent.
        store: Where it goes.
        outage: Seconds to wait for MLflow while it is away, `search.outage`.
        console: Where messages go.
    """

    outbox: Outbox
    store: Store
    outage: float
    console: Console

    def sender(self) -> Sender:
        """Return the thread that sends the outbox to MLflow while its context lasts."""
        from pneumo.tracking.sender import Sender
        from pneumo.training.drawing import draw_plots

        return Sender(
            self.outbox,
            self.store,
            say=self._say,
            complain=lambda line: print(f"pneumo.search: {line}", file=sys.stderr),
            draw=draw_plots,
        )

    def send_left_over(self) -> bool:
        """Send what an earlier search of the study left. Return False if not all of it arrived.

        Raises:
            RequestError: It belongs to another MLflow store.
        """
        from pneumo.tracking.sender import check_same_store

        if not (writes := self.outbox.remaining()):
            return True
        check_same_store(self.outbox, self.store)
        self._say(f"Sending to MLflow what an earlier search left: {writes:,} writes")
        with self.sender() as sender:
            return self.wait(sender)

    def wait(self, sender: Sender, interrupted: Callable[[], bool] = never) -> bool:
        """Wait until everything has arrived, or MLflow was away for `outage` seconds. Return whether all arrived."""

        def show_progress(away: Outage | None) -> None:
            if away is None:
                self._say(
                    f"Sending {self.outbox.remaining():,} writes to MLflow. Ctrl-C stops waiting and loses nothing."
                )
                return
            until = datetime.now() + timedelta(seconds=self.outage - max(0.0, time.monotonic() - started))
            self._say(
                f"Waiting for MLflow ({away.reason}) until {until:%H:%M:%S} at the latest (search.outage). "
                "Ctrl-C stops waiting and loses nothing."
            )

        started = time.monotonic()
        return sender.flush(self.outage, interrupted=interrupted, show_progress=show_progress)

    def remember_run_ids(self, study: str, finished_trials: Sequence[Trial]) -> None:
        """Look up in MLflow the run ids of trials that a new outbox knows by their keys only."""
        from pneumo.tracking.study import trial_runs

        if all(self.outbox.run_id(trial.result.run_id) for trial in finished_trials):
            return
        for run in trial_runs(self.store, study):
            if key := run.tags.get(Tags.KEY):
                self.outbox.store_run_id(key, run.run_id)

    def with_run_ids(self, finished_trials: Sequence[Trial]) -> list[Trial]:
        """Return the trials with the ids that MLflow gave to their runs, where those are known."""
        ids = [self.outbox.run_id(trial.result.run_id) or trial.result.run_id for trial in finished_trials]
        return [
            replace(trial, result=replace(trial.result, run_id=run_id))
            for trial, run_id in zip(finished_trials, ids, strict=True)
        ]

    def report_unsent(self, command: TypedCommand, *, interrupted: bool) -> int:
        """Say how much was not sent, where it is and how to send it. Return the exit status."""
        unsent = (
            f"{self.outbox.remaining():,} writes that {self.store.display_uri} has not taken are in {self.outbox.path}"
        )
        if interrupted:
            say_resume(self.console, f"Interrupted. Nothing is lost: {unsent}.", command)
            return INTERRUPTED
        print(f"pneumo.search: MLflow is away: {unsent}", file=sys.stderr)
        self._say("When MLflow is back, the same command sends them and resumes the study:")
        say_command(self.console, f"  {command}")
        return NOTHING_FIT

    def _say(self, line: str) -> None:
        say(self.console, line)
