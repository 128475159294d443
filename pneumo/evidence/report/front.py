"""The Pareto front of a study with several objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from pneumo.evidence.report.charts import (
    GREY,
    ORANGE,
    Figure,
    format_number,
    hover_text,
    make_axis,
    make_figure,
    scale_settings,
)
from pneumo.evidence.report.section import Section
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.result import Trial
from pneumo.spec.selection import metric_value, pareto_front
from pneumo.spec.study_record import StudyRecord


def front_figures(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Figure | str]:
    """Return a plot of the complete trials for each pair of objectives, with the numbers of the trials on the front."""
    known = {
        trial.number: values
        for trial in trials
        if trial.result.state == "complete"
        and None not in (values := [metric_value(trial.result, name, objectives) for name in objectives])
    }
    if not known:
        return ["No trial is complete yet."]
    front = {trial.number for trial in pareto_front(trials, objectives)}
    complete = [trial for trial in trials if trial.number in known]
    figures: list[Figure | str] = []
    for a, b in combinations(range(len(objectives)), 2):
        traces = []
        for name, colour, size, shown in (
            ("dominated", GREY, 7, [trial for trial in complete if trial.number not in front]),
            ("on the front", ORANGE, 10, [trial for trial in complete if trial.number in front]),
        ):
            on_front = name == "on the front"
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers+text" if on_front else "markers",
                    "name": name,
                    "x": [known[trial.number][a] for trial in shown],
                    "y": [known[trial.number][b] for trial in shown],
                    "text": [str(trial.number) if on_front else "" for trial in shown],
                    "textposition": "top center",
                    "hovertext": [_hover(trial, objectives, known[trial.number]) for trial in shown],
                    "hovertemplate": "%{hovertext}<extra></extra>",
                    "marker": {"color": colour, "size": size},
                }
            )
        axes = [
            make_axis(
                _axis_title(objectives[k]), **scale_settings([float(values[k] or 0) for values in known.values()])
            )
            for k in (a, b)
        ]
        margin = {"l": 64, "r": 16, "t": 44, "b": 50}
        figures.append(make_figure(traces, 380, xaxis=axes[0], yaxis=axes[1], showlegend=True, margin=margin))
    return figures


def front_rows(
    trials: Sequence[Trial], objectives: Sequence[str], names: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table of the trials on the front.

    Args:
        trials: The study's finished trials.
        objectives: The study's objectives.
        names: Hyperparameters; those that no trial on the front has are left out.
    """
    front = pareto_front(trials, objectives)
    names = [name for name in names if any(name in trial.candidate.hyperparameters for trial in front)]
    rows = [
        [
            str(trial.number),
            *(format_number(metric_value(trial.result, objective, objectives)) for objective in objectives),
            *(format_number(trial.candidate.hyperparameters.get(name)) for name in names),
        ]
        for trial in front
    ]
    return ["trial", *objectives, *names], rows


def _axis_title(objective: str) -> str:
    return f"{objective} ({'more' if OBJECTIVES[objective] == 'maximize' else 'less'} is better)"


def _hover(trial: Trial, objectives: Sequence[str], values: Sequence[float | None]) -> str:
    shown = (f"{name} {format_number(value)}" for name, value in zip(objectives, values, strict=True))
    return "<br>".join([hover_text(trial, None).partition("<br>")[0].partition(",")[0], *shown])


def _values(record: StudyRecord) -> Mapping[str, Any] | None:
    if len(record.objectives) < 2 or not record.trials:
        return None
    head, rows = front_rows(record.trials, record.objectives, [d.name for d in record.experiment.space.searched])
    return {"figures": front_figures(record.trials, record.objectives), "head": head, "rows": rows}


SECTION = Section(
    "front",
    "The Pareto front",
    _values,
    """
<p>A trial is on the front if no other trial is at least as good in all objectives and better in one. To choose among the
trials on the front, weigh the objectives against each other.</p>
<div class="{{ 'charts' if figures | length > 1 }}">{% for figure in figures %}{{ chart(figure) | safe }}{% endfor %}</div>
{% if rows %}<div class="wide"><table><thead><tr>
{% for name in head %}<th class="number">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr>{% for cell in row %}<td class="number">{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody>
</table></div>{% endif %}
""",
)
