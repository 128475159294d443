"""The best trial: its hyperparameters, its plots, its figures under the stress suite."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from pneumo.evidence.report.charts import format_number
from pneumo.evidence.report.section import Section
from pneumo.spec.hyperparameters import TUTORIAL
from pneumo.spec.names import Artifacts, Tags
from pneumo.spec.stress import CHANGES
from pneumo.spec.study_record import StudyRecord
from pneumo.spec.wording import format_hyperparameter

_CAPTIONS = {
    "learning_curves": "Learning curves. The dashed line is the best epoch, whose weights the model has.",
    "confusion_matrix": "Confusion matrix at the operating point.",
    "roc": "ROC curve.",
    "precision_recall": "Precision and recall.",
    "calibration": "Calibration: how often a picture with a given probability has pneumonia.",
    "threshold": "Sensitivity and specificity over the threshold.",
    "scores": "Probabilities by class.",
    "causes": "Error rates by the cause that the file's name tells.",
    "stress": "AUC under each change of the stress suite.",
    "mistakes": "The most confident mistakes.",
    "gradcam": "Where the network looks (Grad-CAM): the most confident right and wrong pictures.",
}
"""What a plot shows, by the name of its file, in the order of the page. Plots with other names follow."""

_WIDE = ("mistakes", "gradcam", "stress")
"""Plots that are as wide as the page."""


def plots_of(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Return the plots among the artifacts of a run, in the order of the page, each as a picture in a URL.

    A file that is no picture is left out.
    """
    folder = Artifacts.plot("")
    names = [path.removeprefix(folder).rpartition(".") for path in files if path.startswith(folder)]
    stems = [stem for stem, _, ending in names if ending == "png"]
    order = [*(name for name in _CAPTIONS if name in stems), *sorted(set(stems) - set(_CAPTIONS))]
    plots = []
    for stem in order:
        try:
            kind, content, width, height = _small(files[f"{folder}{stem}.png"])
        except OSError:  # not a picture
            continue
        caption = _CAPTIONS.get(stem, stem.replace("_", " ").capitalize() + ".")
        plots.append(
            {
                "url": f"data:image/{kind};base64,{base64.b64encode(content).decode()}",
                "caption": caption,
                "wide": stem.startswith(_WIDE) or width > 1.8 * height,
                "width": width,
                "height": height,
            }
        )
    return plots


def cause_rows(causes_csv: str) -> list[dict[str, str]]:
    """Return a row for each class and cause, given the text of `causes.csv`; none if it is damaged."""
    rows = []
    for row in csv.DictReader(io.StringIO(causes_csv)):
        try:
            rate, low, high = (float(row[key]) for key in ("error_rate", "error_rate_low", "error_rate_high"))
            rows.append({key: row[key] for key in ("class", "cause", "pictures", "wrong")})
        except (KeyError, TypeError, ValueError):
            return []
        rows[-1]["rate"] = f"{rate:.1%} ({low:.1%} to {high:.1%})"
    return rows


def _small(png: bytes) -> tuple[str, bytes, int, int]:
    """Return a plot as WebP if that is smaller, with its width and height."""
    with Image.open(io.BytesIO(png)) as image:
        out = io.BytesIO()
        image.convert("RGB").save(out, "WEBP", quality=82, method=2)
        width, height = image.size
    return ("webp", out.getvalue(), width, height) if len(out.getvalue()) < len(png) else ("png", png, width, height)


def stress_rows(stress_csv: str) -> list[dict[str, str]]:
    """Return a row for each change of the stress suite, given the text of `stress.csv`; none if it is damaged."""
    effects = {change.name: change.effect for change in CHANGES}
    rows = []
    for row in csv.DictReader(io.StringIO(stress_csv)):
        try:
            figures = {key: f"{float(row[key]):.4f}" for key in ("auc", "accuracy", "sensitivity", "specificity")}
        except (KeyError, TypeError, ValueError):
            return []
        rows.append({"change": row["change"], "kind": row["kind"], "effect": effects.get(row["change"], "")} | figures)
    return rows


