"""Is it luck: the best trials trained again with other seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pneumo.evidence.report.charts import BLUE, ORANGE, SKY, Figure, make_axis, make_figure
from pneumo.evidence.report.section import Section
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.selection import Confirmation, rank_confirmations
from pneumo.spec.study_record import StudyRecord


def confirmation_figure(confirmed: Sequence[Confirmation], objective: str) -> Figure:
    """Return a plot with a row for each trial, best mean on top.

    A row has the value of each seed, their mean with its 95 % interval, and the value from the search.
    """
    ranking = rank_confirmations(confirmed, OBJECTIVES[objective])
    shared = {"type": "scatter", "mode": "markers", "hovertemplate": "%{x}<extra></extra>"}
    seeds = {
        "name": "one seed",
        "x": [value for trial in ranking for value in trial.values],
        "y": [row for row, trial in enumerate(ranking) for _ in trial.values],
        "marker": {"color": SKY, "size": 9, "opacity": 0.8},
    }
    means = {
        "name": "mean and 95 % interval",
        "x": [trial.mean for trial in ranking],
        "y": [row + 0.22 for row in range(len(ranking))],
        "error_x": {
            "type": "data",
            "array": [0.0 if trial.high is None else trial.high - trial.mean for trial in ranking],
            "thickness": 2,
        },
        "marker": {"color": BLUE, "size": 11, "symbol": "diamond"},
    }
    found = {
        "name": "value from the search",
        "x": [trial.first for trial in ranking],
        "y": list(range(len(ranking))),
        "marker": {"color": ORANGE, "size": 13, "symbol": "circle-open", "line": {"width": 2}},
    }
    return make_figure(
        [shared | seeds, shared | means, shared | found],
        150 + 60 * len(ranking),
        xaxis=make_axis(objective),
        yaxis=make_axis(
            "",
            tickvals=list(range(len(ranking))),
            ticktext=[f"trial {trial.number}" for trial in ranking],
            range=[len(ranking) - 0.4, -0.6],
        ),
        showlegend=True,
        margin={"l": 70, "r": 12, "t": 44, "b": 46},
    )


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


def _values(record: StudyRecord) -> Mapping[str, Any] | None:
    if not record.ranking:
        return None
    return {
        "confirmed": record.confirmed,
        "figure": confirmation_figure(record.confirmed, record.metric) if record.confirmed else None,
        "sentences": list(confirmation_sentences(record.confirmed, record.metric)),
        "complete": len(record.of_state("complete")),
        "name": record.name,
    }


SECTION = Section(
    "luck",
    "Is it luck?",
    _values,
    """
{% if confirmed %}<p>The best of many trials is in part a lucky one, so the best trials were trained again with other seeds.
A dot is one seed; a diamond with its bar is the mean of the seeds with its 95 % interval (Student's t); a hollow circle is
the value from the search. The best mean comes first.</p>
{{ chart(figure) | safe }}
<ul>{% for sentence in sentences %}<li>{{ sentence }}</li>{% endfor %}</ul>
{% else %}<p class="caution">Not known: no trial was trained again with other seeds. The best of {{ complete }} complete
{{ 'trial' if complete == 1 else 'trials' }} is in part a lucky one, so its value is likely too good.
<code>--set 'search.confirm={top: 3, seeds: 3}'</code> lets the same search confirm the best three.</p>{% endif %}
""",
)
