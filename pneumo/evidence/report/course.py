"""How the search went: the best value so far, learning curves, the timeline, and what pruning saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pneumo.evidence.report.charts import (
    GREEN,
    GREY,
    STATE_COLOURS,
    STATE_SYMBOLS,
    Figure,
    format_seconds,
    hover_text,
    make_axis,
    make_figure,
    scale_settings,
    whole_ticks,
)
from pneumo.evidence.report.section import Section
from pneumo.spec.names import Metrics
from pneumo.spec.objective import OBJECTIVES, epoch_metric, epoch_objective
from pneumo.spec.result import Trial
from pneumo.spec.selection import metric_value
from pneumo.spec.study_record import StudyRecord

AXES = ("trials", "epochs", "seconds")
"""What the best value so far is drawn over."""


@dataclass(frozen=True)
class Point:
    """The state of a search at the end of a trial.

    Attributes:
        trial: The trial.
        trials: Number of trials that have ended, this one included.
        epochs: Epochs that were trained until then, in all trials.
        seconds: Time until then in which at least one trial was being trained.
        value: The trial's value; None unless it is complete.
        best: The best value so far; None before the first complete trial.
    """

    trial: Trial
    trials: int
    epochs: int
    seconds: float
    value: float | None
    best: float | None


@dataclass(frozen=True)
class Saving:
    """What pruning saved.

    Attributes:
        trials: Number of pruned trials.
        epochs: Epochs that they were not trained for.
        share: Share of these epochs in all that would have been trained, 0 to 1.
        seconds: Their time at each trial's own pace.
    """

    trials: int
    epochs: int
    share: float
    seconds: float


def course_of(trials: Sequence[Trial], objective: str, objectives: Sequence[str]) -> list[Point]:
    """Return the states of a search, in the order in which the trials ended."""
    ordered = sorted(trials, key=lambda trial: (trial.result.ended, trial.number))
    sign = 1.0 if OBJECTIVES[objective] == "maximize" else -1.0
    points: list[Point] = []
    best: float | None = None
    epochs = 0
    for count, trial in enumerate(ordered, start=1):
        epochs += epochs_of(trial)
        complete = trial.result.state == "complete"
        value = metric_value(trial.result, objective, objectives) if complete else None
        if value is not None and (best is None or sign * value > sign * best):
            best = value
        points.append(Point(trial, count, epochs, _busy_seconds(ordered, trial.result.ended), value, best))
    return points


def epochs_of(trial: Trial) -> int:
    """Return how many epochs a trial trained."""
    return int(trial.result.metrics.get(Metrics.EPOCHS_TRAINED, len(trial.result.history)))


def pruning_saved(trials: Sequence[Trial]) -> Saving:
    """Return what pruning saved."""
    pruned = [trial for trial in trials if trial.result.state == "pruned"]
    missing = [max(0, t.candidate.epochs - t.candidate.first_epoch - epochs_of(t)) for t in pruned]
    pace = [(t.result.ended - t.result.started) / max(1, epochs_of(t)) for t in pruned]
    saved, trained = sum(missing), sum(map(epochs_of, trials))
    seconds = sum(epochs * each for epochs, each in zip(missing, pace, strict=True))
    return Saving(len(pruned), saved, saved / (saved + trained) if saved else 0.0, seconds)


def best_so_far_figure(points: Sequence[Point], axis: str, objective: str, baseline: float | None) -> Figure | str:
    """Return the best value so far as steps, with a mark for each trial, over one of `AXES`."""
    known = [point for point in points if point.value is not None]
    if not known:
        return "No trial is complete yet."
    hours = axis == "seconds" and points[-1].seconds > 7200
    minutes = axis == "seconds" and not hours and points[-1].seconds > 180
    unit = 3600 if hours else 60 if minutes else 1
    x = {id(point): getattr(point, axis) / unit for point in points}
    title = {"trials": "trials ended", "epochs": "epochs trained"}.get(
        axis, f"training time in {'hours' if hours else 'minutes' if minutes else 'seconds'}"
    )
    values = [point.value for point in known if point.value is not None]
    bottom = min(values) if OBJECTIVES[objective] == "maximize" else max(values)
    traces: list[dict[str, Any]] = []
    for state in STATE_COLOURS:
        marked = known if state == "complete" else [p for p in points if p.trial.result.state == state]
        if marked:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": state,
                    "x": [x[id(point)] for point in marked],
                    # One that has no value of its own stands at the poor end.
                    "y": [bottom if point.value is None else point.value for point in marked],
                    "text": [hover_text(point.trial, point.value) for point in marked],
                    "hovertemplate": "%{text}<extra></extra>",
                    "marker": {
                        "color": STATE_COLOURS[state],
                        "symbol": STATE_SYMBOLS[state],
                        "size": 6 if state == "complete" else 8,
                        "opacity": 0.75,
                        "line": {"width": 1.6} if state != "complete" else {"width": 0},
                    },
                }
            )
    steps = [point for point in points if point.best is not None]
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": [x[id(point)] for point in steps],
            "y": [point.best for point in steps],
            "line": {"shape": "hv", "color": GREEN, "width": 2.4},
            "hoverinfo": "skip",
        }
    )
    shapes, notes = [], []
    if baseline is not None:
        shapes = [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": baseline, "y1": baseline}
            | {"line": {"color": GREY, "width": 1.2, "dash": "dash"}}
        ]
        notes = [{"xref": "paper", "x": 1, "xanchor": "right", "y": baseline, "yanchor": "bottom", "showarrow": False}]
        notes[0] |= {"text": "baseline", "font": {"size": 11}}
    scale = scale_settings(values)
    if scale["type"] == "log" and notes:
        notes = []  # an annotation's place on a logarithmic axis is given as an exponent
    ticks = whole_ticks(x[id(points[-1])]) if axis != "seconds" else {}
    return make_figure(
        traces,
        300,
        xaxis=make_axis(title, rangemode="tozero", **ticks),
        yaxis=make_axis(objective, **scale),
        shapes=shapes,
        annotations=notes,
        showlegend=True,
        margin={"l": 60, "r": 12, "t": 44, "b": 46},
    )


def learning_curves_figure(record: StudyRecord) -> Figure | str:
    """Return the objective over the epochs, a line for each trial, with the best trial and the baseline on top."""
    metric = epoch_metric(epoch_objective(record.objectives))
    drawn = [trial for trial in record.trials if trial.result.history]
    if not drawn:
        return f"No trial has recorded {metric} after an epoch."
    special = {t.number: (name, colour) for t, name, colour in ((record.baseline, "baseline", GREY),) if t}
    if record.best:
        special[record.best.number] = ("best trial", GREEN)
    traces: list[dict[str, Any]] = []
    last = 1
    for trial in sorted(drawn, key=lambda trial: trial.number in special):
        first = trial.candidate.first_epoch + 1
        name, colour = special.get(trial.number, (trial.result.state, STATE_COLOURS[trial.result.state]))
        strong = trial.number in special
        x = list(range(first, first + len(trial.result.history)))
        last = max(last, x[-1])
        traces.append(
            {
                "type": "scatter",
                "mode": "lines" if len(x) > 1 else "markers",
                "name": name,
                "legendgroup": name,
                "showlegend": name not in {t["name"] for t in traces},
                "x": x,
                "y": [round(value, 5) for value in trial.result.history],
                "line": {
                    "color": colour,
                    "width": 2.6 if strong else 1.1,
                    "dash": "dash" if name == "baseline" else "solid",
                },
                "marker": {"color": colour, "size": 6},
                "opacity": 1 if strong else 0.45 if len(drawn) <= 60 else 0.25,
                "hovertemplate": f"trial {trial.number}, epoch %{{x}}: %{{y:.4f}}<extra></extra>",
            }
        )
    return make_figure(
        traces,
        380,
        xaxis=make_axis("epoch", **whole_ticks(last)),
        yaxis=make_axis(metric),
        showlegend=True,
        margin={"l": 60, "r": 12, "t": 44, "b": 46},
    )


def timeline_figure(trials: Sequence[Trial]) -> Figure | str:
    """Return when each trial ran, coloured by how it ended."""
    timed = [trial for trial in trials if trial.result.ended > trial.result.started]
    if not timed:
        return "No trial has a beginning and an end."
    traces = []
    for state, colour in STATE_COLOURS.items():
        bars = [trial for trial in timed if trial.result.state == state]
        if bars:
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": state,
                    "base": [_utc(trial.result.started) for trial in bars],
                    "x": [round((trial.result.ended - trial.result.started) * 1000) for trial in bars],
                    "y": [trial.number for trial in bars],
                    "text": [
                        f"trial {t.number}, {state}: {format_seconds(t.result.ended - t.result.started)}" for t in bars
                    ],
                    "textposition": "none",
                    "hovertemplate": "%{text}<extra></extra>",
                    "marker": {"color": colour},
                    "width": 0.8,
                }
            )
    height = min(620, 130 + max(9, 26 - len(timed) // 2) * len(timed))
    return make_figure(
        traces,
        height,
        xaxis=make_axis("time (UTC)", type="date", nticks=5, tickangle=0),
        yaxis=make_axis("trial", autorange="reversed", **whole_ticks(max(trial.number for trial in timed))),
        barmode="overlay",
        showlegend=True,
        margin={"l": 60, "r": 12, "t": 44, "b": 46},
    )


def _busy_seconds(trials: Sequence[Trial], until: float) -> float:
    """Return the time before `until` in which at least one trial was being trained."""
    busy, reached = 0.0, float("-inf")
    for started, ended in sorted((t.result.started, min(t.result.ended, until)) for t in trials):
        begin = max(started, reached)
        if ended > begin:
            busy, reached = busy + ended - begin, ended
    return busy


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _values(record: StudyRecord) -> Mapping[str, Any] | None:
    if not record.trials:
        return None
    figures = []
    for objective in record.objectives:
        points = course_of(record.trials, objective, record.objectives)
        baseline = metric_value(record.baseline.result, objective, record.objectives) if record.baseline else None
        figures.append((objective, [best_so_far_figure(points, axis, objective, baseline) for axis in AXES]))
    last = points[-1]
    return {
        "figures": figures,
        "last": last,
        "time": format_seconds(last.seconds),
        "counts": {state: len(record.of_state(state)) for state in STATE_COLOURS},
        "saving": (saving := pruning_saved(record.trials)),
        "saved": format_seconds(saving.seconds),
        "ended": record.run.tags.get("pneumo.ended"),
        "curves": learning_curves_figure(record),
        "timeline": timeline_figure(record.trials),
    }


SECTION = Section(
    "course",
    "How the search went",
    _values,
    """
<p>{{ last.trials }} {{ 'trial' if last.trials == 1 else 'trials' }} ended: {{ counts.complete }} complete,
{{ counts.pruned }} pruned, {{ counts.failed }} failed. They trained {{ number(last.epochs) }} epochs in {{ time }}
(time in which at least one trial was being trained).
{% if ended %}The last search ended: {{ ended }}.{% endif %}
{% if saving.trials %}Pruning saved {{ number(saving.epochs) }} epochs ({{ '%.0f' | format(saving.share * 100) }} % of what
would have been trained), about {{ saved }} at the pace of the pruned trials.{% endif %}</p>
{% for objective, plots in figures %}<h3>Best {{ objective }} so far</h3>
<p>The line makes a step when a complete trial is better than all that ended before it. A trial that was pruned or failed
stands at the poor end.</p>
<div class="charts">{% for plot in plots %}{{ chart(plot) | safe }}{% endfor %}</div>{% endfor %}
<h3>Learning curves</h3>
<p>Each line is a trial. A line that ends early is of a trial that was pruned or failed.</p>
{{ chart(curves) | safe }}
<h3>When each trial ran</h3>
{{ chart(timeline) | safe }}
""",
)