def _values(record: StudyRecord) -> Mapping[str, Any] | None:
    best = record.best
    if best is None:
        return None
    files = record.files.get(best.number, {})
    values = best.candidate.hyperparameters
    stress, causes = files.get(Artifacts.STRESS), files.get(Artifacts.CAUSES)
    run = record.runs.get(best.number)
    return {
        "trial": best,
        "plots": plots_of(files),
        "causes": cause_rows(causes.decode(errors="replace")) if causes else [],
        "no_heat": run.tags.get(Tags.GRADCAM) if run else None,
        "stress": stress_rows(stress.decode(errors="replace")) if stress else [],
        "changed": [
            (name, format_hyperparameter(value), format_hyperparameter(getattr(TUTORIAL, name)))
            for name, value in values.items()
            if value != getattr(TUTORIAL, name)
        ],
        "same": [f"{n} {format_hyperparameter(v)}" for n, v in values.items() if v == getattr(TUTORIAL, n)],
        "metrics": [
            (name, format_number(value))
            for name, value in sorted(best.result.metrics.items())
            if not name.startswith("system/")
        ],
    }


SECTION = Section(
    "best",
    "The best trial",
    _values,
    """
<p>{{ link('Trial ' ~ trial.number, trial.result.run_id) | safe }}. The figures are of validation pictures, by which the best
epoch and the best trial were chosen.</p>
<div class="columns">
<div><h3>What differs from the tutorial's network</h3>
{% if changed %}<table><thead><tr><th>hyperparameter</th><th>this trial</th><th>tutorial</th></tr></thead><tbody>
{% for name, value, tutorial in changed %}<tr><td><code>{{ name }}</code></td><td>{{ value }}</td><td>{{ tutorial }}</td></tr>
{% endfor %}</tbody></table>{% else %}<p>Nothing.</p>{% endif %}
<details><summary>{{ same | length }} hyperparameters as in the tutorial</summary><p>{{ same | join(', ') }}</p></details>
<details><summary>{{ metrics | length }} recorded figures</summary><table><tbody>
{% for name, value in metrics %}<tr><td><code>{{ name }}</code></td><td class="number">{{ value }}</td></tr>{% endfor %}
</tbody></table></details>
{% if causes %}<h3>Errors by cause</h3>
<div class="wide"><table><thead><tr><th>class</th><th>cause</th><th class="number">pictures</th><th class="number">wrong</th>
<th>error rate (95 % interval)</th></tr></thead><tbody>{% for row in causes %}<tr><td>{{ row.class }}</td>
<td>{{ row.cause or 'not told' }}</td><td class="number">{{ row.pictures }}</td><td class="number">{{ row.wrong }}</td>
<td>{{ row.rate }}</td></tr>{% endfor %}</tbody></table></div>{% endif %}</div>
{% if stress %}<div><h3>Under the changes of the stress suite</h3>
<p>The same pictures, changed in ways that leave the diagnosis as it is. Accuracy, sensitivity and specificity are at one
threshold for the whole suite.</p>
<div class="wide"><table><thead><tr><th>change</th><th class="number">AUC</th><th class="number">accuracy</th>
<th class="number">sensitivity</th><th class="number">specificity</th></tr>
</thead><tbody>{% for row in stress %}<tr title="{{ row.effect }}"><td>{{ row.change }}</td>
<td class="number">{{ row.auc }}</td><td class="number">{{ row.accuracy }}</td><td class="number">{{ row.sensitivity }}</td>
<td class="number">{{ row.specificity }}</td></tr>{% endfor %}</tbody></table></div></div>{% endif %}
</div>
{% if plots %}<div class="plots">{% for plot in plots %}<figure class="{{ 'all' if plot.wide }}">
<img src="{{ plot.url }}" width="{{ plot.width }}" height="{{ plot.height }}" alt="{{ plot.caption }}">
<figcaption>{{ plot.caption }}</figcaption></figure>{% endfor %}</div>
{% if no_heat %}<p class="soft">Grad-CAM: {{ no_heat }}.</p>{% endif %}
{% else %}<p class="none">The plots of the trial cannot be read from its run.</p>{% endif %}
""",
)
