"""What a search shows: its header, a line for each training, and the tables at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pneumo.console.display import TrainingProgress, say
from pneumo.search.loop import Training
from pneumo.spec.best import baseline_trial, best_first, best_metric
from pneumo.spec.comparison import Comparison
from pneumo.spec.experiment import Experiment
from pneumo.spec.names import Metrics
from pneumo.spec.objective import epoch_metric
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.selection import Confirmation, metric_value, pareto_front
from pneumo.spec.wording import (
    describe_bound,
    describe_candidate,
    describe_confirmation,
    describe_gain,
    describe_stress,
    format_hyperparameter,
    format_value,
)

TABLE_ROWS = 5
"""Trials in the table at the end."""

COLOURS = {"complete": "green", "pruned": "yellow", "failed": "red"}


class TrialListener:
    """A `Listener` of a search: a live line for each trial under way, and a line for each finished one.

    Args:
        experiment: The study's experiment.
        console: Where the lines go.
        finished_trials: The trials of earlier searches; the best of all is shown beside each new one.
    """

    def __init__(self, experiment: Experiment, console: Console, finished_trials: Sequence[Trial] = ()) -> None:
        self._experiment, self._console = experiment, console
        self._objectives = experiment.search.objectives
        self._finished_trials = list(finished_trials)
        self._progress = TrainingProgress(console, epoch_metric(self._objectives[0]))

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.__exit__(kind, error, at)

    def start(self, number: int, training: Training) -> None:
        self._progress.start(number, training.candidate)

    def step(self, number: int, epoch: int, step: int, steps: int) -> None:
        self._progress.step(number, epoch, step, steps)

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        self._progress.epoch(number, metrics)

    def finish(self, number: int, training: Training, result: TrialResult) -> None:
        seconds = self._progress.stop(number)
        self._finished_trials.append(Trial(training.candidate, result))
        count = f"{len(self._finished_trials):>4}/{self._expected_trainings}"
        line = Text(f"{count}  {self._name(training):<10}")
        line.append(f"{result.state:<9}", style=COLOURS[result.state])
        values = (format_value(metric_value(result, objective, self._objectives)) for objective in self._objectives)
        line.append(f"{' '.join(values):>9}  ")
        line.append(self._best_so_far(), style="bold")
        line.append(describe_candidate(training.candidate))
        if training.candidate.first_epoch:
            line.append(f"  epochs {training.candidate.first_epoch + 1} to {training.candidate.epochs}", style="dim")
        if seconds is not None:
            line.append(f"  {seconds:.0f} s", style="dim")
        if result.error:
            line.append(f"  {result.error}", style="red")
        self._console.print(line, soft_wrap=True)

    def run_again(self, number: int, training: Training, reason: str) -> None:
        self._progress.stop(number)
        line = Text(f"{'':>9}  {self._name(training):<10}")
        line.append("again    ", style="yellow")
        line.append(reason)
        self._console.print(line, soft_wrap=True)

    @property
    def _expected_trainings(self) -> int:
        return self._experiment.search.trials

    def _name(self, training: Training) -> str:
        return f"trial {training.candidate.number}"

    def _best_so_far(self) -> str:
        if len(self._objectives) > 1:
            return f"front of {len(pareto_front(self._finished_trials, self._objectives))}  "
        best = best_first(self._finished_trials, self._experiment)
        return f"best {format_value(best[0].result.value)} ({best[0].number})  " if best else ""


class ConfirmationListener(TrialListener):
    """A `Listener` of confirmations, of which `expected` are trained."""

    def __init__(self, experiment: Experiment, console: Console, expected: int) -> None:
        super().__init__(experiment, console)
        self._expected = expected

    @property
    def _expected_trainings(self) -> int:
        return self._expected

    def _name(self, training: Training) -> str:
        return f"confirmation of trial {training.candidate.number}, seed {training.seed}  "

    def _best_so_far(self) -> str:
        return ""


def show_header(
    console: Console, experiment: Experiment, split: str, store: str, finished_trials: Sequence[Trial]
) -> None:
    """Say what is about to run, on which pictures, and where it is recorded.

    Args:
        console: Where the lines go.
        experiment: The study's experiment.
        split: The pictures, as `data.split.describe_split` says them.
        store: The MLflow store, as it is shown.
        finished_trials: The trials of earlier searches.
    """
    search, names = experiment.search, [dimension.name for dimension in experiment.space.searched]
    if len(finished_trials) >= search.trials:
        trials = f"{len(finished_trials)} trials"
    elif finished_trials:
        trials = f"trials {len(finished_trials) + 1} to {search.trials}"
    else:
        trials = f"{search.trials} trials"
    say(
        console,
        f"Study {experiment.name}: {trials} by {search.engine}/{search.algorithm} for "
        f"{' and '.join(search.objectives)}, pruner {search.pruner}; searched: {', '.join(names) or 'nothing'}",
    )
    say(console, split)
    say(console, f"MLflow: {store}")


def show_results(
    console: Console,
    experiment: Experiment,
    finished_trials: Sequence[Trial],
    confirmed: Sequence[Confirmation] = (),
    compare: Callable[[Trial, Trial], Comparison | None] = lambda best, baseline: None,
) -> None:
    """Show the best trials or the Pareto front, the confirmations, and the gain over the tutorial's network.

    Args:
        console: Where the lines go.
        experiment: The study's experiment.
        finished_trials: Its finished trials.
        confirmed: The confirmed trials, best first.
        compare: Returns the difference between the best trial and the baseline with its interval, if there is one.
    """
    objectives, rule = experiment.search.objectives, experiment.promote.rule
    best = best_first(finished_trials, experiment, confirmed)
    if len(objectives) > 1:
        front = pareto_front(finished_trials, objectives)
        title = f"The Pareto front: {len(front)} of {len(finished_trials)} trials"
        console.print(_trial_table(title, front, experiment))
    else:
        title = f"The best {min(TABLE_ROWS, len(best))} of {len(finished_trials)} trials"
        console.print(_trial_table(title, best[:TABLE_ROWS], experiment))
    if rule:
        bounds = "".join(f", {metric} {describe_bound(bound)}" for metric, bound in rule.subject_to.items())
        chosen = f"trial {best[0].number}" if best else "no trial keeps its bounds"
        say(console, f"By the rule of promotion ({rule.direction} {rule.metric}{bounds}): {chosen}.")
    elif len(objectives) > 1:
        say(
            console,
            "To say which of them is the best, add a rule to the experiment, as in "
            "promote: {max: val_auc, subject_to: {parameters: {max: 500000}}}",
        )
    if confirmed:
        console.print(_confirmation_table(confirmed, experiment))
        say(console, describe_confirmation(confirmed[0], experiment))
    baseline = baseline_trial(finished_trials, experiment)
    if best and baseline and len(objectives) == 1:
        say(console, describe_gain(best[0], baseline, objectives[0], compare(best[0], baseline)))
    if best and (stress := describe_stress(best[0])):
        say(console, stress)


def _trial_table(title: str, trials: Sequence[Trial], experiment: Experiment) -> Table:
    objectives = experiment.search.objectives
    names = [dimension.name for dimension in experiment.space.searched]
    columns = [*objectives]
    if (
        any(Metrics.VAL_STRESS_AUC in trial.result.metrics for trial in trials)
        and Metrics.VAL_STRESS_AUC not in columns
    ):
        columns.append(Metrics.VAL_STRESS_AUC)
    table = Table(title=title, title_justify="left")
    table.add_column("trial", justify="right")
    for objective in columns:
        table.add_column(objective, justify="right", style="bold", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for trial in trials:
        values = trial.candidate.hyperparameters
        reached = [format_value(metric_value(trial.result, metric, objectives)) for metric in columns]
        cells = [format_hyperparameter(values[name]) if name in values else "" for name in names]
        table.add_row(str(trial.number), *reached, *cells)
    return table


def _confirmation_table(confirmed: Sequence[Confirmation], experiment: Experiment) -> Table:
    metric, direction = best_metric(experiment)
    table = Table(title=f"Confirmed with other seeds: mean {metric}, best first", title_justify="left")
    for name in ("trial", "seeds", "mean", "95 % interval", "in the search", "luck"):
        table.add_column(name, justify="right", style="bold" if name == "mean" else None)
    for trial in confirmed:
        interval = "-" if trial.low is None else f"{format_value(trial.low)} to {format_value(trial.high)}"
        luck = f"{trial.luck(direction):+.4f}"
        cells = (format_value(trial.mean), interval, format_value(trial.first), luck)
        table.add_row(str(trial.number), str(len(trial.values)), *cells)
    return table
