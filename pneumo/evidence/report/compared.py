"""Several studies side by side: budgets, results, the best value so far, spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pneumo.evidence.report.asked import describe_budget, describe_dimension
from pneumo.evidence.report.charts import (
    SERIES,
    Figure,
    format_number,
    format_seconds,
    make_axis,
    make_figure,
    scale_settings,
    whole_ticks,
)
from pneumo.evidence.report.course import AXES, course_of, pruning_saved
from pneumo.evidence.report.section import Section
from pneumo.spec.names import Tags
from pneumo.spec.selection import metric_value
from pneumo.spec.space import Fixed
from pneumo.spec.study_record import StudyRecord

Studies = Sequence[StudyRecord]


def shared_metric(studies: Studies) -> str:
    """Return the metric by which the studies are compared: the one that all have, else the first study's objective."""
    metrics = {record.metric for record in studies}
    return metrics.pop() if len(metrics) == 1 else "val_auc"


def courses_figure(studies: Studies, axis: str, metric: str) -> Figure | str:
    """Return the best value so far of each study as steps, over one of `AXES`."""
    courses = [(record, course_of(record.trials, metric, record.objectives)) for record in studies]
    unit = 60 if axis == "seconds" else 1
    traces: list[dict[str, Any]] = []
    for k, (record, points) in enumerate(courses):
        steps = [point for point in points if point.best is not None]
        if not steps:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": record.name,
                # The line goes on to the end of the study's budget.
                "x": [getattr(point, axis) / unit for point in steps],
                "y": [point.best for point in steps],
                "line": {"shape": "hv", "color": SERIES[k % len(SERIES)], "width": 2.2},
                "marker": {"size": 3},
                "hovertemplate": f"{metric} %{{y:.4f}}",
            }
        )
    if not traces:
        return f"No study has a complete trial with {metric}."
    title = {"trials": "trials ended", "epochs": "epochs trained", "seconds": "training time in minutes"}[axis]
    last = max(trace["x"][-1] for trace in traces)
    ticks = whole_ticks(last) if axis != "seconds" else {}
    return make_figure(
        traces,
        330,
        xaxis=make_axis(title, rangemode="tozero", **ticks),
        yaxis=make_axis(metric, **scale_settings([value for trace in traces for value in trace["y"]])),
        showlegend=True,
        margin={"l": 60, "r": 12, "t": 30 + 18 * len(traces), "b": 46},
    )


def space_rows(studies: Studies) -> list[tuple[str, list[str], bool]]:
    """Return a row for each hyperparameter that a study searches or in which they differ, and whether they differ."""
    names = [dimension.name for dimension in studies[0].experiment.space.dimensions]
    rows = []
    for name in names:
        dimensions = [record.experiment.space[name] for record in studies]
        texts = [describe_dimension(dimension) for dimension in dimensions]
        if len(set(texts)) > 1 or any(not isinstance(dimension, Fixed) for dimension in dimensions):
            rows.append((name, texts, len(set(texts)) > 1))
    return sorted(rows, key=lambda row: not row[2])


def _overview(studies: Studies) -> Mapping[str, Any]:
    metric = shared_metric(studies)
    columns = []
    for record in studies:
        best = record.best
        points = course_of(record.trials, metric, record.objectives)
        saving, search = pruning_saved(record.trials), record.experiment.search
        baseline = record.baseline
        columns.append(
            {
                "search": f"{search.engine}/{search.algorithm}",
                "pruner": search.pruner,
                "objectives": ", ".join(record.objectives),
                "budget": describe_budget(record),
                "trials ended": ", ".join(
                    f"{count} {state}"
                    for state in ("complete", "pruned", "failed")
                    if (count := len(record.of_state(state)))
                ),
                "epochs trained": format_number(points[-1].epochs) if points else "0",
                "training time": format_seconds(points[-1].seconds) if points else "",
                "pruning saved": f"{saving.epochs:,} epochs ({saving.share:.0%})" if saving.trials else "",
                f"best {metric}": format_number(metric_value(best.result, metric, record.objectives)) if best else "",
                "best trial": str(best.number) if best else "",
                f"baseline's {metric}": format_number(metric_value(baseline.result, metric, record.objectives))
                if baseline
                else "",
                "confirmed mean": format_number(record.confirmed[0].mean) if record.confirmed else "",
                "best trial's val_stress_auc": format_number(best.result.metrics.get("val_stress_auc")) if best else "",
                "best trial's parameters": format_number(best.result.metrics.get("parameters")) if best else "",
                "validation pictures": record.run.tags.get(Tags.data("validation"), "")[:12],
            }
        )
    digests = {column["validation pictures"] for column in columns}
    return {
        "names": [record.name for record in studies],
        "rows": [(key, [column[key] for column in columns]) for key in columns[0] if any(c[key] for c in columns)],
        "same_pictures": len(digests) == 1,
        "metric": metric,
    }


def _courses(studies: Studies) -> Mapping[str, Any]:
    metric = shared_metric(studies)
    return {"metric": metric, "figures": [courses_figure(studies, axis, metric) for axis in AXES]}


def _spaces(studies: Studies) -> Mapping[str, Any]:
    return {"names": [record.name for record in studies], "rows": space_rows(studies)}


OVERVIEW: Section[Studies] = Section(
    "overview",
    "The studies side by side",
    _overview,
    """
{% if not same_pictures %}<p class="caution">The studies have different validation pictures, so their figures cannot be compared
closely.</p>{% endif %}
<div class="wide"><table><thead><tr><th></th>{% for name in names %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for key, cells in rows %}<tr><td>{{ key }}</td>{% for cell in cells %}<td class="text">{{ cell }}</td>{% endfor %}
</tr>{% endfor %}</tbody></table></div>
<p class="soft">Training time is the time in which at least one trial was being trained, whatever the number of workers.</p>
""",
)

COURSES: Section[Studies] = Section(
    "courses",
    "The best value so far",
    _courses,
    """
<p>The best {{ metric }} of a complete trial, over what was spent until then.</p>
{% for figure in figures %}{{ chart(figure) | safe }}{% endfor %}
""",
)

SPACES: Section[Studies] = Section(
    "spaces",
    "The spaces",
    _spaces,
    """
<p>Hyperparameters in which the studies differ come first; those that are fixed to the same value in all are left out.</p>
<div class="wide"><table><thead><tr><th>hyperparameter</th>{% for name in names %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for name, cells, differ in rows %}<tr{% if differ %} class="best"{% endif %}><td><code>{{ name }}</code></td>
{% for cell in cells %}<td class="text">{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>
""",
)
