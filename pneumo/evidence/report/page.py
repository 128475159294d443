"""Put the sections of a report together as one HTML page that needs no network."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, StrictUndefined

from pneumo.evidence.report import (
    asked,
    best_trial,
    compared,
    course,
    failures,
    found,
    front,
    hyperparameters,
    luck,
    pictures,
    reproduce,
    settings,
    trials,
)
from pneumo.evidence.report.charts import Figure, format_number
from pneumo.evidence.report.section import Section
from pneumo.spec.study_record import StudyRecord
from pneumo.spec.wording import count_of

T = TypeVar("T")

SECTIONS: tuple[Section[StudyRecord], ...] = (
    asked.SECTION,
    found.SECTION,
    luck.SECTION,
    course.SECTION,
    front.SECTION,
    hyperparameters.SECTION,
    best_trial.SECTION,
    failures.SECTION,
    pictures.SECTION,
    trials.SECTION,
    settings.SECTION,
    reproduce.SECTION,
)
"""The sections of the report of one study, in the order of the page."""

SECTIONS_OF_SEVERAL: tuple[Section[Sequence[StudyRecord]], ...] = (compared.OVERVIEW, compared.COURSES, compared.SPACES)
"""The sections of the report of several studies."""

_FOLDER = Path(__file__).parent


def study_report(record: StudyRecord) -> str:
    """Return the report of a study as HTML. No trial makes this function raise: what cannot be shown says why."""
    ended = [trial.result.ended for trial in record.trials]
    day = datetime.fromtimestamp(max(ended, default=record.run.started / 1000), UTC).strftime("%d %B %Y").lstrip("0")
    about = [count_of(len(record.trials), "trial"), f"last one ended {day}" if ended else f"begun {day}"]
    title = f"Study {record.name}" + (" (phantoms)" if record.phantom else "")
    return _page(title, ", ".join(about), SECTIONS, record, record.page)


def studies_report(records: Sequence[StudyRecord]) -> str:
    """Return the report of several studies side by side as HTML.

    Raises:
        ValueError: There is no study.
    """
    if not records:
        raise ValueError("a report needs at least one study")
    names = ", ".join(record.name for record in records)
    return _page(names, f"{len(records)} studies side by side", SECTIONS_OF_SEVERAL, records, None)


def _page(title: str, about: str, sections: Sequence[Section[T]], subject: T, run_pages: str | None) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined)

    def link(text: object, run_id: str) -> str:
        escaped = html.escape(str(text))
        if not run_pages or not run_id:
            return escaped
        return f'<a href="{html.escape(run_pages + run_id)}" target="_blank" rel="noopener">{escaped}</a>'

    environment.globals |= {"chart": render_chart, "number": format_number, "link": link}
    rendered = [
        (section.name, section.heading, environment.from_string(section.template).render(**values))
        for section in sections
        if (values := section.values(subject)) is not None
    ]
    return environment.from_string(_PAGE).render(
        title=title,
        about=about,
        sections=rendered,
        style=(_FOLDER / "style.css").read_text(encoding="utf-8"),
        script=(_FOLDER / "page.js").read_text(encoding="utf-8"),
        plotly=(_FOLDER / "plotly-basic.min.js").read_text(encoding="utf-8"),
    )


def render_chart(figure: Figure | str) -> str:
    """Return the HTML of a figure, which the page's script draws, or of the sentence that stands for it."""
    if isinstance(figure, str):
        return f'<p class="none">{html.escape(figure)}</p>'
    text = json.dumps(_finite(figure), separators=(",", ":"), allow_nan=False)
    # The text is within a script: what HTML would read there is written as escapes of JSON.
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    height = int(figure["layout"]["height"])
    return f'<div class="chart" style="height:{height}px"><script type="application/json">{text}</script></div>'


def _finite(value: Any) -> Any:
    """Return JSON values, with None for a number that JSON does not have and six digits for the others."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style | safe }}</style></head><body>
<header><h1>{{ title }}</h1><p class="soft">{{ about }}. A report by pneumo; nothing in it is loaded from a network.</p>
<nav>{% for name, heading, _ in sections %}<a href="#{{ name }}">{{ heading }}</a>{% endfor %}</nav></header>
<main>{% for name, heading, body in sections %}<section id="{{ name }}"><h2>{{ heading }}</h2>{{ body | safe }}</section>
{% endfor %}</main>
<script>{{ plotly | safe }}</script>
<script>{{ script | safe }}</script>
</body></html>
"""
