"""The descriptions of a study and of its trials, at the head of their pages in MLflow.

MLflow shows the first lines of a description and hides the rest behind "Show more", so the result comes first.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pneumo.console.command import program_path
from pneumo.spec.best import baseline_trial, best_first
from pneumo.spec.candidate import SkipReason
from pneumo.spec.comparison import Comparison
from pneumo.spec.experiment import Experiment
from pneumo.spec.names import Metrics
from pneumo.spec.objective import objective_metric
from pneumo.spec.result import State, Trial
from pneumo.spec.selection import Confirmation, metric_value, pareto_front
from pneumo.spec.wording import (
    count_of,
    describe_confirmation,
    describe_gain,
    describe_skipped,
    describe_stress,
    format_hyperparameter,
    format_value,
    markdown_table,
)

if TYPE_CHECKING:
    from pneumo.data.audit import Finding
    from pneumo.data.prepare import Prepared

TOP = 5
"""Number of trials in the table of the best."""

_MOST_COLUMNS = 6
"""Largest number of hyperparameters that the table shows."""

RunPage = Callable[[str], str]
"""Returns the address of a run's page in MLflow, given the run's id."""


def describe_study(
    experiment: Experiment,
    data: Prepared,
    findings: Sequence[Finding],
    finished_trials: Sequence[Trial],
    confirmed: Sequence[Confirmation] = (),
    skipped: Mapping[SkipReason, int] | None = None,
    *,
    run_page: RunPage | None = None,
    comparison: Comparison | None = None,
    states: Counter[State] | None = None,
) -> str:
    """Return the description as Markdown: the result so far, what to do with it, the search and the pictures.

    Args:
        experiment: The study's experiment.
        data: Its pictures.
        findings: What is known to be wrong with the pictures.
        finished_trials: The finished trials; with `states`, those of them that are shown.
        confirmed: The confirmed trials, best first.
        skipped: How many proposals were not trained, by reason.
        run_page: Where the table of the best trials links to; None for no links.
        comparison: The best trial and the baseline with the interval of their difference, if it is known.
        states: Number of finished trials by state; by default counted from `finished_trials`.
    """
    search, counts = experiment.search, _count_states(states or Counter(t.result.state for t in finished_trials))
    searched = ", ".join(dimension.name for dimension in experiment.space.searched) or "nothing"
    lines = [
        *_result_lines(experiment, finished_trials, counts, confirmed, run_page, comparison),
        f"**{experiment.name}**: {search.engine}/{search.algorithm}, pruner {search.pruner}, "
        f"{'objectives' if len(search.objectives) > 1 else 'objective'} {', '.join(search.objectives)}; "
        f"searched: {searched}. {counts} of {count_of(search.trials, 'trial')}.",
        f"Data: {data.description}, {len(data.training):,} training and {len(data.validation):,} validation pictures.",
    ]
    if data.kind == "phantom":
        lines.insert(2, "The pictures are generated **phantoms**, not X-rays: the figures say nothing about patients.")
    lines.append(f"Audit of the pictures: {severity_counts(findings)} (audit.json).")
    if reason := experiment.data.allow_leaks:
        lines.append(f"**Leaks between training and test were allowed**: {reason}")
    return "\n\n".join([*lines, *describe_skipped(skipped or {})])


def describe_trial(trial: Trial, experiment: Experiment, *, is_best: bool = False, gain: str | None = None) -> str:
    """Return the description of a finished trial's run as Markdown: its figures, and at which threshold each is.

    Args:
        trial: The trial.
        experiment: The study's experiment.
        is_best: Whether it is the study's best trial.
        gain: A sentence that compares it with the tutorial's network.
    """
    result, objectives = trial.result, experiment.search.objectives
    head = f"**The best trial of study {experiment.name}.** " if is_best else ""
    if result.state == "failed":
        return f"{head}Trial {trial.number} failed: {result.error}"
    verb = "was pruned at" if result.state == "pruned" else "reaches"
    reached = _reached(trial, objectives)
    lines = [f"{head}{gain or f'Trial {trial.number} {verb} {reached}.'}"]
    if operating := _operating_point(trial):
        lines.append(operating)
    if stress := describe_stress(trial):
        lines.append(stress)
    if is_best:
        lines.append(_promote_line(experiment.name))
    return "\n\n".join(lines)


def severity_counts(findings: Sequence[Finding]) -> str:
    """Return how many findings there are of each severity, as `1 fault, 2 warnings, 4 notes`."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(count_of(counts[severity], severity) for severity in ("fault", "warning", "note"))


