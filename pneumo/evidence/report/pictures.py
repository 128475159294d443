"""The data and its audit in short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pneumo.evidence.report.section import Section
from pneumo.spec.names import Tags
from pneumo.spec.result import PARTS
from pneumo.spec.study_record import StudyRecord

MOST_FINDINGS = 5
"""Largest number of findings of one kind that are shown."""

_FIRST = ("shortcut",)
"""Kinds of findings that come first within their severity."""


def findings_by_severity(record: StudyRecord) -> list[dict[str, Any]]:
    """Return the findings by severity, worst first, and within a severity by kind, `MOST_FINDINGS` of each."""
    groups = []
    for severity in ("fault", "warning", "note"):
        findings = [finding for finding in record.findings if finding.severity == severity]
        kinds = sorted(dict.fromkeys(f.kind for f in findings), key=lambda kind: not kind.startswith(_FIRST))
        if findings:
            of_kind = [(kind, [f.message for f in findings if f.kind == kind]) for kind in kinds]
            groups.append({"severity": severity, "count": len(findings), "kinds": of_kind})
    return groups


def _values(record: StudyRecord) -> Mapping[str, Any]:
    tags = record.run.tags
    data = record.experiment.data
    names = list(dict.fromkeys(name for counts in record.counts.values() for name in counts))
    named = {"num_rows": "pictures"}
    return {
        "source": data.source,
        "path": data.path,
        "patients": tags.get(Tags.DATA_PATIENTS),
        "leaks": data.allow_leaks,
        "head": [named.get(name, name) for name in names],
        "parts": [(part, [record.counts[part].get(n, 0) for n in names]) for part in PARTS if part in record.counts],
        "digests": {part: tags[Tags.data(part)] for part in (*PARTS, "test") if Tags.data(part) in tags},
        "groups": findings_by_severity(record),
        "most": MOST_FINDINGS,
    }


SECTION = Section(
    "pictures",
    "The pictures and their audit",
    _values,
    """
<p>Source: {{ source }}{% if path %}, <code>{{ path }}</code>{% endif %}.
{% if patients %}Patients: {{ patients }}.{% endif %} A patient's pictures are all in one part. The test pictures are sealed:
the search did not read them.</p>
{% if parts %}<div class="wide"><table><thead><tr><th>part</th>
{% for name in head %}<th class="number">{{ name }}</th>{% endfor %}</tr>
</thead><tbody>{% for part, counts in parts %}<tr><td>{{ part }}</td>{% for count in counts %}
<td class="number">{{ number(count) }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>{% endif %}
{% if leaks %}<p class="caution"><strong>Leaks between training and test were allowed:</strong> {{ leaks }}</p>{% endif %}
{% for group in groups %}<h3>{{ group.severity | capitalize }}s ({{ group.count }})</h3>
<ul class="{{ group.severity }}">{% for kind, messages in group.kinds %}
<li><strong>{{ kind }}</strong>{% if messages | length > most %} <span class="soft">({{ most }} of {{ messages | length }}
shown)</span>{% endif %}
<ul>{% for message in messages[:most] %}<li>{{ message }}</li>{% endfor %}</ul></li>{% endfor %}</ul>
{% else %}<p>The audit found nothing that is worth knowing.</p>{% endfor %}
<p class="soft">The run of the study has all findings in <code>audit.json</code>.</p>
""",
)
