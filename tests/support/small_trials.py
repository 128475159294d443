"""Trials that train nothing, for every kind of place. A worker imports this file, so it imports nothing heavy."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pneumo.compute.place import Channel


def ready() -> None:
    """Nothing to warm up."""


def cannot_start() -> None:
    raise ImportError("no module named tensorflow")


@contextmanager
def small_trial(payload: tuple[str, Any], channel: Channel) -> Iterator[Any]:
    """Do what the payload's first part says, with its second part."""
    what, value = payload
    yield DOES[what](value, channel)


def _double(value: int, channel: Channel) -> int:
    return 2 * value


def _epochs(count: int, channel: Channel) -> list[bool]:
    """Report epochs until the driver says no; return its answers."""
    answers: list[bool] = []
    for epoch in range(1, count + 1):
        channel.progress(epoch, 1, 2)
        answers.append(channel.report(epoch, epoch / 10, {"val_auc": epoch / 10}))
        if not answers[-1]:
            break
    return answers


def _crash(_: object, channel: Channel) -> None:
    channel.report(1, os.getpid(), {})
    os.write(2, b"last words\n")
    os.kill(os.getpid(), signal.SIGSEGV)
    signal.pause()


def _waits(_: object, channel: Channel) -> None:
    """Report the id of the process, then wait for ever."""
    channel.report(1, os.getpid(), {})
    while True:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        signal.sigwait({signal.SIGUSR1})


def _sends(count: int, channel: Any) -> int:
    """Send messages between reports, also from what a report was answered with."""
    for number in range(count):
        channel.send(("message", number), wait=number % 2 == 0)
        channel.report(number + 1, 0.0, {})
    channel.send(bytes(2_000_000))
    return count


def _sums(stored: Any, channel: Channel) -> tuple[int, bool, bool]:
    """Return the sum of an array of the store, and whether it is writable or a copy of its own."""
    array = stored()
    return int(array.sum()), bool(array.flags.writeable), bool(array.flags.owndata)


DOES = {"double": _double, "epochs": _epochs, "crash": _crash, "waits": _waits, "sends": _sends, "sums": _sums}
