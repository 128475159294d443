"""Consoles, progress bars, and the live lines of trainings."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from pneumo.spec.candidate import Candidate
from pneumo.spec.wording import describe_candidate

LOG_WIDTH = 160
"""Columns of a table in a log. A file has no width; Rich would assume 80 and cut the tables."""


def open_console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error, wide enough for tables if that is no terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else LOG_WIDTH)


def say(console: Console, line: str) -> None:
    """Print a line as it is. Only the terminal wraps it, so that a command in it can be copied."""
    console.print(Text(line), soft_wrap=True)


@contextmanager
def progress_bar(description: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the context lasts, if the console is a terminal. The default console is standard error.

    The context gives a function that takes how many items are done and how many there are in all.
    """
    console = console or open_console(stderr=True)
    with Progress(
        TextColumn(f"  {description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class TrainingProgress:
    """A live line for each training that is under way. There is none if the console is no terminal.

    The lines stand while the context lasts.

    Args:
        console: Where the lines go.
        objective: The metric that is shown after each epoch.
    """

    def __init__(self, console: Console, objective: str) -> None:
        self._objective = objective
        self._started: dict[int, float] = {}
        self._tasks: dict[int, TaskID] = {}
        self._bars = Progress(
            TextColumn("  [bold]trial {task.fields[number]}[/]  epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=24),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def start(self, training: int, candidate: Candidate) -> None:
        """Add the line of a training, which is known by its number from here on."""
        self._started[training] = time.monotonic()
        self._tasks[training] = self._bars.add_task(
            "",
            number=candidate.number,
            epoch=candidate.first_epoch + 1,
            first_epoch=candidate.first_epoch,
            epochs=candidate.epochs,
            total=None,
            note=describe_candidate(candidate),
        )

    def step(self, training: int, epoch: int, step: int, steps: int) -> None:
        """Show that a training is at `step` of the `steps` of `epoch`, both counted from 1."""
        task = self._tasks[training]
        fields = next(bar.fields for bar in self._bars.tasks if bar.id == task)
        done = (epoch - 1 - fields["first_epoch"]) * steps + step
        total = (fields["epochs"] - fields["first_epoch"]) * steps
        self._bars.update(task, completed=done, total=total, epoch=epoch)

    def epoch(self, training: int, metrics: Mapping[str, float]) -> None:
        """Show the objective after an epoch."""
        if self._objective in metrics:
            self._bars.update(self._tasks[training], note=f"{self._objective} {metrics[self._objective]:.4f}")

    def stop(self, training: int) -> float | None:
        """Remove the line of a training and return its seconds; None if it was not started."""
        if training not in self._tasks:
            return None
        self._bars.remove_task(self._tasks.pop(training))
        return time.monotonic() - self._started.pop(training)
