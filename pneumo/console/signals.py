"""Ctrl-C, SIGTERM and SIGHUP: raised at a safe instant, or noted for a clean end."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any, Self, TextIO

RETRY_SECONDS = 0.05
"""Seconds until a signal that could not raise `KeyboardInterrupt` is sent again."""


def install_handlers() -> None:
    """Raise `KeyboardInterrupt` at Ctrl-C, SIGTERM and SIGHUP, so that all of them close what is open in the same way.

    From then on, output that nobody can receive any more does not break a clean end.
    """
    for number in _handled_signals():
        signal.signal(number, _raise_interrupt)
    sys.unraisablehook = _retry_interrupt
    sys.stdout, sys.stderr = _without_reader(sys.stdout), _without_reader(sys.stderr)


class Interruption:
    """Whether the user asked for a clean end. Call it to find out.

    Within the context, the first Ctrl-C or SIGTERM is noted and changes nothing else; the second raises
    `KeyboardInterrupt`. A SIGHUP is noted like the first. It never counts as the second, because a terminal that is
    closed sends several. Outside the context a signal raises at once.
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
        self._restore_handlers(self._previous_handlers)

    def _note(self, number: int, frame: FrameType | None) -> None:
        _Output.is_ending = self._requested = True
        self._restore_handlers(set(self._previous_handlers) - {signal.SIGHUP})

    def _restore_handlers(self, numbers: Iterable[signal.Signals]) -> None:
        for number in numbers:
            signal.signal(number, self._previous_handlers[number])


def _handled_signals() -> list[signal.Signals]:
    """Return the signals that end a command, without those that the caller of this process ignores.

    A shell script that runs a command in the background has it ignore Ctrl-C, and `nohup` has it ignore SIGHUP.
    """
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in ending if signal.getsignal(number) is not signal.SIG_IGN]


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    """Raise `KeyboardInterrupt`, but during an import only after its end.

    A library that is being imported may swallow the exception, and a library whose import was broken off cannot be
    imported again by the code that ends the command.
    """
    _Output.is_ending = True
    caller = frame
    while caller is not None:
        if caller.f_code.co_filename.startswith("<frozen importlib"):
            _send_again(number)
            return
        caller = caller.f_back
    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_IGN)  # a closed terminal sends several; the next must not break the clean end
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


class _Output(io.FileIO):
    """Standard output or error, which drops what is written to a closed terminal.

    Ctrl-C and a closed terminal also end the `tee` at the other end of a pipe. So after a signal, what is written to a pipe
    without a reader is dropped too. Before, it raises, so that `head` ends a command.

    Attributes:
        is_ending: Whether a signal has arrived.
    """

    is_ending = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno == errno.EIO or (error.errno == errno.EPIPE and _Output.is_ending):
                return memoryview(data).nbytes
            raise


def _without_reader(stream: TextIO) -> TextIO:
    """Return a stream of the same file that drops what nobody can receive. A stream that is no file is returned as it is."""
    if not isinstance(stream, io.TextIOWrapper) or stream.name not in ("<stdout>", "<stderr>"):
        return stream
    stream.flush()
    output = _Output(stream.fileno(), "wb", closefd=False)
    is_buffered = isinstance(stream.buffer, io.BufferedWriter)
    return io.TextIOWrapper(
        io.BufferedWriter(output) if is_buffered else output,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
