"""What a search does about what MLflow has not taken yet: send what an earlier one left, wait at the end, say what is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pneumo.console.command import INTERRUPTED, NOTHING_FIT
from pneumo.console.display import Screen
from pneumo.search.summary import describe_resume

if TYPE_CHECKING:
    from pneumo.search.loop import Ending
    from pneumo.search.recorder import StudyRecord
    from pneumo.spec.result import Trial
    from pneumo.spec.selection import Confirmation
    from pneumo.tracking.outbox import Outbox
    from pneumo.tracking.sender import Away, Sender
    from pneumo.tracking.store import Store


def sender_of(outbox: Outbox, store: Store, screen: Screen) -> Sender:
    """The thread that takes the outbox to MLflow, to be entered."""
    from pneumo.tracking.sender import Sender

    return Sender(outbox, store, say=screen.say, complain=lambda line: print(f"pneumo.search: {line}", file=sys.stderr))


def send_left(outbox: Outbox, store: Store, outage: float, screen: Screen) -> bool:
    """Sends what an earlier search of the study left, waiting for `outage` seconds; False where not all of it arrived.

    Raises `RequestError` where it is of another MLflow.
    """
    from pneumo.tracking.sender import check_same_store

    if not (left := outbox.left()):
        return True
    check_same_store(outbox, store)
    screen.say(f"Sending to MLflow what an earlier search left: {left:,} writes")
    with sender_of(outbox, store, screen) as sender:
        return arrived(outbox, sender, outage, screen)


def know_runs(outbox: Outbox, store: Store, study: str, told: Sequence[Trial]) -> None:
    """Has the outbox know the ids of these trials' runs, also where it is a new one and MLflow alone remembers their keys."""
    from pneumo.tracking.outbox import KEY
    from pneumo.tracking.study import trial_runs

    if all(outbox.run_id(trial.result.run_id) for trial in told):
        return
    for run in trial_runs(store, study):
        if key := run.tags.get(KEY):
            outbox.keep_run_id(key, run.run_id)


def arrived(
    outbox: Outbox, sender: Sender, outage: float, screen: Screen, interrupted: Callable[[], bool] = lambda: False
) -> bool:
    """Waits until all has arrived, for `outage` seconds where MLflow is away, and says so once; False where it has not."""

    def waiting(away: Away | None) -> None:
        if away is None:
            screen.say(f"Sending {outbox.left():,} writes to MLflow; Ctrl-C ends it, and they are kept")
            return
        until = datetime.now() + timedelta(seconds=outage - max(0.0, time.monotonic() - began))
        screen.say(
            f"Waiting for MLflow ({away.reason}) until {until:%H:%M:%S} at the latest (search.outage); Ctrl-C ends it"
        )

    began = time.monotonic()
    return sender.flush(outage, hurry=interrupted, waiting=waiting)


def close(
    record: StudyRecord,
    outbox: Outbox,
    sender: Sender,
    told: Sequence[Trial],
    ending: Ending,
    confirmed: Sequence[Confirmation],
    outage: float,
    screen: Screen,
    interrupted: Callable[[], bool],
) -> bool:
    """Closes the study's run when all of its trials' has arrived; False where not all of both arrives."""
    if not arrived(outbox, sender, outage, screen, interrupted):
        record.abandon()
        return False
    record.close(told, ending.interrupted, confirmed)
    return arrived(outbox, sender, outage, screen, interrupted)


def unsent(outbox: Outbox, store: Store, screen: Screen, *, interrupted: bool) -> int:
    """Says what is left, where it lies and how to send it; the exit status."""
    left = f"{outbox.left():,} writes that {store.shown} has not taken are kept in {outbox.path}"
    if interrupted:
        screen.say(f"Interrupted; everything so far is kept: {left}. {describe_resume()}")
        return INTERRUPTED
    print(f"pneumo.search: MLflow is away: {left}", file=sys.stderr)
    screen.say(f"When it is back, the same command sends them and goes on:\n{describe_resume().splitlines()[1]}")
    return NOTHING_FIT
