"""What a search shows: a line a trial, a live line for the epoch under way, a table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pneumo.compute.place import Progress as Step
from pneumo.compute.place import Report
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.objective import OBJECTIVES, ranked
from pneumo.spec.result import Trial

if TYPE_CHECKING:
    from pneumo.data.pictures import Source
    from pneumo.data.prepare import Prepared
    from pneumo.data.split import Count

BEST = 5
"""Rows of the table at the end."""

COLOURS = {"complete": "green", "pruned": "yellow", "failed": "red"}


class Screen:
    """A context: the live line stands from its start to its end. Where output is no terminal there is none."""

    def __init__(self, experiment: Experiment, console: Console) -> None:
        self._experiment, self._console = experiment, console
        self._began: dict[int, float] = {}
        self._tasks: dict[int, TaskID] = {}
        self._value: dict[int, float] = {}
        self._progress = Progress(
            TextColumn("  [bold]trial {task.fields[number]}[/]  epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=24),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def preparing(self, source: Source) -> Prepared:
        """The source's pictures, decoded for the sizes of the space, with a bar while it takes time."""
        from pneumo.data.prepare import prepare

        space, search = self._experiment.space, self._experiment.search
        sizes = {*space.image_sizes(), *([int(space.baseline()["image_size"])] if search.baseline else [])}
        with Progress(
            TextColumn("  decoding pictures, once"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        ) as bar:
            task = bar.add_task("", total=None)
            return prepare(
                source,
                sorted(sizes),
                self._experiment.data.validation,
                search.seed,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                say=lambda line: print(line, file=sys.stderr),
            )

    def header(self, data: Prepared, store: str, told: Sequence[Trial]) -> None:
        """What is about to run, on which pictures, and where it is recorded."""
        search, searched = self._experiment.search, [d.name for d in self._experiment.space.searched]
        of = f"{search.trials} trials" if not told else f"trials {len(told) + 1} to {search.trials}"
        self.say(
            f"Study {self._experiment.name}: {of} by {search.engine}/{search.algorithm} for {search.objective}, "
            f"pruner {search.pruner}; searched: {', '.join(searched) or 'nothing'}"
        )
        self.counts(data.description, data.counts, data.classes)
        self.say(f"MLflow: {store}")

    def counts(self, description: str, counts: Sequence[Count], classes: Sequence[str]) -> None:
        """The split in two lines: where the pictures come from, how many stand where."""
        parts = {c.part: [of for of in counts if of.part == c.part] for c in counts}
        shown = []
        for part, of in parts.items():
            pictures, patients = sum(c.pictures for c in of), sum(c.patients for c in of)
            each = ", ".join(f"{c.pictures:,} {classes[c.label]}" for c in of)
            shown.append(f"{part} {pictures:,} ({each}) of {patients:,} patients{', sealed' if part == 'test' else ''}")
        self.say(f"Data: {description}\n  {'; '.join(shown)}")

    def begun(self, candidate: Candidate) -> None:
        number = candidate.number
        self._began[number] = time.monotonic()
        self._tasks[number] = self._progress.add_task(
            "", number=number, epoch=1, epochs=candidate.epochs, total=None, said=tried(candidate)
        )

    def step(self, event: Step) -> None:
        task = self._tasks[event.number]
        epochs = next(t.fields["epochs"] for t in self._progress.tasks if t.id == task)
        done = (event.epoch - 1) * event.steps + event.step
        self._progress.update(task, completed=done, total=epochs * event.steps, epoch=event.epoch)

    def epoch(self, report: Report) -> None:
        objective = self._experiment.search.objective
        if objective in report.metrics:
            self._progress.update(self._tasks[report.number], said=f"{objective} {report.metrics[objective]:.4f}")

    def ended(self, trial: Trial, trials: Sequence[Trial], of: int) -> None:
        """The line of a trial that was told; `trials` are all told so far, this one among them."""
        if trial.number in self._tasks:
            self._progress.remove_task(self._tasks.pop(trial.number))
        result, objective = trial.result, self._experiment.search.objective
        best = ranked(trials, objective)
        line = Text(f"{len(trials):>4}/{of}  trial {trial.number:<4}")
        line.append(f"{result.state:<9}", style=COLOURS[result.state])
        line.append(f"{shown(result.value):>9}  ")
        line.append(f"best {shown(best[0].result.value)} ({best[0].number})  " if best else "", style="bold")
        line.append(tried(trial.candidate))
        if trial.number in self._began:
            line.append(f"  {time.monotonic() - self._began.pop(trial.number):.0f} s", style="dim")
        if result.error:
            line.append(f"  {result.error}", style="red")
        self._console.print(line, soft_wrap=True)

    def table(self, trials: Sequence[Trial]) -> None:
        """The best trials, and how far the best is beyond the tutorial's network."""
        objective = self._experiment.search.objective
        best = ranked(trials, objective)
        names = [d.name for d in self._experiment.space.searched]
        table = Table(title=f"The best {min(BEST, len(best))} of {len(trials)} trials", title_justify="left")
        table.add_column("trial", justify="right")
        table.add_column(objective, justify="right", style="bold")
        for name in names:
            table.add_column(name, justify="right")
        for trial in best[:BEST]:
            values = trial.candidate.hyperparameters
            cells = [short(values[name]) if name in values else "" for name in names]
            table.add_row(str(trial.number), shown(trial.result.value), *cells)
        self._console.print(table)
        if baseline := baseline_of(trials, self._experiment):
            self.say(beyond(best[0], baseline, objective))


def baseline_of(trials: Sequence[Trial], experiment: Experiment) -> Trial | None:
    """The trial of the tutorial's own network, if there is one and it has ended."""
    return next((t for t in trials if t.number == 0 and experiment.search.baseline), None)


def beyond(best: Trial, baseline: Trial, objective: str) -> str:
    """How far the best trial is beyond the tutorial's network, in a sentence."""
    value, base = best.result.value, baseline.result.value
    if baseline.result.state != "complete" or value is None or base is None:
        return f"The tutorial's network (trial {baseline.number}) {baseline.result.state}: nothing to compare with."
    if best.number == baseline.number:
        return f"The tutorial's own network (trial {baseline.number}) is still the best: {objective} {shown(base)}."
    gain = value - base if OBJECTIVES[objective] == "maximize" else base - value
    return (
        f"Trial {best.number} reaches {objective} {shown(value)}, {shown(abs(gain))} "
        f"{'better' if gain >= 0 else 'worse'} than the tutorial's network ({shown(base)}, trial {baseline.number})."
    )


def tried(candidate: Candidate) -> str:
    """What was searched in a candidate, as `layers=2 learning_rate=0.00034`."""
    values = candidate.hyperparameters
    return " ".join(f"{name}={short(values[name])}" for name in values if name in candidate.searched)


def short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def shown(value: float | None) -> str:
    """A value of the objective: four places, or a whole number where it is large."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"
