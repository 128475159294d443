"""What a search shows: a line a trial, a live line for the epoch under way, a table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pneumo.spec.best import baseline_trial, best_first, best_metric
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.selection import Confirmation, metric_value, pareto_front
from pneumo.spec.wording import (
    describe_bound,
    describe_candidate,
    describe_confirmation,
    describe_gain,
    format_hyperparameter,
    format_value,
)

LOG_WIDTH = 160
"""Columns of a table in a log: a file has no width, and Rich would assume 80 and cut the tables."""

BEST = 5
"""Rows of the table at the end."""

COLOURS = {"complete": "green", "pruned": "yellow", "failed": "red"}


def open_console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error, wide enough for tables if that is no terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else LOG_WIDTH)


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

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def header(self, pictures: str, store: str, told: Sequence[Trial]) -> None:
        """What is about to run, on which `pictures` (see `data.split.describe_split`), and where it is recorded."""
        search, searched = self._experiment.search, [d.name for d in self._experiment.space.searched]
        of = f"{search.trials} trials" if not told else f"trials {len(told) + 1} to {search.trials}"
        if len(told) >= search.trials:
            of = f"{len(told)} trials"
        self.say(
            f"Study {self._experiment.name}: {of} by {search.engine}/{search.algorithm} for "
            f"{' and '.join(search.objectives)}, pruner {search.pruner}; searched: {', '.join(searched) or 'nothing'}"
        )
        self.say(pictures)
        self.say(f"MLflow: {store}")

    def begun(self, candidate: Candidate) -> None:
        number = candidate.number
        self._began[number] = time.monotonic()
        self._tasks[number] = self._progress.add_task(
            "",
            number=number,
            epoch=candidate.first_epoch + 1,
            first=candidate.first_epoch,
            epochs=candidate.epochs,
            total=None,
            said=describe_candidate(candidate),
        )

    def step(self, number: int, epoch: int, step: int, steps: int) -> None:
        task = self._tasks[number]
        fields = next(t.fields for t in self._progress.tasks if t.id == task)
        done = (epoch - 1 - fields["first"]) * steps + step
        total = (fields["epochs"] - fields["first"]) * steps
        self._progress.update(task, completed=done, total=total, epoch=epoch)

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        objective = self._experiment.search.objectives[0]
        if objective in metrics:
            self._progress.update(self._tasks[number], said=f"{objective} {metrics[objective]:.4f}")

    def ended(self, trial: Trial, trials: Sequence[Trial], of: int) -> None:
        """The line of a trial that was told; `trials` are all told so far, this one among them."""
        if trial.number in self._tasks:
            self._progress.remove_task(self._tasks.pop(trial.number))
        result = trial.result
        line = Text(f"{len(trials):>4}/{of}  {self._name(trial.candidate):<10}")
        line.append(f"{result.state:<9}", style=COLOURS[result.state])
        line.append(f"{self._values(result):>9}  ")
        line.append(self._standing(trials), style="bold")
        line.append(describe_candidate(trial.candidate))
        if trial.candidate.first_epoch:
            line.append(f"  epochs {trial.candidate.first_epoch + 1} to {trial.candidate.epochs}", style="dim")
        if trial.number in self._began:
            line.append(f"  {time.monotonic() - self._began.pop(trial.number):.0f} s", style="dim")
        if result.error:
            line.append(f"  {result.error}", style="red")
        self._console.print(line, soft_wrap=True)

    def table(self, trials: Sequence[Trial], confirmed: Sequence[Confirmation] = ()) -> None:
        """The best trials, or the Pareto front, and how far the best is beyond the tutorial's network."""
        objectives = self._experiment.search.objectives
        best = best_first(trials, self._experiment, confirmed)
        if len(objectives) > 1:
            front = pareto_front(trials, objectives)
            self._trials(f"The Pareto front: {len(front)} of {len(trials)} trials", front)
        else:
            self._trials(f"The best {min(BEST, len(best))} of {len(trials)} trials", best[:BEST])
        if rule := self._experiment.promote.rule:
            kept = "".join(f", {metric} {describe_bound(bound)}" for metric, bound in rule.subject_to.items())
            said = f"trial {best[0].number}" if best else "no trial keeps its bounds"
            self.say(f"By the rule of promotion ({rule.direction} {rule.metric}{kept}): {said}.")
        elif len(objectives) > 1:
            self.say(
                "Which of them is best is yours to say: promote: {max: val_auc, subject_to: {parameters: {max: 500000}}}"
            )
        if confirmed:
            self._confirmations(confirmed)
        baseline = baseline_trial(trials, self._experiment)
        if best and baseline and len(objectives) == 1:
            self.say(describe_gain(best[0], baseline, objectives[0]))

    def _trials(self, title: str, trials: Sequence[Trial]) -> None:
        objectives, names = self._experiment.search.objectives, [d.name for d in self._experiment.space.searched]
        table = Table(title=title, title_justify="left")
        table.add_column("trial", justify="right")
        for objective in objectives:
            table.add_column(objective, justify="right", style="bold", overflow="fold")
        for name in names:
            table.add_column(name, justify="right", overflow="fold")
        for trial in trials:
            values = trial.candidate.hyperparameters
            reached = [format_value(metric_value(trial.result, objective, objectives)) for objective in objectives]
            cells = [format_hyperparameter(values[name]) if name in values else "" for name in names]
            table.add_row(str(trial.number), *reached, *cells)
        self._console.print(table)

    def _confirmations(self, confirmed: Sequence[Confirmation]) -> None:
        metric, direction = best_metric(self._experiment)
        table = Table(title=f"Trained again: mean {metric}, best first", title_justify="left")
        for name in ("trial", "seeds", "mean", "95 % interval", "in the search", "luck"):
            table.add_column(name, justify="right", style="bold" if name == "mean" else None)
        for one in confirmed:
            interval = "-" if one.low is None else f"{format_value(one.low)} to {format_value(one.high)}"
            cells = (format_value(one.mean), interval, format_value(one.first), f"{one.luck(direction):+.4f}")
            table.add_row(str(one.number), str(len(one.values)), *cells)
        self._console.print(table)
        self.say(describe_confirmation(confirmed[0], self._experiment))

    def _name(self, candidate: Candidate) -> str:
        return f"trial {candidate.number}"

    def _values(self, result: TrialResult) -> str:
        objectives = self._experiment.search.objectives
        return " ".join(format_value(metric_value(result, objective, objectives)) for objective in objectives)

    def _standing(self, trials: Sequence[Trial]) -> str:
        if len(self._experiment.search.objectives) > 1:
            return f"front of {len(pareto_front(trials, self._experiment.search.objectives))}  "
        best = best_first(trials, self._experiment)
        return f"best {format_value(best[0].result.value)} ({best[0].number})  " if best else ""


class ConfirmScreen(Screen):
    """A screen for trainings that repeat a trial of the search. `of` gives its number and the seed."""

    def __init__(self, experiment: Experiment, console: Console, of: Callable[[Candidate], tuple[int, int]]) -> None:
        super().__init__(experiment, console)
        self._of = of

    def _name(self, candidate: Candidate) -> str:
        number, seed = self._of(candidate)
        return f"again trial {number}, seed {seed}  "

    def _standing(self, trials: Sequence[Trial]) -> str:
        return ""
