"""Consoles, lines and progress bars."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

LOG_WIDTH = 160
"""Columns of a table in a log. A file has no width; Rich would assume 80 and cut the tables."""


def open_console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error, wide enough for tables if that is no terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else LOG_WIDTH)


def say(console: Console, line: str | Text, indent: int = 0) -> None:
    """Print a line. A terminal that is too narrow for it gets several, broken between words.

    A word that is longer than the terminal, as an address, is printed as it is. A command is for `say_command`.

    Args:
        console: Where the line goes.
        line: The line, or several with line breaks between them.
        indent: Columns by which all but the first of the lines of a broken line are indented.
    """
    text = Text(line) if isinstance(line, str) else line
    if not console.is_terminal:
        console.print(text, soft_wrap=True)
        return
    for part in text.split(allow_blank=True) if text.plain else [text]:
        for wrapped in _wrap(console, part, indent):
            console.print(wrapped, soft_wrap=True)


def say_command(console: Console, line: str) -> None:
    """Print a line that has a command in it. Only the terminal breaks it, so that the command can be copied."""
    console.print(Text(line), soft_wrap=True)


def _wrap(console: Console, line: Text, indent: int) -> list[Text]:
    """Return a line broken between words for a console's width."""
    own_indent = len(line.plain) - len(line.plain.lstrip())
    indentation = " " * (indent or own_indent)
    first, *rest = line.divide(_breaks(line.plain, console.width, console.width - len(indentation))) or [line]
    lines = [first, *(Text(indentation) + part for part in rest)]
    for part in lines:
        part.rstrip()
    return lines


def _breaks(line: str, width: int, later_width: int) -> list[int]:
    """Return where the second line and each later one starts, if the first has `width` columns and the others `later_width`."""
    starts, start, has_word = [], 0, False
    for word in re.finditer(r"\S+", line):
        if has_word and cell_len(line[start : word.end()]) > width:
            start, width = word.start(), later_width
            starts.append(start)
        has_word = True
    return starts


class Bar:
    """A bar from the first item to the last. Call it with how many items are done and how many there are in all.

    Before the first and after the last item nothing is shown, so that lines on another stream do not break the bar.

    Attributes:
        was_used: Whether it was called: nothing was done if not, because a cache had it.
    """

    def __init__(self, description: str, console: Console) -> None:
        self.was_used = False
        self._progress = Progress(
            TextColumn(f"  {description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)

    def __call__(self, done: int, total: int) -> None:
        self.was_used = True
        self._progress.update(self._task, completed=done, total=total)
        if done < total:
            self._progress.start()
        else:
            self.close()

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._progress.live.is_started:
            self._progress.stop()


@contextmanager
def progress_bar(description: str, console: Console | None = None) -> Iterator[Bar]:
    """Show a bar while the context lasts, if the console is a terminal. The default console is standard error."""
    bar = Bar(description, console or open_console(stderr=True))
    try:
        yield bar
    finally:
        bar.close()
