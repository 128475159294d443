"""A progress bar for predictions, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A progress bar. `update` takes the number of finished pictures; `say` prints a line above the bar."""

    update: Callable[[int], None]
    say: Callable[[str], None]


@contextmanager
def prediction_bar(pictures: int) -> Iterator[Bar]:
    """Show a progress bar if standard error is a terminal and standard output is not.

    On a terminal the rows on standard output show the progress themselves.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("  predicting"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal or sys.stdout.isatty(),
        redirect_stdout=False,  # otherwise the predictions would be written to standard error
    ) as bar:
        task = bar.add_task("", total=pictures)
        yield Bar(
            lambda finished: bar.update(task, completed=finished),
            lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
        )
