"""The table of all trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pneumo.evidence.report.charts import format_number
from pneumo.evidence.report.course import epochs_of
from pneumo.evidence.report.section import Section
from pneumo.spec.names import Metrics
from pneumo.spec.result import Trial
from pneumo.spec.selection import metric_value
from pneumo.spec.study_record import StudyRecord
from pneumo.spec.wording import format_hyperparameter

_METRICS = (Metrics.VAL_STRESS_AUC, Metrics.VAL_STRESS_WORST, Metrics.PARAMETERS)


def table_of(record: StudyRecord) -> tuple[list[tuple[str, bool]], list[dict[str, Any]]]:
    """Return the head of the table and its rows, best first; pruned and failed trials follow by number.

    A column has a name and whether its cells are numbers. A cell has a text, what it is sorted by, and whether it is a
    number.
    """
    metrics = list(dict.fromkeys([record.metric, *record.objectives]))
    further = [
        name for name in _METRICS if name not in metrics and any(name in t.result.metrics for t in record.trials)
    ]
    searched = [dimension.name for dimension in record.experiment.space.searched]
    place = {trial.number: k for k, trial in enumerate(record.ranking)}
    ordered = sorted(record.trials, key=lambda trial: (place.get(trial.number, len(place)), trial.number))
    rows: list[dict[str, Any]] = []
    for trial in ordered:
        values = trial.candidate.hyperparameters
        seconds = trial.result.ended - trial.result.started
        cells: list[tuple[str, Any]] = [
            (format_number(value), value)
            for value in (
                *(metric_value(trial.result, name, record.objectives) for name in metrics),
                *(trial.result.metrics.get(name) for name in further),
            )
        ]
        cells += [(format_hyperparameter(values[n]), values[n]) if n in values else ("", None) for n in searched]
        cells += [(str(epochs_of(trial)), epochs_of(trial)), (f"{seconds:,.0f}", round(seconds, 1))]
        marked = [(text, "" if key is None else key, not isinstance(key, str | bool)) for text, key in cells]
        rows.append({"trial": trial, "name": _name(trial, record), "cells": marked})
    names = [*metrics, *further, *searched, "epochs", "seconds"]
    are_numbers = [all(row["cells"][k][2] or row["cells"][k][0] == "" for row in rows) for k in range(len(names))]
    return list(zip(names, are_numbers, strict=True)), rows


def _name(trial: Trial, record: StudyRecord) -> str:
    if record.best and trial.number == record.best.number:
        return "best"
    return "baseline" if record.baseline and trial.number == record.baseline.number else ""


def _values(record: StudyRecord) -> Mapping[str, Any] | None:
    if not record.trials:
        return None
    head, rows = table_of(record)
    return {"head": head, "rows": rows, "page": record.page}


SECTION = Section(
    "trials",
    "All trials",
    _values,
    """
<p class="screen">A click on a heading sorts the table.{% if not page %} The runs have no links, because MLflow's records are
in a database and no server is known.{% endif %}</p>
<div class="wide tall"><table class="sortable"><thead><tr><th aria-sort="none"><button>trial</button></th>
<th aria-sort="none"><button>state</button></th>{% for name, is_number in head %}
<th aria-sort="none"{% if is_number %} class="number"{% endif %}><button>{{ name }}</button></th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr class="{{ row.trial.result.state }} {{ row.name }}">
<td data-key="{{ row.trial.number }}">{{ link(row.trial.number, row.trial.result.run_id) | safe }}
{%- if row.name %} <span class="mark">{{ row.name }}</span>{% endif %}</td>
<td>{{ row.trial.result.state }}</td>{% for text, key, is_number in row.cells %}
<td{% if is_number %} class="number"{% endif %} data-key="{{ key }}">{{ text }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
""",
)
