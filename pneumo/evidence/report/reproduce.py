"""How to reproduce the study."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from pneumo.evidence.report.section import Section
from pneumo.spec.names import Artifacts, Tags
from pneumo.spec.study_record import StudyRecord


def _values(record: StudyRecord) -> Mapping[str, Any]:
    best = record.best
    data = ["--data", record.experiment.data.path] if record.experiment.data.path else []
    download = ["mlflow", "artifacts", "download", "--run-id", record.run.run_id]
    download += ["--artifact-path", Artifacts.EXPERIMENT, "--dst-path", "."]
    again = ["python", "-m", "pneumo.search", Artifacts.EXPERIMENT, "--name", f"{record.name}-again", *data]
    steps = [
        ("the study's experiment, with every setting", download),
        ("the same search under another name", again),
    ]
    if best:
        replay = ["python", "-m", "pneumo.replay", best.result.run_id]
        steps.append(("the best trial alone, compared with its record to the last bit", replay))
        promote = ["python", "-m", "pneumo.promote", record.name, *data]
        steps.append(("judge the best trial on the sealed test pictures", promote))
    steps.append(("this report", ["python", "-m", "pneumo.report", record.name]))
    run = record.runs.get(best.number) if best else None
    trial_tags: Mapping[str, str] = run.tags if run else {}
    facts = {
        "pneumo": record.run.tags.get(Tags.VERSION),
        "libraries": trial_tags.get(Tags.LIBRARIES),
        "code of the training": trial_tags.get(Tags.CODE),
        "device": trial_tags.get(Tags.DEVICE),
        "threads": trial_tags.get(Tags.THREADS),
        "seed": str(record.experiment.search.seed),
        "run of the study": record.run.run_id,
        **{
            f"digest of the {part} pictures": record.run.tags.get(Tags.data(part))
            for part in ("training", "validation", "test")
        },
    }
    return {
        "commands": "\n\n".join(f"# {what}\n{shlex.join(command)}" for what, command in steps),
        "facts": {name: value for name, value in facts.items() if value},
    }


SECTION = Section(
    "reproduce",
    "How to reproduce it",
    _values,
    """
<p>In the folder of the search, or with <code>MLFLOW_TRACKING_URI</code> set to its MLflow:</p>
<pre>{{ commands }}</pre>
<p>The same pictures, code, libraries, device and number of threads give the same figures to the last bit.</p>
<div class="wide"><table><tbody>{% for name, value in facts.items() %}<tr><td>{{ name }}</td><td class="text">{{ value }}</td>
</tr>{% endfor %}</tbody></table></div>
""",
)
