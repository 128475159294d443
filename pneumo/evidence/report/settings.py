"""Every setting of the study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from pneumo.evidence.report.section import Section
from pneumo.spec.experiment import Experiment
from pneumo.spec.study_record import StudyRecord


def changed_settings(experiment: Experiment) -> list[tuple[str, str, str]]:
    """Return the settings that differ from their defaults: key, value, default."""
    default = dict(_flatten(yaml.safe_load(Experiment(name=experiment.name).to_yaml())))
    own = dict(_flatten(yaml.safe_load(experiment.to_yaml())))
    keys = [key for key in dict.fromkeys((*own, *default)) if own.get(key) != default.get(key)]
    keys = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]  # null instead of a block
    return [(key, own.get(key, "-"), default.get(key, "-")) for key in keys]


def _flatten(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each setting with its dotted key. A hyperparameter is one setting, as is a list."""
    is_hyperparameter = key.startswith("hyperparameters.")
    if isinstance(value, dict) and value and not is_hyperparameter:
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def _values(record: StudyRecord) -> Mapping[str, Any]:
    return {"changed": changed_settings(record.experiment), "yaml": record.experiment.to_yaml()}


SECTION = Section(
    "settings",
    "Every setting",
    _values,
    """
<p>These differ from the defaults. A hyperparameter's default is the tutorial's value.</p>
<div class="wide"><table><thead><tr><th>setting</th><th>this study</th><th>default</th></tr></thead><tbody>
{% for key, value, default in changed %}<tr><td><code>{{ key }}</code></td><td class="text">{{ value }}</td>
<td class="text">{{ default }}</td></tr>{% endfor %}</tbody></table></div>
<details><summary>All settings, as <code>experiment.yaml</code></summary><pre>{{ yaml }}</pre></details>
""",
)
