"""Draw the Pareto front of a study with several objectives, as a plot and as an HTML table."""

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

FRONT_EXPLANATION = (
    "A trial is on the front if no other trial is at least as good in all objectives and better in one. To choose among "
    "the trials on the front, weigh the objectives against each other."
)

# The colour of Okabe and Ito's palette, which colour-blind readers can distinguish, that is farthest from grey.
_FRONT_COLOUR, _OTHER_COLOUR = "#D55E00", "#BBBBBB"

_LOG_AXIS_RATIO = 30.0
"""Smallest ratio of the largest to the smallest value for which an axis is logarithmic."""


def pareto_figure(study: optuna.Study, objectives: Sequence[str]) -> go.Figure | str:
    """Return a plot of the complete trials by their objectives, with the numbers of the trials on the front.

    Args:
        study: A study in memory with these objectives.
        objectives: Their names, in the study's order.

    Returns:
        The plot, or a sentence that says why there is none: no trial is complete, or there are more than three objectives.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return "No trial is complete yet."
    if len(objectives) not in (2, 3):
        return f"A plot can show two or three objectives, not {len(objectives)}; the table has all."
    figure = optuna.visualization.plot_pareto_front(study, target_names=[_axis_title(name) for name in objectives])
    front = study.best_trials
    numbers = {trial.number for trial in front}
    others = [trial for trial in complete if trial.number not in numbers]
    other_points, front_points = figure.data
    for points, trials in ((other_points, others), (front_points, front)):
        texts = [_hover_text(trial, objectives) for trial in trials]
        points.update(showlegend=True, hovertext=texts, hovertemplate="%{hovertext}<extra></extra>")
    other_points.update(name="dominated", marker={"color": _OTHER_COLOUR, "size": 7, "showscale": False})
    front_points.update(name="on the front", marker={"color": _FRONT_COLOUR, "size": 10, "showscale": False})
    axes = [axis_settings([trial.values[i] for trial in complete]) for i in range(len(objectives))]
    if len(objectives) == 2:
        front_points.update(mode="markers+text", text=[str(t.number) for t in front], textposition="top center")
        figure.update_layout(xaxis=axes[0], yaxis=axes[1])
    else:
        figure.update_traces(marker_size=4)  # markers look larger in three dimensions
        figure.update_layout(scene={f"{letter}axis": axes[i] for i, letter in enumerate("xyz")}, height=640)
        figure.update_layout(scene_camera_eye={"x": 1.6, "y": 1.6, "z": 1.0})  # so that no axis title is cut off
    return figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"})


def front_table(trials: Sequence[Trial], objectives: Sequence[str], names: Sequence[str]) -> str:
    """Return an HTML table of the trials on the front; empty if there are none.

    Args:
        trials: The study's finished trials.
        objectives: The study's objectives.
        names: Hyperparameters; those that no trial on the front has are left out.
    """
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
    """Return a number with four digits, or as a whole number with commas; an empty text for None; otherwise `str(value)`."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if math.isfinite(value) and (abs(value) >= 1000 or float(value).is_integer()):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _axis_title(objective: str) -> str:
    return f"{objective} ({'more' if OBJECTIVES[objective] == 'maximize' else 'less'} is better)"


def _hover_text(trial: FrozenTrial, objectives: Sequence[str]) -> str:
    values = dict(zip(objectives, trial.values, strict=True)) | trial.params
    lines = (f"{name}: {html.escape(format_cell(value))}" for name, value in values.items())
    return "<br>".join([f"trial {trial.number}", *lines])


def axis_settings(values: Sequence[float]) -> dict[str, object]:
    """Return Plotly's settings of an axis for at least one value: logarithmic if the values are far apart."""
    low, high = min(values), max(values)
    if low <= 0 or high / low < _LOG_AXIS_RATIO:
        return {"type": "linear"}
    # Plotly labels its own ticks between powers of ten with their first digit only, as 2 for 20k.
    steps = (1, 2, 5) if high / low < 3000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return {
        "type": "log",
        "tickvals": [float(f"{step}e{power}") for power in powers for step in steps],
        "tickformat": "~s",
    }