def _result_lines(
    experiment: Experiment,
    trials: Sequence[Trial],
    counts: str,
    confirmed: Sequence[Confirmation],
    run_page: RunPage | None,
    comparison: Comparison | None,
) -> list[str]:
    objectives = experiment.search.objectives
    best = best_first(trials, experiment, confirmed)
    if not best:
        return [f"No trial is complete yet; {counts}."]
    result = f"Best: trial {best[0].number}, {_reached(best[0], objectives)}."
    if baseline := baseline_trial(trials, experiment):
        gain = describe_gain(best[0], baseline, objectives[0], comparison)
        says_all = len(objectives) == 1 and baseline.result.state == "complete"
        result = gain if says_all else f"{result} {gain}"
    lines = [f"**{result}**"]
    lines.append(_top_table(experiment, best[:TOP], run_page))
    if confirmed:
        lines.append(describe_confirmation(confirmed[0], experiment))
    if operating := _operating_point(best[0]):
        lines.append(operating)
    if stress := describe_stress(best[0]):
        lines.append(stress)
    if len(objectives) > 1:
        front = ", ".join(str(trial.number) for trial in pareto_front(trials, objectives))
        lines.append(f"Pareto front: trials {front} (pareto.csv).")
    lines.append(_promote_line(experiment.name))
    return lines


def _top_table(experiment: Experiment, best: Sequence[Trial], run_page: RunPage | None) -> str:
    objectives = experiment.search.objectives
    searched = [dimension.name for dimension in experiment.space.searched][:_MOST_COLUMNS]
    stress = [
        metric
        for metric in (Metrics.VAL_STRESS_AUC,)
        if metric not in objectives and any(metric in trial.result.metrics for trial in best)
    ]
    rows = []
    for trial in best:
        name = f"trial {trial.number}"
        values = [
            *(format_value(metric_value(trial.result, objective, objectives)) for objective in objectives),
            *(format_value(trial.result.metrics.get(metric)) for metric in stress),
            *(
                format_hyperparameter(trial.candidate.hyperparameters.get(hyperparameter, "-"))
                for hyperparameter in searched
            ),
        ]
        rows.append([f"[{name}]({run_page(trial.result.run_id)})" if run_page else name, *values])
    return markdown_table([["best first", *objectives, *stress, *searched], *rows])


def _operating_point(trial: Trial) -> str | None:
    """Say at which threshold the figures and plots of a trial are; None if it has none, as one of an earlier version."""
    metrics = trial.result.metrics
    at_half, threshold = metrics.get(objective_metric(Metrics.VAL_ACCURACY)), metrics.get(Metrics.THRESHOLD)
    if threshold is None or at_half is None:
        return None
    names = {
        Metrics.VAL_ACCURACY_AT_THRESHOLD: "accuracy",
        Metrics.VAL_SENSITIVITY: "sensitivity",
        Metrics.VAL_SPECIFICITY: "specificity",
    }
    figures = ", ".join(f"{word} {format_value(metrics[name])}" for name, word in names.items() if name in metrics)
    return (
        f"Operating point of trial {trial.number}: at threshold {threshold:.3f} (Youden's), where the confusion matrix and the "
        f"mistakes are: {figures}. At 0.5, where `val_accuracy` is: accuracy {format_value(at_half)}."
    )


def _reached(trial: Trial, objectives: Sequence[str]) -> str:
    values = (metric_value(trial.result, objective, objectives) for objective in objectives)
    return ", ".join(f"{name} {format_value(value)}" for name, value in zip(objectives, values, strict=True))


def _count_states(counts: Counter[State]) -> str:
    """Return how many trials ended in which way, as `20 complete, 3 pruned`."""
    states: tuple[State, ...] = ("complete", "pruned", "failed")
    return ", ".join(f"{counts[state]} {state}" for state in states if counts[state]) or "0 complete"


def _promote_line(study: str) -> str:
    promote = shlex.join([program_path("python"), "-m", "pneumo.promote", study])
    return f"Promote the best: `{promote}`"
