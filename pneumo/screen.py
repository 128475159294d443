"""What a search shows: a line a trial, a live line for the epoch under way, a table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pneumo.compute.place import Progress as Step
from pneumo.compute.place import Report
from pneumo.spec.best import best_first, best_metric
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.selection import Bound, Confirmed, pareto_front, value_of

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

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def preparing(self, source: Source) -> Prepared:
        """The source's pictures, decoded for the sizes of the space, with a bar while it takes time."""
        from pneumo.data.prepare import prepare

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
                self._experiment.image_sizes,
                self._experiment.data.validation,
                self._experiment.search.seed,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                say=lambda line: print(line, file=sys.stderr),
            )

    def header(self, data: Prepared, store: str, told: Sequence[Trial]) -> None:
        """What is about to run, on which pictures, and where it is recorded."""
        search, searched = self._experiment.search, [d.name for d in self._experiment.space.searched]
        of = f"{search.trials} trials" if not told else f"trials {len(told) + 1} to {search.trials}"
        if len(told) >= search.trials:
            of = f"{len(told)} trials"
        self.say(
            f"Study {self._experiment.name}: {of} by {search.engine}/{search.algorithm} for "
            f"{' and '.join(search.objectives)}, pruner {search.pruner}; searched: {', '.join(searched) or 'nothing'}"
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
            "",
            number=number,
            epoch=candidate.first_epoch + 1,
            first=candidate.first_epoch,
            epochs=candidate.epochs,
            total=None,
            said=tried(candidate),
        )

    def step(self, event: Step) -> None:
        task = self._tasks[event.number]
        fields = next(t.fields for t in self._progress.tasks if t.id == task)
        done = (event.epoch - 1 - fields["first"]) * event.steps + event.step
        total = (fields["epochs"] - fields["first"]) * event.steps
        self._progress.update(task, completed=done, total=total, epoch=event.epoch)

    def epoch(self, report: Report) -> None:
        objective = self._experiment.search.objectives[0]
        if objective in report.metrics:
            self._progress.update(self._tasks[report.number], said=f"{objective} {report.metrics[objective]:.4f}")

    def ended(self, trial: Trial, trials: Sequence[Trial], of: int) -> None:
        """The line of a trial that was told; `trials` are all told so far, this one among them."""
        if trial.number in self._tasks:
            self._progress.remove_task(self._tasks.pop(trial.number))
        result = trial.result
        line = Text(f"{len(trials):>4}/{of}  {self._name(trial.candidate):<10}")
        line.append(f"{result.state:<9}", style=COLOURS[result.state])
        line.append(f"{self._values(result):>9}  ")
        line.append(self._standing(trials), style="bold")
        line.append(tried(trial.candidate))
        if trial.candidate.first_epoch:
            line.append(f"  epochs {trial.candidate.first_epoch + 1} to {trial.candidate.epochs}", style="dim")
        if trial.number in self._began:
            line.append(f"  {time.monotonic() - self._began.pop(trial.number):.0f} s", style="dim")
        if result.error:
            line.append(f"  {result.error}", style="red")
        self._console.print(line, soft_wrap=True)

    def table(self, trials: Sequence[Trial], confirmed: Sequence[Confirmed] = ()) -> None:
        """The best trials, or the Pareto front, and how far the best is beyond the tutorial's network."""
        objectives = self._experiment.search.objectives
        best = best_first(trials, self._experiment, confirmed)
        if len(objectives) > 1:
            front = pareto_front(trials, objectives)
            self._trials(f"The Pareto front: {len(front)} of {len(trials)} trials", front)
        else:
            self._trials(f"The best {min(BEST, len(best))} of {len(trials)} trials", best[:BEST])
        if rule := self._experiment.promote.rule:
            bounds = "".join(f", {metric} {_bounds(bound)}" for metric, bound in rule.subject_to.items())
            said = f"trial {best[0].number}" if best else "no trial keeps its bounds"
            self.say(f"By the rule of promotion ({rule.direction} {rule.metric}{bounds}): {said}.")
        elif len(objectives) > 1:
            self.say(
                "Which of them is best is yours to say: promote: {max: val_auc, subject_to: {parameters: {max: 500000}}}"
            )
        if confirmed:
            self._confirmations(confirmed)
        baseline = baseline_of(trials, self._experiment)
        if best and baseline and len(objectives) == 1:
            self.say(beyond(best[0], baseline, objectives[0]))

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
            reached = [shown(value_of(trial.result, objective, objectives)) for objective in objectives]
            cells = [short(values[name]) if name in values else "" for name in names]
            table.add_row(str(trial.number), *reached, *cells)
        self._console.print(table)

    def _confirmations(self, confirmed: Sequence[Confirmed]) -> None:
        metric, direction = best_metric(self._experiment)
        table = Table(title=f"Trained again: mean {metric}, best first", title_justify="left")
        for name in ("trial", "seeds", "mean", "95 % interval", "in the search", "luck"):
            table.add_column(name, justify="right", style="bold" if name == "mean" else None)
        for one in confirmed:
            interval = "-" if one.low is None else f"{shown(one.low)} to {shown(one.high)}"
            cells = (shown(one.mean), interval, shown(one.first), f"{one.luck(direction):+.4f}")
            table.add_row(str(one.number), str(len(one.values)), *cells)
        self._console.print(table)
        self.say(luck(confirmed[0], self._experiment))

    def _name(self, candidate: Candidate) -> str:
        return f"trial {candidate.number}"

    def _values(self, result: TrialResult) -> str:
        objectives = self._experiment.search.objectives
        return " ".join(shown(value_of(result, objective, objectives)) for objective in objectives)

    def _standing(self, trials: Sequence[Trial]) -> str:
        if len(self._experiment.search.objectives) > 1:
            return f"front of {len(pareto_front(trials, self._experiment.search.objectives))}  "
        best = best_first(trials, self._experiment)
        return f"best {shown(best[0].result.value)} ({best[0].number})  " if best else ""


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


def luck(best: Confirmed, experiment: Experiment) -> str:
    """What was confirmed of the best trial, in a sentence."""
    metric, direction = best_metric(experiment)
    lucky = best.luck(direction)
    interval = "" if best.low is None else f" (95 % interval {shown(best.low)} to {shown(best.high)})"
    said = f"{shown(abs(lucky))} {'better' if lucky >= 0 else 'worse'}"
    return (
        f"Trial {best.number} over {len(best.values)} other seeds: mean {metric} {shown(best.mean)}{interval}; the value that "
        f"the search saw, {shown(best.first)}, was {said}."
    )


def tried(candidate: Candidate) -> str:
    """What was searched in a candidate, as `layers=2 learning_rate=0.00034`."""
    values = candidate.hyperparameters
    return " ".join(f"{name}={short(values[name])}" for name in values if name in candidate.searched)


def _bounds(bound: Bound) -> str:
    ends = (("at least", bound.min), ("at most", bound.max))
    return " and ".join(f"{end} {value:,g}" for end, value in ends if value is not None)


def short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def shown(value: float | None) -> str:
    """A value of an objective: four places, or none where it is a count or large."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or (abs(value) > 1 and value.is_integer()) else f"{value:.4f}"
