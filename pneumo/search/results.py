"""What a search shows at its end: the best trials, the confirmations, and the gain over the tutorial's network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table

from pneumo.console.display import say
from pneumo.spec.best import baseline_trial, best_first, best_metric
from pneumo.spec.comparison import Comparison
from pneumo.spec.experiment import Experiment
from pneumo.spec.names import Metrics
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.result import Trial
from pneumo.spec.selection import Confirmation, metric_value, pareto_front
from pneumo.spec.wording import (
    count_of,
    describe_bound,
    describe_confirmation,
    describe_gain,
    describe_stress,
    format_hyperparameter,
    format_value,
)

TABLE_ROWS = 5
"""Trials in the table at the end."""


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
        title = f"The Pareto front: {len(front)} of {count_of(len(finished_trials), 'trial')}"
        _print_trials(console, title, front, experiment)
    else:
        title = f"The best {min(TABLE_ROWS, len(best))} of {count_of(len(finished_trials), 'trial')}"
        _print_trials(console, title, best[:TABLE_ROWS], experiment)
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


def _print_trials(console: Console, title: str, trials: Sequence[Trial], experiment: Experiment) -> None:
    """Print a table with a row for each trial; if that is too wide, with a column for each; or else a line for each."""
    columns = _trial_columns(trials, experiment)
    tables = [_table(title, columns, "row"), _table(title, columns, "column")]
    unlimited = console.options.update_width(10_000)
    natural_widths = [console.measure(table, options=unlimited).maximum for table in tables]
    fits = (table for table, width in zip(tables, natural_widths, strict=True) if width <= console.width)
    if fitting := next(fits, None):
        console.print(fitting)
        return
    say(console, f"{title}:")
    for position in range(len(trials)):
        cells = [f"{name} {values[position]}" for name, values in columns.items() if values[position]]
        say(console, f"  {', '.join(cells)}", indent=4)


def _trial_columns(trials: Sequence[Trial], experiment: Experiment) -> dict[str, list[str]]:
    """Return the texts of a table of trials by the name of their column: the number, objectives, hyperparameters."""
    objectives = experiment.search.objectives
    metrics = [*objectives]
    has_stress = any(Metrics.VAL_STRESS_AUC in trial.result.metrics for trial in trials)
    if has_stress and Metrics.VAL_STRESS_AUC not in metrics:
        metrics.append(Metrics.VAL_STRESS_AUC)
    columns = {"trial": [str(trial.number) for trial in trials]}
    for metric in metrics:
        columns[metric] = [format_value(metric_value(trial.result, metric, objectives)) for trial in trials]
    for name in (dimension.name for dimension in experiment.space.searched):
        values = [trial.candidate.hyperparameters.get(name) for trial in trials]
        columns[name] = ["" if value is None else format_hyperparameter(value) for value in values]
    return columns


def _table(title: str, columns: Mapping[str, Sequence[str]], of_trial: Literal["row", "column"]) -> Table:
    table = Table(title=title, title_justify="left")
    metrics = {*OBJECTIVES}
    if of_trial == "row":
        for name in columns:
            table.add_column(name, justify="right", style="bold" if name in metrics else None, no_wrap=True)
        for row in zip(*columns.values(), strict=True):
            table.add_row(*row)
        return table
    table.add_column("trial", no_wrap=True)
    for number in columns["trial"]:
        table.add_column(number, justify="right", no_wrap=True)
    for name, cells in list(columns.items())[1:]:
        table.add_row(name, *cells, style="bold" if name in metrics else None)
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
