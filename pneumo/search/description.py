"""The description of a study at the head of its page in MLflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pneumo.spec.best import baseline_trial, best_first
from pneumo.spec.candidate import SkipReason
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import Trial
from pneumo.spec.selection import Confirmation, metric_value, pareto_front
from pneumo.spec.wording import (
    count_of,
    describe_confirmation,
    describe_gain,
    describe_skipped,
    describe_stress,
    format_value,
)

if TYPE_CHECKING:
    from pneumo.data.audit import Finding
    from pneumo.data.prepare import Prepared


def describe_study(
    experiment: Experiment,
    data: Prepared,
    findings: Sequence[Finding],
    finished_trials: Sequence[Trial],
    confirmed: Sequence[Confirmation] = (),
    skipped: Mapping[SkipReason, int] | None = None,
) -> str:
    """Return the description as Markdown: the search, the pictures, and the result so far."""
    search = experiment.search
    searched = ", ".join(dimension.name for dimension in experiment.space.searched) or "nothing"
    lines = [
        f"**{experiment.name}**: {search.engine}/{search.algorithm}, pruner {search.pruner}, "
        f"{'objectives' if len(search.objectives) > 1 else 'objective'} {', '.join(search.objectives)}; "
        f"searched: {searched}.",
        f"Data: {data.description}, {len(data.training):,} training and {len(data.validation):,} validation pictures.",
    ]
    if data.kind == "phantom":
        lines.append("The pictures are generated **phantoms**, not X-rays: the figures say nothing about patients.")
    lines.append(f"Audit of the pictures: {severity_counts(findings)} (audit.json).")
    if reason := experiment.data.allow_leaks:
        lines.append(f"**Leaks between training and test were allowed**: {reason}")
    return "\n\n".join(
        [*lines, *_result_lines(experiment, finished_trials, confirmed), *describe_skipped(skipped or {})]
    )


def severity_counts(findings: Sequence[Finding]) -> str:
    """Return how many findings there are of each severity, as `1 fault, 2 warnings, 4 notes`."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(count_of(counts[severity], severity) for severity in ("fault", "warning", "note"))


def _result_lines(experiment: Experiment, trials: Sequence[Trial], confirmed: Sequence[Confirmation]) -> list[str]:
    lines, objectives = [], experiment.search.objectives
    if best := best_first(trials, experiment, confirmed):
        values = (metric_value(best[0].result, objective, objectives) for objective in objectives)
        reached = ", ".join(f"{name} {format_value(v)}" for name, v in zip(objectives, values, strict=True))
        lines.append(f"Best of {count_of(len(trials), 'trial')}: trial {best[0].number}, {reached}.")
        if confirmed:
            lines.append(describe_confirmation(confirmed[0], experiment))
        if baseline := baseline_trial(trials, experiment):
            lines.append(describe_gain(best[0], baseline, objectives[0]))
        if stress := describe_stress(best[0]):
            lines.append(stress)
    if len(objectives) > 1 and trials:
        front = ", ".join(str(trial.number) for trial in pareto_front(trials, objectives))
        lines.append(f"Pareto front: trials {front} (pareto.csv).")
    return lines
