"""The Pareto front of a study with several objectives, as a plot and as a table."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.result import Trial
from pneumo.spec.selection import metric_value, pareto_front

FRONT_EXPLAINED = (
    "The trials on the front are those that no other trial beats: whichever is better in one objective is worse in another. "
    "Which of them is best is a choice."
)

# Of Okabe and Ito's colours, which colour-blind readers can tell apart, the one farthest from grey.
_FRONT, _OTHERS = "#D55E00", "#BBBBBB"

_FAR_APART = 30.0
"""Largest over smallest value of an objective, from which on an axis is logarithmic."""


def pareto_figure(study: optuna.Study, objectives: Sequence[str]) -> go.Figure | str:
    """The complete trials by their objectives, those of the front with their numbers; a sentence where that cannot be drawn.

    The study's objectives are these, in this order. A plot has two or three axes.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return "No trial is complete yet."
    if len(objectives) not in (2, 3):
        return f"Only two or three objectives can be drawn, not {len(objectives)}; the table has them all."
    figure = optuna.visualization.plot_pareto_front(study, target_names=[_aim(name) for name in objectives])
    front = study.best_trials
    numbers = {trial.number for trial in front}
    others = [trial for trial in complete if trial.number not in numbers]
    other_points, front_points = figure.data
    for points, trials in ((other_points, others), (front_points, front)):
        described = [_described(trial, objectives) for trial in trials]
        points.update(showlegend=True, hovertext=described, hovertemplate="%{hovertext}<extra></extra>")
    other_points.update(name="dominated", marker={"color": _OTHERS, "size": 7, "showscale": False})
    front_points.update(name="on the front", marker={"color": _FRONT, "size": 10, "showscale": False})
    axes = [axis([trial.values[i] for trial in complete]) for i in range(len(objectives))]
    if len(objectives) == 2:
        front_points.update(mode="markers+text", text=[str(t.number) for t in front], textposition="top center")
        figure.update_layout(xaxis=axes[0], yaxis=axes[1])
    else:
        figure.update_traces(marker_size=4)  # which is larger in three dimensions
        figure.update_layout(scene={f"{letter}axis": axes[i] for i, letter in enumerate("xyz")}, height=640)
        figure.update_layout(scene_camera_eye={"x": 1.6, "y": 1.6, "z": 1.0})  # from where no axis title is cut off
    return figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"})


def front_table(trials: Sequence[Trial], objectives: Sequence[str], names: Sequence[str]) -> str:
    """The trials of the front as an HTML table: number, each objective, and those of the named hyperparameters they have."""
    front = pareto_front(trials, objectives)
    if not front:
        return ""
    names = [name for name in names if any(name in trial.candidate.hyperparameters for trial in front)]
    rows = [
        [
            str(trial.number),
            *(format_cell(metric_value(trial.result, objective, objectives)) for objective in objectives),
            *(format_cell(trial.candidate.hyperparameters.get(name)) for name in names),
        ]
        for trial in front
    ]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("trial", *objectives, *names))
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def format_cell(value: object) -> str:
    """A number to four digits, or whole with its thousands apart; nothing for None; anything else as it is."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if math.isfinite(value) and (abs(value) >= 1000 or float(value).is_integer()):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _aim(objective: str) -> str:
    return f"{objective} ({'more' if OBJECTIVES[objective] == 'maximize' else 'less'} is better)"


def _described(trial: FrozenTrial, objectives: Sequence[str]) -> str:
    figures = dict(zip(objectives, trial.values, strict=True)) | trial.params
    lines = (f"{name}: {html.escape(format_cell(value))}" for name, value in figures.items())
    return "<br>".join([f"trial {trial.number}", *lines])


def axis(values: Sequence[float]) -> dict[str, object]:
    """Plotly's settings of an axis for some values, at least one: logarithmic where they are far apart."""
    low, high = min(values), max(values)
    if low <= 0 or high / low < _FAR_APART:
        return {"type": "linear"}
    # Plotly's own ticks between powers of ten say 2 for 20k.
    steps = (1, 2, 5) if high / low < 3000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return {
        "type": "log",
        "tickvals": [float(f"{step}e{power}") for power in powers for step in steps],
        "tickformat": "~s",
    }
