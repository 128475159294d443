"""What was found: the best trial against the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pneumo.evidence.report.charts import format_number
from pneumo.evidence.report.section import Section
from pneumo.spec.names import Metrics
from pneumo.spec.result import Trial
from pneumo.spec.selection import metric_value
from pneumo.spec.study_record import StudyRecord
from pneumo.spec.wording import describe_confirmation, describe_gain, describe_stress, format_value

_SHOWN = (
    Metrics.VAL_AUC,
    Metrics.VAL_ACCURACY,
    Metrics.VAL_SENSITIVITY,
    Metrics.VAL_SPECIFICITY,
    Metrics.VAL_STRESS_AUC,
    Metrics.VAL_STRESS_ACCURACY,
    Metrics.VAL_STRESS_WORST,
    Metrics.PARAMETERS,
    Metrics.TRAIN_SECONDS,
)


def _values(record: StudyRecord) -> Mapping[str, Any]:
    best, baseline, objectives = record.best, record.baseline, record.objectives
    if best is None:
        return {"best": None, "trials": len(record.trials), "bounds": record.experiment.promote.subject_to}
    sentences = [describe_gain(best, baseline, objectives[0])] if baseline else []
    if record.confirmed and record.confirmed[0].number == best.number:
        sentences.append(describe_confirmation(record.confirmed[0], record.experiment))
    if stress := describe_stress(best):
        sentences.append(stress)
    other = baseline if baseline and baseline.number != best.number else None
    names = list(dict.fromkeys([record.metric, *objectives, *_SHOWN]))
    return {
        "best": best,
        "baseline": other,
        "tiles": _tiles(record, best, other),
        "sentences": sentences,
        "rows": [
            (name, format_number(value), format_number(_value(other, name, record)))
            for name in names
            if (value := _value(best, name, record)) is not None
        ],
    }


def _tiles(record: StudyRecord, best: Trial, baseline: Trial | None) -> list[tuple[str, str, str]]:
    """Return the figures at the head of the page: what, how much, a remark."""
    name = record.metric
    tiles = [(f"best {name}", format_value(_value(best, name, record)), f"trial {best.number}")]
    if baseline:
        tiles.append(("the tutorial's network", format_value(_value(baseline, name, record)), "trial 0"))
    return tiles


def _value(trial: Trial | None, name: str, record: StudyRecord) -> float | None:
    return metric_value(trial.result, name, record.objectives) if trial else None


SECTION = Section(
    "found",
    "What was found",
    _values,
    """
{% if not best %}<p class="note">{% if trials %}No trial is complete{% if bounds %} and within the bounds{% endif %}, so there
is no result.{% else %}No trial has ended yet.{% endif %}</p>
{% else %}<div class="tiles">{% for what, value, remark in tiles %}<div class="tile"><div class="soft">{{ what }}</div>
<div class="value">{{ value }}</div><div class="soft">{{ remark }}</div></div>{% endfor %}</div>
{% for sentence in sentences %}<p>{{ sentence }}</p>{% endfor %}
<div class="wide"><table><thead><tr><th>figure on validation pictures</th><th class="number">{{ link('trial ' ~ best.number,
best.result.run_id) | safe }}</th>{% if baseline %}<th class="number">{{ link('baseline', baseline.result.run_id) | safe }}</th>{% endif %}
</tr></thead><tbody>{% for name, ours, theirs in rows %}<tr><td><code>{{ name }}</code></td><td class="number">{{ ours }}</td>
{% if baseline %}<td class="number">{{ theirs }}</td>{% endif %}</tr>{% endfor %}</tbody></table></div>
<p class="soft">The best trial and its best epoch were chosen on these pictures, so its figures are somewhat too good. Only a
promotion judges it on the sealed test pictures.</p>{% endif %}
""",
)
