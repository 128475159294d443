"""Trials trained again with other seeds: how much of what the search found was luck."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.selection import Confirmation, rank_confirmations

CONFIRMATION_EXPLAINED = (
    "The best of many trials was also a lucky one. Each of these was trained again with other seeds: a dot is a seed, the "
    "diamond with its bar their mean and its 95 % interval (Student's t), the hollow circle the value that the search found. "
    "The best mean comes first."
)

# Okabe and Ito's colours, which colour-blind readers can tell apart (Color Universal Design, 2008).
_SEEDS, _MEAN, _FIRST = "#56B4E9", "#0072B2", "#D55E00"


def confirmation_figure(confirmed: Sequence[Confirmation], objective: str) -> go.Figure:
    """A row for each trial, best mean on top: the value of each seed, their mean with its interval, the search's value."""
    ranking = rank_confirmations(confirmed, OBJECTIVES[objective])
    rows = range(len(ranking))
    figure = go.Figure()
    figure.add_scatter(
        name="a seed",
        x=[value for trial in ranking for value in trial.values],
        y=[row for row, trial in zip(rows, ranking, strict=True) for _ in trial.values],
        marker={"color": _SEEDS, "size": 9, "opacity": 0.8},
    )
    figure.add_scatter(
        name="mean and 95 % interval",
        x=[trial.mean for trial in ranking],
        y=[row + 0.22 for row in rows],
        error_x={
            "array": [0.0 if trial.high is None else trial.high - trial.mean for trial in ranking],
            "thickness": 2,
        },
        marker={"color": _MEAN, "size": 11, "symbol": "diamond"},
    )
    figure.add_scatter(
        name="the search's value",
        x=[trial.first for trial in ranking],
        y=list(rows),
        marker={"color": _FIRST, "size": 13, "symbol": "circle-open", "line": {"width": 2}},
    )
    figure.update_traces(mode="markers", hovertemplate="%{x}")
    figure.update_xaxes(title=objective)
    figure.update_yaxes(
        tickvals=list(rows),
        ticktext=[f"trial {trial.number}" for trial in ranking],
        range=[len(ranking) - 0.4, -0.6],
        zeroline=False,
    )
    legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}
    return figure.update_layout(legend=legend, height=160 + 70 * len(ranking))


def confirmation_sentences(confirmed: Sequence[Confirmation], objective: str) -> Iterator[str]:
    """A sentence for each trial, best mean first."""
    for trial in rank_confirmations(confirmed, OBJECTIVES[objective]):
        decimals = _decimals(trial.mean)
        apart = abs(round(trial.first, decimals) - round(trial.mean, decimals))  # what a reader would get
        mean, first, apart_shown = (f"{value:,.{decimals}f}" for value in (trial.mean, trial.first, apart))
        if trial.low is None or trial.high is None:
            over = "1 seed (one value gives no interval)"
        else:
            over = f"{len(trial.values)} seeds (95 % interval {trial.low:,.{decimals}f} to {trial.high:,.{decimals}f})"
        side = "above" if trial.first > trial.mean else "below"
        against = "the same" if first == mean else f"{apart_shown} {side} it"
        yield f"Trial {trial.number}: mean {mean} over {over}; the search's value {first} was {against}."


def _decimals(value: float) -> int:
    """After the point, for a value as it is read: none for parameters, four for an AUC."""
    return 4 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
