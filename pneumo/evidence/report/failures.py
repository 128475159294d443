"""What failed and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pneumo.evidence.report.section import Section
from pneumo.spec.candidate import SKIP_REASONS
from pneumo.spec.names import Metrics
from pneumo.spec.result import Trial
from pneumo.spec.stopping import common_cause
from pneumo.spec.study_record import StudyRecord
from pneumo.spec.wording import describe_skipped

MOST_CAUSES = 12
"""Largest number of causes that are listed."""


def causes_of(trials: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    """Return the causes of failures with their trials, the most frequent first.

    Errors that differ only in their numbers have one cause.
    """
    left = [trial for trial in trials if trial.result.state == "failed"]
    causes = []
    while left:
        error, _ = common_cause([trial.result.error or "no reason is recorded" for trial in left])
        of_cause = [t for t in left if common_cause([error, t.result.error or "no reason is recorded"])[1] == 2]
        causes.append((error, of_cause))
        left = [trial for trial in left if trial not in of_cause]
    return causes


def _values(record: StudyRecord) -> Mapping[str, Any] | None:
    if not record.trials:
        return None
    causes = causes_of(record.trials)
    skipped = {reason: int(record.run.metrics.get(Metrics.skipped(reason), 0)) for reason in SKIP_REASONS}
    return {
        "causes": causes[:MOST_CAUSES],
        "others": len(causes[MOST_CAUSES:]),
        "skipped": describe_skipped(skipped),
        "unreadable": int(record.run.metrics.get(Metrics.PICTURES_UNREADABLE, 0)),
        "interrupted": record.interrupted,
    }


SECTION = Section(
    "failures",
    "What failed and why",
    _values,
    """
{% if causes %}<div class="wide"><table><thead><tr><th>cause</th><th>trials</th></tr></thead><tbody>
{% for cause, trials in causes %}<tr><td class="text">{{ cause }}</td>
<td class="text">{% for trial in trials[:20] %}{{ link(trial.number, trial.result.run_id) | safe }}{{ ', ' if not loop.last }}
{%- endfor %}{% if trials | length > 20 %} and {{ trials | length - 20 }} more{% endif %}</td></tr>{% endfor %}
</tbody></table></div>{% if others %}<p>And {{ others }} more causes.</p>{% endif %}
{% else %}<p>No trial failed.</p>{% endif %}
{% for sentence in skipped %}<p>{{ sentence }}</p>{% endfor %}
{% if interrupted %}<p>{{ interrupted }} {{ 'training' if interrupted == 1 else 'trainings' }} ended before the end, because
the search was interrupted or memory ran out; each was run again if the search went on.</p>{% endif %}
{% if unreadable %}<p>{{ unreadable }} {{ 'picture' if unreadable == 1 else 'pictures' }} could not be read and
{{ 'was' if unreadable == 1 else 'were' }} left out.</p>{% endif %}
""",
)
