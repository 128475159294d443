"""What a terminal shows of trainings that are under way: a line for each, and one for the study above them.

Epoch, bar and time left are always shown. What follows them is cut off at the edge of the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from pneumo.spec.candidate import Candidate
from pneumo.spec.wording import describe_candidate

REFRESHES = 4
"""Number of times that the terminal is drawn in a second."""

ENDING = "ending"
"""What is shown in place of the time left while a trained network is judged and recorded."""

_WIDE = 100
"""Columns of a terminal in which a bar has its full width."""


@dataclass(frozen=True)
class TrainingLine:
    """The line of a training.

    Attributes:
        name: What is trained, such as `trial 7`.
        epoch: The epoch under way, from 1.
        epochs: The last epoch.
        done: The share that is trained, from 0 to 1; None if nothing is known yet.
        seconds_left: Estimated seconds until the last epoch ends; None if nothing is known yet.
        note: The value after the last epoch, and the hyperparameters.
    """

    name: str
    epoch: int
    epochs: int
    done: float | None
    seconds_left: float | None
    note: str


@dataclass(frozen=True)
class StudyLine:
    """The line of a study. It is broken between its parts only, if the terminal is too narrow.

    Attributes:
        parts: What is said, most important first, such as `3 of 8 trials done`.
    """

    parts: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in join_parts(self.parts, options.max_width - 2):
            yield Text(f"  {line}", no_wrap=True, overflow="ellipsis", style="bold")


def join_parts(parts: Sequence[str], width: int) -> list[str]:
    """Return lines of the parts, separated by commas, none of them longer than `width` unless a part is."""
    lines: list[str] = []
    for position, part in enumerate(parts):
        text = part if position == len(parts) - 1 else f"{part},"
        if lines and len(lines[-1]) + 1 + len(text) <= width:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return lines


def training_table(lines: Sequence[TrainingLine], width: int) -> Table:
    """Return the lines of trainings for a terminal with so many columns."""
    table = Table.grid(
        Column(no_wrap=True),
        Column(no_wrap=True, justify="right"),
        Column(no_wrap=True),
        Column(no_wrap=True, style="progress.remaining"),
        Column(no_wrap=True, ratio=1, overflow="ellipsis", style="dim"),
        padding=(0, 1, 0, 0),
        expand=True,
    )
    bar_width = 24 if width >= _WIDE else 12
    for line in lines:
        done = 0.0 if line.done is None else line.done
        table.add_row(
            Text(f"  {line.name}", style="bold"),
            f"epoch {line.epoch}/{line.epochs}",
            ProgressBar(total=1.0, completed=done, width=bar_width, pulse=line.done is None),
            Text(ENDING if line.done == 1 else _clock(line.seconds_left)),
            Text(line.note),
        )
    return table


def format_duration(seconds: float) -> str:
    """Return a duration for people, as `40 s`, `14 min` or `2 h 05 min`."""
    if seconds < 60:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" + (f" {minutes % 60:02d} min" if minutes % 60 else "")


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--:--"
    whole = round(max(0.0, seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


@dataclass(frozen=True)
class _UnderWay:
    """A training under way. Times are in seconds by a clock that nobody sets; `first` and `last` are (time, share done)."""

    line: TrainingLine
    first_epoch: int
    started: float
    hyperparameters: str
    first: tuple[float, float] | None = None
    last: tuple[float, float] | None = None

    def at(self, now: float) -> TrainingLine:
        """Return the line, with the time that is left now."""
        if self.first is None or self.last is None or self.last[1] <= self.first[1]:
            return self.line
        seconds = (self.last[0] - self.first[0]) / (self.last[1] - self.first[1]) * (1 - self.last[1])
        return replace(self.line, seconds_left=max(0.0, seconds - (now - self.last[0])))


class TrainingProgress:
    """A live line for each training that is under way. There is none if the console is no terminal.

    The lines stand while the context lasts.

    Args:
        console: Where the lines go.
        objective: The metric that is shown after each epoch.
        study_line: Returns the line above the trainings; None for no such line.
        shown_objective: The name by which the metric is shown; its own by default.
    """

    def __init__(
        self,
        console: Console,
        objective: str,
        study_line: Callable[[], StudyLine | None] = lambda: None,
        shown_objective: str | None = None,
    ) -> None:
        self._console, self._objective, self._study_line = console, objective, study_line
        self._shown_objective = shown_objective or objective
        self._under_way: dict[int, _UnderWay] = {}
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=REFRESHES, transient=True, screen=False
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def start(self, training: int, candidate: Candidate, name: str = "") -> None:
        """Add the line of a training, which is known by its number from here on."""
        hyperparameters = describe_candidate(candidate)
        name = name or f"trial {candidate.number}"
        epoch = candidate.first_epoch + 1
        line = TrainingLine(name, epoch, candidate.epochs, None, None, hyperparameters)
        self._under_way[training] = _UnderWay(line, candidate.first_epoch, time.monotonic(), hyperparameters)

    def step(self, training: int, epoch: int, step: int, steps: int) -> None:
        """Show that a training is at `step` of the `steps` of `epoch`, both counted from 1."""
        under_way = self._under_way[training]
        total = (under_way.line.epochs - under_way.first_epoch) * steps
        done = ((epoch - 1 - under_way.first_epoch) * steps + step) / total
        now = (time.monotonic(), done)
        line = replace(under_way.line, epoch=epoch, done=done)
        self._under_way[training] = replace(under_way, line=line, first=under_way.first or now, last=now)

    def epoch(self, training: int, metrics: Mapping[str, float]) -> None:
        """Show the objective after an epoch."""
        under_way = self._under_way[training]
        if self._objective in metrics:
            value = f"{self._shown_objective} {metrics[self._objective]:.4f}"
            line = replace(under_way.line, note=f"{value}  {under_way.hyperparameters}")
            self._under_way[training] = replace(under_way, line=line)

    def stop(self, training: int) -> float | None:
        """Remove the line of a training and return its seconds; None if it was not started."""
        under_way = self._under_way.pop(training, None)
        return None if under_way is None else time.monotonic() - under_way.started

    def _render(self) -> RenderableType:
        now = time.monotonic()
        lines = [under_way.at(now) for under_way in list(self._under_way.values())]
        study_line = self._study_line()
        table = training_table(lines, self._console.width)
        return Group(study_line, table) if study_line else table
