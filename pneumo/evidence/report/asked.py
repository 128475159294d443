"""What was asked: the search and its space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pneumo.evidence.report.charts import format_seconds
from pneumo.evidence.report.section import Section
from pneumo.spec.hyperparameters import TUTORIAL, Hyperparameters
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.space import Choice, Dimension, Fixed, Range
from pneumo.spec.study_record import StudyRecord
from pneumo.spec.wording import count_of, describe_bound, format_hyperparameter


def _values(record: StudyRecord) -> Mapping[str, Any]:
    search, rule = record.experiment.search, record.experiment.promote.rule
    fields = Hyperparameters.model_fields
    return {
        "record": record,
        "aims": [f"{'high' if OBJECTIVES[name] == 'maximize' else 'low'} {name}" for name in record.objectives],
        "engine": f"{search.engine}/{search.algorithm}",
        "budget": describe_budget(record),
        "pruner": "no trial is stopped early"
        if search.pruner == "none"
        else f"the pruner {search.pruner} stops poor trials",
        "rule": rule,
        "bounds": [f"{name} {describe_bound(bound)}" for name, bound in rule.subject_to.items()] if rule else [],
        "confirm": search.confirm,
        "space": [
            (
                d.name,
                describe_dimension(d),
                format_hyperparameter(getattr(TUTORIAL, d.name)),
                fields[d.name].description,
            )
            for d in record.experiment.space.searched
        ],
    }


def describe_budget(record: StudyRecord) -> str:
    """Return the limits of a search, as `30 trials or 2 h 00 min`."""
    search = record.experiment.search
    parts = [count_of(search.trials, "trial")]
    if search.timeout is not None:
        parts.append(format_seconds(search.timeout))
    return " or ".join(parts)


def describe_dimension(dimension: Dimension) -> str:
    """Return the values of a hyperparameter, with its condition."""
    match dimension:
        case Fixed(value=value):
            text = format_hyperparameter(value)
        case Choice(values=values):
            text = ", ".join(map(format_hyperparameter, values))
        case Range(low=low, high=high, log=log, step=step):
            text = f"{low:g} to {high:g}" + (", logarithmic" if log else "") + (f", step {step:g}" if step else "")
    if dimension.when:
        conditions = (f"{name} {' or '.join(map(str, allowed))}" for name, allowed in dimension.when.items())
        text += f" (if {' and '.join(conditions)})"
    return text


SECTION = Section(
    "asked",
    "What was asked",
    _values,
    """
<p>A small network for chest X-rays has hyperparameters: layers, filters, learning rate and more. The study varies
{{ space | length }} of them around a tutorial's network and looks for {{ aims | join(' and ') }} on validation pictures
that no network was trained on. {{ engine }} proposes the trials; {{ pruner }}. The budget is {{ budget }}.
{% if record.experiment.search.baseline %}Trial 0 is the tutorial's own network, the baseline.{% endif %}</p>
{% if rule %}<p>The best trial is the one with the {{ 'lowest' if rule.max is none else 'highest' }} {{ rule.metric }}
{%- if bounds %}, among those with {{ bounds | join(' and ') }}{% endif %}.</p>{% endif %}
{% if confirm %}<p>At the end the best {{ confirm.top }} are trained again with {{ confirm.seeds }} other seeds.</p>{% endif %}
{% if record.phantom %}<p class="caution">The pictures are generated <strong>phantoms</strong>, not X-rays. No figure here says
anything about patients.</p>{% endif %}
{% if space %}<div class="wide"><table>
<thead><tr><th>hyperparameter</th><th>values searched</th><th>tutorial</th><th>what it is</th></tr></thead>
<tbody>{% for name, values, tutorial, description in space %}<tr><td><code>{{ name }}</code></td><td>{{ values }}</td>
<td>{{ tutorial }}</td><td class="long">{{ description or '' }}</td></tr>{% endfor %}</tbody></table></div>
{% else %}<p>No hyperparameter is searched.</p>{% endif %}
""",
)
