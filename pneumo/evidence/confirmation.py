"""Draw and describe the confirmation: the best trials trained again with other seeds, which shows how much was luck."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.selection import Confirmation, rank_confirmations

CONFIRMATION_EXPLANATION = (
    "The best of many trials is in part a lucky one, so the best trials were trained again with other seeds. A dot is one "
    "seed; a diamond with its bar is the mean of the seeds with its 95 % interval (Student's t); a hollow circle is the value "
    "from the search. The best mean comes first."
)

# Okabe and Ito's palette, which colour-blind readers can distinguish (Color Universal Design, 2008).
_SEED_COLOUR, _MEAN_COLOUR, _SEARCH_COLOUR = "#56B4E9", "#0072B2", "#D55E00"


def confirmation_figure(confirmed: Sequence[Confirmation], objective: str) -> go.Figure:
    """Return a plot with a row for each trial, best mean on top.

    A row has the value of each seed, their mean with its 95 % interval, and the value from the search.
    """
    ranking = rank_confirmations(confirmed, OBJECTIVES[objective])
    rows = range(len(ranking))
    figure = go.Figure()
    figure.add_scatter(
        name="one seed",
        x=[value for trial in ranking for value in trial.values],
        y=[row for row, trial in zip(rows, ranking, strict=True) for _ in trial.values],
        marker={"color": _SEED_COLOUR, "size": 9, "opacity": 0.8},
    )
    figure.add_scatter(
        name="mean and 95 % interval",
        x=[trial.mean for trial in ranking],
        y=[row + 0.22 for row in rows],
        error_x={
            "array": [0.0 if trial.high is None else trial.high - trial.mean for trial in ranking],
            "thickness": 2,
        },
        marker={"color": _MEAN_COLOUR, "size": 11, "symbol": "diamond"},
    )
    figure.add_scatter(
        name="value from the search",
        x=[trial.first for trial in ranking],
        y=list(rows),
        marker={"color": _SEARCH_COLOUR, "size": 13, "symbol": "circle-open", "line": {"width": 2}},
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
    """Yield a sentence for each trial, best mean first."""
    for trial in rank_confirmations(confirmed, OBJECTIVES[objective]):
        decimals = _decimals(trial.mean)
        distance = abs(round(trial.first, decimals) - round(trial.mean, decimals))  # of the numbers as printed
        mean, first, distance_text = (f"{value:,.{decimals}f}" for value in (trial.mean, trial.first, distance))
        if trial.low is None or trial.high is None:
            seeds = "1 seed (no interval from one value)"
        else:
            seeds = f"{len(trial.values)} seeds (95 % interval {trial.low:,.{decimals}f} to {trial.high:,.{decimals}f})"
        side = "above" if trial.first > trial.mean else "below"
        comparison = "equal to the mean" if first == mean else f"{distance_text} {side} the mean"
        yield f"Trial {trial.number}: mean {mean} over {seeds}; the value from the search, {first}, was {comparison}."


def _decimals(value: float) -> int:
    """Return the number of decimals to print: four for an AUC, none for a number of parameters."""
    return 4 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
