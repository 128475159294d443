"""A program in a real terminal, and what stands on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyte

from tests.support.program import LONGEST


class Terminal:
    """A terminal in which a program runs.

    Args:
        program: The running program.
        end: The end of the terminal that a person would look at.
        size: Columns and lines.
    """

    def __init__(self, program: subprocess.Popen[bytes], end: int, size: tuple[int, int]) -> None:
        self.program, self._end = program, end
        self._screen = pyte.HistoryScreen(*size, history=10_000, ratio=1)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def lines(self) -> list[str]:
        """The lines on the screen that are not empty, from the top."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def all_lines(self) -> list[str]:
        """The lines that have left the screen at its top, and those on it."""
        above = [
            "".join(row[column].data for column in range(self._screen.columns)) for row in self._screen.history.top
        ]
        return [*(line.rstrip() for line in above), *self.lines]

    def read_until(self, reached: Callable[[list[str]], bool]) -> list[str]:
        """Read until the lines on the screen meet a condition, and return them."""
        deadline = time.monotonic() + LONGEST
        while not reached(self.lines):
            assert time.monotonic() < deadline, "\n".join(self.lines)
            assert self._read(), "\n".join(self.all_lines)
        return self.lines

    def read_to_the_end(self) -> int:
        """Read until the program ends, and return its exit status."""
        while self._read():
            pass
        return self.program.wait(LONGEST)

    def _read(self) -> bool:
        """Read what the program has written. Return False if the terminal is closed."""
        if not select.select([self._end], [], [], 1.0)[0]:
            return True
        try:
            written = os.read(self._end, 65_536)
        except OSError:  # the last program that had it open is gone
            return False
        self._stream.feed(written)
        return bool(written)


@contextmanager
def in_terminal(command: Sequence[str], folder: Path, size: tuple[int, int]) -> Iterator[Terminal]:
    """Run a command in a terminal of so many columns and lines. A program that is left at the end is killed."""
    ours, theirs = pty.openpty()
    columns, lines = size
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    program = subprocess.Popen(
        command,
        cwd=folder,
        env=environment | {"TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        close_fds=True,
    )
    os.close(theirs)
    try:
        yield Terminal(program, ours, size)
    finally:
        if program.poll() is None:
            program.terminate()
            program.wait(LONGEST)
        os.close(ours)
