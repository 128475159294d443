"""Which hyperparameters mattered: importances, slices, parallel coordinates, and what the best trials have in common."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pneumo.evidence.report.charts import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Figure,
    hover_text,
    log_settings,
    make_axis,
    make_figure,
    scale_settings,
    whole_ticks,
)
from pneumo.evidence.report.importance import FEW_TRIALS, Importances, compute_importances
from pneumo.evidence.report.section import Section
from pneumo.spec.hyperparameters import Value
from pneumo.spec.result import Trial
from pneumo.spec.selection import metric_value
from pneumo.spec.space import Choice, Searched
from pneumo.spec.study_record import StudyRecord
from pneumo.spec.wording import format_hyperparameter

BEST = 10
"""Largest number of trials that are called the best ones."""


def best_trials(record: StudyRecord) -> Sequence[Trial]:
    """Return the best `BEST` trials, but at most a third of the complete ones."""
    return record.ranking[: min(BEST, max(1, len(record.ranking) // 3))]


def importance_figure(importances: Importances | str) -> Figure | str:
    """Return the importances as bars with their spread, or the sentence that stands for them."""
    if isinstance(importances, str):
        return importances
    each = importances.each
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [round(max(0.0, importance.mean), 4) for importance in each],
        "y": [importance.name for importance in each],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [round(max(0.0, i.high - max(0.0, i.mean)), 4) for i in each],
            "arrayminus": [round(max(0.0, max(0.0, i.mean) - max(0.0, i.low)), 4) for i in each],
            "color": GREY,
            "thickness": 1.6,
        },
        "marker": {"color": BLUE},
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
    }
    height = 90 + 26 * len(each)
    yaxis = make_axis("", autorange="reversed", type="category", nticks=len(each))
    return make_figure(
        [trace],
        height,
        xaxis=make_axis("importance, as a share of the variation", rangemode="tozero"),
        yaxis=yaxis,
        bargap=0.4,
    )


def slice_figure(dimension: Searched, record: StudyRecord) -> Figure | str:
    """Return the value of the complete trials over one hyperparameter; the best trial and the baseline are marked."""
    name = dimension.name
    shown = [
        (trial, value)
        for trial in record.of_state("complete")
        if name in trial.candidate.hyperparameters and (value := _value(trial, record)) is not None
    ]
    if _is_log(dimension):  # a logarithmic axis cannot show the 0 of the tutorial's network
        shown = [(trial, value) for trial, value in shown if float(trial.candidate.hyperparameters[name]) > 0]
    if not shown:
        return f"{name}: no complete trial has a value that can be shown."
    marks = {trial.number: ORANGE for trial in (record.baseline,) if trial}
    marks |= {trial.number: GREEN for trial in (record.best,) if trial}
    shown.sort(key=lambda pair: pair[0].number in marks)  # Plotly draws later points on top
    x = [trial.candidate.hyperparameters[name] for trial, _ in shown]
    settings: dict[str, Any] = {"type": "linear"}
    if isinstance(dimension, Choice):
        levels = _sorted((*dimension.values, *x))  # the baseline may have a value that is not searched
        settings = {"type": "category", "categoryorder": "array"}
        settings["categoryarray"] = [format_hyperparameter(level) for level in levels]
    elif _is_log(dimension):
        settings = log_settings([float(value) for value in x])
    elif dimension.integer:
        settings |= whole_ticks(max(map(float, x)) - min(map(float, x)))
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [format_hyperparameter(value) for value in x] if isinstance(dimension, Choice) else x,
        "y": [value for _, value in shown],
        "text": [hover_text(trial, value) for trial, value in shown],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": [marks.get(trial.number, BLUE) for trial, _ in shown],
            "size": [11 if trial.number in marks else 6 for trial, _ in shown],
            "opacity": [1 if trial.number in marks else 0.65 for trial, _ in shown],
        },
    }
    # All slices have the same vertical axis, so that they can be compared.
    values = [value for trial in record.of_state("complete") if (value := _value(trial, record)) is not None]
    yaxis = make_axis(record.metric, **scale_settings(values))
    if yaxis["type"] == "linear":
        margin = 0.06 * (max(values) - min(values)) or 0.05 * abs(values[0]) or 1.0
        yaxis["range"] = [min(values) - margin, max(values) + margin]
    return make_figure([trace], 240, xaxis=make_axis(name, **settings), yaxis=yaxis)


def parallel_figure(record: StudyRecord) -> Figure | str:
    """Return a line for each complete trial over all hyperparameters and the metric; the best ones are in colour."""
    complete = [t for t in record.of_state("complete") if _value(t, record) is not None]
    dimensions = [d for d in record.experiment.space.searched if _is_varied(d, complete)]
    if len(complete) < 2:
        return "Parallel coordinates need at least two complete trials."
    if not dimensions:
        return "No hyperparameter took more than one value."
    columns = [
        _column(d.name, [t.candidate.hyperparameters.get(d.name) for t in complete], _is_log(d)) for d in dimensions
    ]
    columns.append(_column(record.metric, [_value(t, record) for t in complete], log=False))
    best = {trial.number for trial in best_trials(record)}
    traces = []
    for name, colour, width, opacity, members in (
        ("other trials", GREY, 1.0, 0.55, [k for k, t in enumerate(complete) if t.number not in best]),
        (f"best {len(best)}", GREEN, 1.8, 0.95, [k for k, t in enumerate(complete) if t.number in best]),
    ):
        x: list[float | None] = []
        y: list[float | None] = []
        texts: list[str | None] = []
        for k in members:
            x += [*range(len(columns)), None]
            y += [*(column.places[k] for column in columns), None]
            texts += [hover_text(complete[k], _value(complete[k], record))] * len(columns) + [None]
        traces.append(
            {"type": "scatter", "mode": "lines+markers", "name": name, "x": x, "y": y, "text": texts}
            | {"hovertemplate": "%{text}<extra></extra>", "line": {"color": colour, "width": width}}
            | {"opacity": opacity, "marker": {"size": 4, "color": colour}, "connectgaps": False}
        )
    notes = [
        {
            "x": k,
            "y": place,
            "text": text,
            "showarrow": False,
            "xanchor": "left" if k == 0 else "right",
            "yanchor": "bottom",
        }
        | {"font": {"size": 10}, "xshift": 3 if k == 0 else -3}
        for k, column in enumerate(columns)
        for place, text in column.ticks
    ]
    return make_figure(
        traces,
        420,
        xaxis={"tickvals": list(range(len(columns))), "ticktext": [column.name for column in columns]}
        | {"tickangle": -25, "zeroline": False, "automargin": True, "range": [-0.25, len(columns) - 0.75]},
        yaxis={"visible": False, "range": [-0.06, 1.1]},
        annotations=notes,
        showlegend=True,
        margin={"l": 16, "r": 16, "t": 40, "b": 70},
    )


class _Column:
    """An axis of the parallel coordinates: the place of each trial from 0 to 1, and the texts along it."""

    def __init__(self, name: str, places: list[float], ticks: list[tuple[float, str]]) -> None:
        self.name, self.places, self.ticks = name, places, ticks


def _column(name: str, values: Sequence[Value | None], log: bool) -> _Column:
    if log:
        values = [value if value is not None and float(value) > 0 else None for value in values]
    known = [value for value in values if value is not None]
    numbers = [value for value in known if not isinstance(value, str | bool)]
    if len(numbers) < len(known) or len(set(known)) <= 4:
        levels = [*(["none"] if None in values else []), *map(format_hyperparameter, _sorted(known))]
        texts = ["none" if value is None else format_hyperparameter(value) for value in values]
        levels = list(dict.fromkeys(levels))
        last = max(1, len(levels) - 1)
        places = [levels.index(text) / last for text in texts]
        return _Column(name, places, [(k / last, level) for k, level in enumerate(levels)])
    scaled = [math.log(value) if log else float(value) for value in numbers]
    low, high = min(scaled), max(scaled)
    span = high - low or 1.0
    # A trial for which the hyperparameter does not apply, or of which a logarithmic axis cannot show it, is below the axis.
    of_value = dict(zip(numbers, scaled, strict=True))
    places = [-0.05 if value is None else (of_value[value] - low) / span for value in values]  # type: ignore[index]
    ticks = [(0.0, format_hyperparameter(min(numbers))), (1.0, format_hyperparameter(max(numbers)))]
    return _Column(name, places, ticks)


def common_rows(record: StudyRecord) -> list[dict[str, str]]:
    """Return a row for each searched hyperparameter: its values among the best trials, and among all complete ones."""
    best, complete = best_trials(record), record.of_state("complete")
    rows = []
    for dimension in record.experiment.space.searched:
        of_best, of_all = _present(dimension.name, best), _present(dimension.name, complete)
        if of_best:
            rows.append(
                {
                    "name": dimension.name,
                    "best": _summary(of_best, isinstance(dimension, Choice)),
                    "all": _summary(of_all, isinstance(dimension, Choice)),
                    "verdict": _verdict(of_best, of_all, isinstance(dimension, Choice), len(best)),
                }
            )
    return rows


def _verdict(best: Sequence[Value], every: Sequence[Value], choice: bool, count: int) -> str:
    """Return what the best trials share that the others do not; empty if nothing stands out."""
    discrete = choice or any(isinstance(value, str | bool) for value in best)
    if len(best) < 3 or len(set(every)) < 2:
        return ""
    value, times = Counter(best).most_common(1)[0]
    share = sum(other == value for other in every) / len(every)
    if times == len(best) and share < 0.9:
        return f"all {times}: {format_hyperparameter(value)}"
    if discrete:
        more = times / len(best) >= max(0.6, share + 0.25)
        return f"{times} of {count}: {format_hyperparameter(value)}" if more else ""
    low, high = min(map(float, best)), max(map(float, best))
    within = sum(low <= float(other) <= high for other in every) / len(every)
    return f"all between {low:.3g} and {high:.3g}, as {within:.0%} of all trials" if within <= 0.7 else ""


def _summary(values: Sequence[Value], choice: bool) -> str:
    if choice or any(isinstance(value, str | bool) for value in values) or len(set(values)) <= 3:
        counts = Counter(values)
        return ", ".join(f"{format_hyperparameter(value)}: {counts[value]}" for value in _sorted(list(counts)))
    numbers = [float(value) for value in values]
    return f"{min(numbers):.3g} to {max(numbers):.3g}, median {median(numbers):.3g}"


def _present(name: str, trials: Sequence[Trial]) -> list[Value]:
    return [trial.candidate.hyperparameters[name] for trial in trials if name in trial.candidate.hyperparameters]


def _sorted(values: Sequence[Value]) -> list[Value]:
    distinct = list(dict.fromkeys(values))
    if any(isinstance(value, str) for value in distinct):
        return sorted(distinct, key=str)
    return sorted(distinct, key=float)


def _is_varied(dimension: Searched, trials: Sequence[Trial]) -> bool:
    return len({trial.candidate.hyperparameters.get(dimension.name) for trial in trials}) > 1


def _is_log(dimension: Searched) -> bool:
    return not isinstance(dimension, Choice) and dimension.log


def _value(trial: Trial, record: StudyRecord) -> float | None:
    return metric_value(trial.result, record.metric, record.objectives)


def _values(record: StudyRecord) -> Mapping[str, Any] | None:
    searched, complete = record.experiment.space.searched, record.of_state("complete")
    if not searched or not complete:
        return None
    varied = [dimension for dimension in searched if _is_varied(dimension, complete)]
    importances = compute_importances(complete, record.metric, record.objectives, searched)
    return {
        "metric": record.metric,
        "importances": importances,
        "known": not isinstance(importances, str),
        "few": FEW_TRIALS,
        "complete": len(complete),
        "figure": importance_figure(importances),
        "slices": [slice_figure(dimension, record) for dimension in varied],
        "omitted": [
            (d.name, trial.number)
            for d in varied
            if _is_log(d)
            for trial in complete
            if float(trial.candidate.hyperparameters.get(d.name, 1)) <= 0
        ],
        "still": [dimension.name for dimension in searched if dimension not in varied],
        "rows": common_rows(record) if len(complete) > BEST else [],
        "best": len(best_trials(record)),
        "parallel": parallel_figure(record),
    }


SECTION = Section(
    "hyperparameters",
    "Which hyperparameters mattered",
    _values,
    """
