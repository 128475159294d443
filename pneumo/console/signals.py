"""Ctrl-C and SIGTERM: raised at a safe instant, or noted for a clean end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

RETRY_SECONDS = 0.05
"""Seconds until a signal that could not raise `KeyboardInterrupt` is sent again."""


def install_handlers() -> None:
    """Raise `KeyboardInterrupt` at Ctrl-C and at SIGTERM, so that both close what is open in the same way."""
    for number in _handled_signals():
        signal.signal(number, _raise_interrupt)
    sys.unraisablehook = _retry_interrupt


class Interruption:
    """Whether the user asked for a clean end. Call it to find out.

    Within the context, the first Ctrl-C or SIGTERM is noted and changes nothing else; the second raises
    `KeyboardInterrupt`. Outside the context a signal raises at once.
    """

    def __init__(self) -> None:
        self._requested = False
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        return self._requested

    def __enter__(self) -> Self:
        self._previous_handlers = {number: signal.signal(number, self._note) for number in _handled_signals()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore_handlers()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)


def _handled_signals() -> list[signal.Signals]:
    """Return Ctrl-C's signal and SIGTERM, without those that the caller of this process ignores.

    A shell script that runs a command in the background has it ignore Ctrl-C.
    """
    return [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    """Raise `KeyboardInterrupt`, but during an import only after its end.

    A library that is being imported may swallow the exception, and a library whose import was broken off cannot be
    imported again by the code that ends the command.
    """
    caller = frame
    while caller is not None:
        if caller.f_code.co_filename.startswith("<frozen importlib"):
            _send_again(number)
            return
        caller = caller.f_back
    raise KeyboardInterrupt


def _retry_interrupt(unraisable: sys.UnraisableHookArgs) -> None:
    """Send the signal again if Python swallowed `KeyboardInterrupt` in a finalizer; show any other error."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _send_again(signal.SIGINT)
    else:
        sys.__unraisablehook__(unraisable)


def _send_again(number: int) -> None:
    timer = threading.Timer(RETRY_SECONDS, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
