"""What a search shows while it runs: its header, the live lines, and a line for each finished training."""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.text import Text

from pneumo.console.display import say
from pneumo.console.trainings import StudyLine, TrainingProgress, format_duration
from pneumo.search.loop import Training
from pneumo.spec.best import best_first
from pneumo.spec.experiment import Experiment
from pneumo.spec.objective import epoch_metric, epoch_objective
from pneumo.spec.result import State, Trial, TrialResult
from pneumo.spec.selection import metric_value, pareto_front
from pneumo.spec.standing import Standing
from pneumo.spec.wording import (
    count_of,
    describe_candidate,
    format_value,
)

if TYPE_CHECKING:
    from pneumo.data.audit import Finding

TRIAL_INDENT = 18
"""Columns of the count before a finished trial, by which the rest of its line is indented if it is broken."""

MOST_WARNINGS, LONGEST_WARNING = 3, 200
"""Warnings of the audit that are shown when a search starts, and the largest number of characters of one."""

COLOURS = {"complete": "green", "pruned": "yellow", "failed": "red"}


class TrialListener:
    """A `Listener` of a search: live lines for the study and each trial under way, and a line for each finished trial.

    Args:
        experiment: The study's experiment.
        console: Where the lines go.
        finished_trials: The trials of earlier searches; the best of all is shown beside each new one.
        read_trials: Returns all finished trials, if other searches share the study; otherwise None.
    """

    def __init__(
        self,
        experiment: Experiment,
        console: Console,
        finished_trials: Sequence[Trial] = (),
        read_trials: Callable[[], Sequence[Trial]] | None = None,
    ) -> None:
        self._read_trials = read_trials
        self._experiment, self._console = experiment, console
        self._objectives = experiment.search.objectives
        self._standing = Standing(experiment, 1)
        self._standing.add(*finished_trials)
        self._budget = Budget(experiment.search.timeout)
        self._running = 0
        self._best = self._best_so_far()
        objective = epoch_objective(self._objectives)
        self._progress = TrainingProgress(console, epoch_metric(objective), self._study_line, objective)

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.__exit__(kind, error, at)

    def start(self, number: int, training: Training) -> None:
        self._running += 1
        self._progress.start(number, training.candidate, self._name(training))

    def step(self, number: int, epoch: int, step: int, steps: int) -> None:
        self._progress.step(number, epoch, step, steps)

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        self._progress.epoch(number, metrics)

    def finish(self, number: int, training: Training, result: TrialResult) -> None:
        seconds = self._stop(number)
        trial = Trial(training.candidate, result)
        if self._read_trials:
            self._standing.update(self._read_trials())
        else:
            self._standing.add(trial)
        self._budget.finish()
        self._best = self._best_so_far()
        count = f"{self._standing.finished:>3} of {self._expected_trainings} done"
        say(
            self._console,
            trial_line(count, self._name(training), trial, self._objectives, self._best, seconds),
            indent=TRIAL_INDENT,
        )

    def run_again(self, number: int, training: Training, reason: str) -> None:
        self._stop(number)
        line = Text(f"{'':<{TRIAL_INDENT}}{self._name(training)} ".ljust(TRIAL_INDENT + 10))
        line.append("again    ", style="yellow")
        line.append(reason)
        say(self._console, line, indent=TRIAL_INDENT)

    @property
    def _expected_trainings(self) -> int:
        return self._experiment.search.trials

    def _stop(self, number: int) -> float | None:
        self._running -= 1
        return self._progress.stop(number)

    def _name(self, training: Training) -> str:
        return f"trial {training.candidate.number}"

    def _best_so_far(self) -> str:
        return describe_best(self._standing.leading, self._experiment)

    def _counts(self) -> list[str]:
        return study_parts(self._standing.states, self._experiment, self._best, self._running)

    def _study_line(self) -> StudyLine:
        left = self._budget.describe(self._expected_trainings - self._standing.finished)
        return StudyLine([*self._counts(), *left])


class ConfirmationListener(TrialListener):
    """A `Listener` of confirmations, of which `expected` are trained."""

    def __init__(self, experiment: Experiment, console: Console, expected: int) -> None:
        self._expected = expected
        super().__init__(experiment, console)
        self._budget = Budget(None)  # search.timeout is for trials

    @property
    def _expected_trainings(self) -> int:
        return self._expected

    def _name(self, training: Training) -> str:
        return f"trial {training.candidate.number}, seed {training.seed}"

    def _best_so_far(self) -> str:
        return ""

    def _counts(self) -> list[str]:
        done = f"{self._standing.finished} of {count_of(self._expected, 'confirmation')} done"
        return [done, f"{self._running} running", f"{self._standing.states['failed']} failed"]


