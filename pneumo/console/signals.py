"""Ctrl-C and SIGTERM: raised where it is safe, or asked for as a clean end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

LATER = 0.05
"""Seconds after which an interruption that could not be raised where it came is tried again."""


def install_handlers() -> None:
    """Raise `KeyboardInterrupt` at Ctrl-C and at SIGTERM, so that what is under way is closed in the same way."""
    for one in _heeded():
        signal.signal(one, _interrupt)
    sys.unraisablehook = _unraisable


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Ctrl-C or SIGTERM once asks for a clean end, which the function it gives tells; twice ends at once."""
    asked = []

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        for one, handler in before.items():
            signal.signal(one, handler)

    before = {one: signal.signal(one, ask) for one in _heeded()}
    try:
        yield lambda: bool(asked)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _heeded() -> list[signal.Signals]:
    """Ctrl-C and SIGTERM, but not where who started this process has it ignored: a script that runs it in the background."""
    return [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raises `KeyboardInterrupt`, as Python does at Ctrl-C, but within an import only at its end.

    A library that is imported may pass over it, and one whose import was broken off cannot be imported again by what ends
    the command.
    """
    at = frame
    while at is not None:
        if at.f_code.co_filename.startswith("<frozen importlib"):
            _again(number)
            return
        at = at.f_back
    raise KeyboardInterrupt


def _unraisable(passed: sys.UnraisableHookArgs) -> None:
    """Tries again what Python passes over where it comes while an object is taken away, and shows anything else."""
    if issubclass(passed.exc_type, KeyboardInterrupt):
        _again(signal.SIGINT)
    else:
        sys.__unraisablehook__(passed)


def _again(number: int) -> None:
    again = threading.Timer(LATER, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()