<h3>Importance</h3>
{% if known %}<p>How much worse a random forest predicts the rank of a trial's {{ metric }}, on trials that it did not learn
from, if the values of one hyperparameter are shuffled. The line is the spread over eight divisions of the trials and seeds
of the forest's trees. Together the hyperparameters explain {{ '%.0f' | format([importances.explained, 0] | max * 100) }} % of
the variation of these ranks.</p>
{% if complete < few %}<p class="caution"><strong>Caution.</strong> With {{ complete }} complete trials (fewer than {{ few }})
the order of the hyperparameters is mostly chance.</p>{% endif %}
{% if importances.explained <= 0.05 %}<p class="caution">The hyperparameters explain next to nothing: the differences between
these trials are about what another seed would make.</p>{% endif %}{% endif %}
{{ chart(figure) | safe }}
{% if slices %}<h3>One hyperparameter at a time</h3>
<p>Each point is a complete trial: green the best one, orange the baseline. Other hyperparameters differ too, so a slope is a
hint and no proof.{% for name, number in omitted %} {{ name }} of trial {{ number }} is 0, which a logarithmic axis cannot
show.{% endfor %}</p>
<div class="charts">{% for plot in slices %}{{ chart(plot) | safe }}{% endfor %}</div>{% endif %}
{% if still %}<p>Took one value in all complete trials: {{ still | join(', ') }}.</p>{% endif %}
{% if rows %}<h3>What the best {{ best }} have in common</h3>
<div class="wide"><table><thead><tr><th>hyperparameter</th><th>among the best {{ best }}</th>
<th>among all {{ complete }} complete</th><th>stands out</th></tr></thead>
<tbody>{% for row in rows %}<tr><td><code>{{ row.name }}</code></td><td class="text">{{ row.best }}</td>
<td class="text">{{ row.all }}</td><td class="text">{{ row.verdict }}</td></tr>{% endfor %}</tbody></table></div>{% endif %}
<h3>Parallel coordinates</h3>
<p>Each line is a complete trial, a green one one of the best. It runs below an axis that does not apply to it.</p>
{{ chart(parallel) | safe }}
""",
)
