"""What was found: the best trial against the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pneumo.evidence.comparison import COMPARED_METRICS, compare_runs
from pneumo.evidence.report.charts import BLUE, GREEN, GREY, Figure, format_number, make_axis, make_figure
from pneumo.evidence.report.section import Section
from pneumo.spec.comparison import Comparison
from pneumo.spec.errors import RequestError
from pneumo.spec.names import Metrics
from pneumo.spec.result import CLASSES, Trial
from pneumo.spec.selection import metric_value
from pneumo.spec.study_record import StudyRecord
from pneumo.spec.wording import count_of, describe_gain, describe_interval, describe_stress, format_value

_SHOWN = (
    Metrics.VAL_AUC,
    Metrics.VAL_ACCURACY,
    Metrics.VAL_SENSITIVITY,
    Metrics.VAL_SPECIFICITY,
    Metrics.VAL_STRESS_AUC,
    Metrics.VAL_STRESS_ACCURACY,
    Metrics.VAL_STRESS_WORST,
    Metrics.VAL_ATTENTION_INSIDE,
    Metrics.PARAMETERS,
    Metrics.TRAIN_SECONDS,
)


def comparisons_of(record: StudyRecord) -> list[Comparison]:
    """Return the differences between the best trial and the baseline with their intervals, as far as they are known."""
    best, baseline = record.best, record.baseline
    if best is None or baseline is None or best.number == baseline.number:
        return []
    files = {trial.result.run_id: record.files.get(trial.number, {}) for trial in (best, baseline)}

    def read(run_id: str, path: str) -> bytes:
        try:
            return files[run_id][path]
        except KeyError:
            raise RequestError(f"{run_id}: has no {path}") from None

    classes = record.experiment.data.classes or CLASSES
    found = (compare_runs(read, best.result.run_id, baseline.result.run_id, name, classes) for name in COMPARED_METRICS)
    return [comparison for comparison in found if comparison is not None]


def comparison_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Return the differences with their intervals, a row for each, and a line at no difference."""
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [each.difference for each in comparisons],
        "y": [_row_name(each) for each in comparisons],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [each.high - each.difference for each in comparisons],
            "arrayminus": [each.difference - each.low for each in comparisons],
            "color": BLUE,
            "thickness": 2.4,
            "width": 7,
        },
        "marker": {"size": 12, "symbol": "diamond", "color": [BLUE if e.includes_zero else GREEN for e in comparisons]},
        "text": [f"{each.difference:+.4f}, {describe_interval(each)}" for each in comparisons],
        "hovertemplate": "%{text}<extra></extra>",
    }
    ends = [0.0, *(each.low for each in comparisons), *(each.high for each in comparisons)]
    pad = 0.08 * (max(ends) - min(ends) or 0.01)
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}
    return make_figure(
        [trace],
        90 + 50 * len(comparisons),
        xaxis=make_axis("difference in AUC (best - baseline)", range=[min(ends) - pad, max(ends) + pad]),
        yaxis=make_axis("", type="category", autorange="reversed"),
        shapes=[zero | {"line": {"color": GREY, "width": 1.5, "dash": "dash"}}],
    )


def _row_name(comparison: Comparison) -> str:
    return "stressed" if comparison.is_stressed else "plain"


def _values(record: StudyRecord) -> Mapping[str, Any]:
    best, baseline, objectives = record.best, record.baseline, record.objectives
    if best is None:
        return {"best": None, "trials": len(record.trials), "bounds": record.experiment.promote.subject_to}
    comparisons = comparisons_of(record)
    of_objective = next((each for each in comparisons if each.metric == objectives[0]), None)
    sentences = [describe_gain(best, baseline, objectives[0], of_objective)] if baseline else []
    if stress := describe_stress(best):
        sentences.append(stress)
    other = baseline if baseline and baseline.number != best.number else None
    names = list(dict.fromkeys([record.metric, *objectives, *_SHOWN]))
    return {
        "best": best,
        "baseline": other,
        "tiles": _tiles(record, best, other, comparisons),
        "comparisons": comparisons,
        "figure": comparison_figure(comparisons) if comparisons else None,
        "unsure": [_row_name(each) for each in comparisons if each.includes_zero],
        "unit": comparisons[0].unit if comparisons else "",
        "sentences": sentences,
        "rows": [
            (name, format_number(value), format_number(_value(other, name, record)))
            for name in names
            if (value := _value(best, name, record)) is not None
        ],
    }


def _tiles(
    record: StudyRecord, best: Trial, baseline: Trial | None, comparisons: Sequence[Comparison]
) -> list[tuple[str, str, str]]:
    """Return the figures at the head of the page: what, how much, a remark."""
    name = record.metric
    tiles = [(f"best {name}", format_value(_value(best, name, record)), f"trial {best.number}")]
    if baseline:
        tiles.append(("the tutorial's network", format_value(_value(baseline, name, record)), "trial 0"))
    if record.confirmed and record.confirmed[0].number == best.number:
        mean = record.confirmed[0]
        remark = f"95 % interval {format_value(mean.low)} to {format_value(mean.high)}" if mean.low is not None else ""
        tiles.append((f"mean over {count_of(len(mean.values), 'other seed')}", format_value(mean.mean), remark))
    for each in comparisons:
        remark = f"95 % interval {each.low:+.4f} to {each.high:+.4f}"
        tiles.append((f"difference in AUC, {_row_name(each)} pictures", f"{each.difference:+.4f}", remark))
    return tiles


def _value(trial: Trial | None, name: str, record: StudyRecord) -> float | None:
    return metric_value(trial.result, name, record.objectives) if trial else None


SECTION = Section(
    "found",
    "What was found",
    _values,
    """
{% if not best %}<p class="caution">{% if trials %}No trial is complete{% if bounds %} and within the bounds{% endif %}, so
there is no result.{% else %}No trial has ended yet.{% endif %}</p>
{% else %}<div class="tiles">{% for what, value, remark in tiles %}<div class="tile"><div class="soft">{{ what }}</div>
<div class="value">{{ value }}</div><div class="soft">{{ remark }}</div></div>{% endfor %}</div>
{% for sentence in sentences %}<p>{{ sentence }}</p>{% endfor %}
{% if comparisons %}{{ chart(figure) | safe }}
<p>The intervals are of the same pictures for both networks, resampled {{ unit }}; stressed pictures are those under the
geometric changes of the stress suite. They say how much the difference depends on which patients are in the validation part.
They do not say what another seed would give, and take no account of choosing the best trial among many.
{% if unsure %}An interval that includes 0 ({{ unsure | join(', ') }}) means that other patients might show the opposite.
{% endif %}</p>{% elif baseline %}<p class="soft">The difference has no interval, because the runs have no predictions of the
same pictures.</p>{% endif %}
<div class="wide"><table><thead><tr><th>figure on validation pictures</th><th class="number">{{ link('trial ' ~ best.number,
best.result.run_id) | safe }}</th>
{% if baseline %}<th class="number">{{ link('baseline', baseline.result.run_id) | safe }}</th>{% endif %}
</tr></thead><tbody>{% for name, ours, theirs in rows %}<tr><td><code>{{ name }}</code></td><td class="number">{{ ours }}</td>
{% if baseline %}<td class="number">{{ theirs }}</td>{% endif %}</tr>{% endfor %}</tbody></table></div>
<p class="soft">The best trial and its best epoch were chosen on these pictures, so its figures are somewhat too good. Only a
promotion judges it on the sealed test pictures.</p>{% endif %}
""",
)