class Budget:
    """How much of a search is left, by the clock.

    Args:
        timeout: Seconds after which no training starts; None for no limit.
        started: When the search began, by the clock; now by default.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, timeout: float | None, started: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeout, self._clock = timeout, clock
        self._started = clock() if started is None else started
        self._finished, self._last_finish = 0, self._started

    def finish(self, at: float | None = None) -> None:
        """Count a training that has finished, now by default."""
        self._finished, self._last_finish = self._finished + 1, self._clock() if at is None else at

    def describe(self, remaining: int) -> list[str]:
        """Return the time left until `remaining` more trainings are done, and what is left of the limit."""
        now, parts = self._clock(), []
        if self._finished and remaining > 0:
            each = (self._last_finish - self._started) / self._finished
            parts.append(f"about {format_duration(max(0.0, each * remaining - (now - self._last_finish)))} left")
        if self._timeout is not None:
            left = self._timeout - (now - self._started)
            limit = format_duration(self._timeout)
            parts.append(f"{format_duration(left)} of the {limit} left" if left > 0 else f"the {limit} are over")
        return parts


def study_parts(states: Counter[State], experiment: Experiment, best: str, running: int) -> list[str]:
    """Return what is said of a study in a line: trials done of all, the best of them, running, pruned and failed ones.

    Args:
        states: Number of finished trials by state.
        experiment: The study's experiment.
        best: The best so far.
        running: Number of trials under way.
    """
    done = f"{states.total()} of {count_of(experiment.search.trials, 'trial')} done"
    counts = [f"{states['pruned']} pruned", f"{states['failed']} failed"]
    return [done, *([best] if best else []), f"{running} running", *counts]


def describe_best(finished_trials: Sequence[Trial], experiment: Experiment) -> str:
    """Return the best value so far and its trial, as `best 0.9810 (trial 6)`; empty if there is none."""
    if len(experiment.search.objectives) > 1:
        return f"front of {count_of(len(pareto_front(finished_trials, experiment.search.objectives)), 'trial')}"
    best = best_first(finished_trials, experiment)
    return f"best {format_value(best[0].result.value)} (trial {best[0].number})" if best else ""


def trial_line(
    count: str, name: str, trial: Trial, objectives: Sequence[str], best: str, seconds: float | None
) -> Text:
    """Return the line of a finished trial.

    Args:
        count: How many trials are done.
        name: What was trained.
        trial: The trial.
        objectives: The study's objectives.
        best: The best so far.
        seconds: How long it took; None if that is not known.
    """
    candidate, result = trial.candidate, trial.result
    line = Text(f"{count}  {name} ".ljust(len(count) + 12))
    line.append(f"{result.state:<9}", style=COLOURS[result.state])
    values = (format_value(metric_value(result, objective, objectives)) for objective in objectives)
    line.append(f"{' '.join(values):>9}  ")
    if best:
        line.append(f"{best}  ", style="bold")
    line.append(describe_candidate(candidate))
    if candidate.first_epoch:
        line.append(f"  epochs {candidate.first_epoch + 1} to {candidate.epochs}", style="dim")
    if seconds is not None:
        line.append(f"  {seconds:.0f} s", style="dim")
    if result.error:
        line.append(f"  {result.error}", style="red")
    return line


def show_header(
    console: Console,
    experiment: Experiment,
    split: str,
    store: str,
    finished_trials: Sequence[Trial],
    findings: Sequence[Finding] = (),
    audit_command: str = "",
) -> None:
    """Say what is about to run, on which pictures, and where it is recorded.

    Args:
        console: Where the lines go.
        experiment: The study's experiment.
        split: The pictures, as `data.split.describe_split` says them.
        store: The MLflow store, as it is shown.
        finished_trials: The trials of earlier searches.
        findings: What is known to be wrong with the pictures.
        audit_command: The command that shows all of it.
    """
    say(console, describe_search(experiment, len(finished_trials)))
    say(console, split)
    say(console, f"MLflow: {store}")
    for line in describe_warnings(findings, audit_command):
        say(console, line, indent=2)


def describe_search(experiment: Experiment, finished: int = 0) -> str:
    """Return what a search does, in a line.

    Args:
        experiment: The study's experiment.
        finished: How many trials are done.
    """
    search, names = experiment.search, [dimension.name for dimension in experiment.space.searched]
    trials = count_of(max(search.trials, finished), "trial")
    if 0 < finished < search.trials:
        trials += f", {finished} of them done,"
    return (
        f"Study {experiment.name}: {trials} by {search.engine}/{search.algorithm} for "
        f"{' and '.join(search.objectives)}, pruner {search.pruner}; searched: {', '.join(names) or 'nothing'}"
    )


def describe_warnings(findings: Sequence[Finding], audit_command: str) -> list[str]:
    """Return a line for each of the first warnings of the audit, and one that says where all findings are."""
    warnings = [finding.message for finding in findings if finding.severity == "warning"]
    if not warnings:
        return []
    shown = [f"Warning: {textwrap.shorten(message, LONGEST_WARNING)}" for message in warnings[:MOST_WARNINGS]]
    others = len(warnings) - len(shown)
    more = f"  {count_of(others, 'more warning')}; all" if others else "  All"
    return [*shown, f"{more} findings:  {audit_command}"]
