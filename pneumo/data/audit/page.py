"""The audit as one self-contained HTML page: the table, and each finding with its pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from jinja2 import Environment
from PIL import Image

from pneumo.data.audit.findings import Audit, all_pictures
from pneumo.data.audit.measure import Measurements
from pneumo.data.audit.report import ADVICE, HEAD, SHORTCUT_HEAD, SHORTCUTS, format_row, format_shortcut
from pneumo.data.pictures import Source

MOST_THUMBNAILS = 600
"""Thumbnails on the page; so many are about 1 MB."""

MOST_OF_ONE = 12
"""Thumbnails of one finding."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit of {{ audit.description }}</title>
<style>
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5c646e; --line: #d9dde2; --page: #fff; --fault: #c8452f;
  --warning: #c77700; --note: #1f83c4 }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #a0a8b2; --line: #3a414a; --page: #15181c;
  --fault: #f07a63; --warning: #e9a23b; --note: #6cb6ee } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto; max-width: 78rem;
  padding: 1rem clamp(.8rem, 3vw, 2rem) 3rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
td, th { padding: .22rem .7rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap }
th, .how { color: var(--soft) }
section { border-left: 4px solid var(--line); padding: .1rem 0 .1rem 1rem; margin: 1.2rem 0 }
section.fault { border-color: var(--fault) } section.warning { border-color: var(--warning) }
section.note { border-color: var(--note) }
h1 { font-size: 1.7rem; overflow-wrap: anywhere } h2 { font-size: 1.3rem; margin: 2rem 0 .5rem } h3 { margin: .2rem 0 }
p { margin: .3rem 0; overflow-wrap: anywhere }
figure { display: inline-block; margin: .3rem .6rem .3rem 0; width: 9rem; vertical-align: top; break-inside: avoid }
figure img { width: 9rem; height: 9rem; image-rendering: auto; background: #000 }
.findings { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem }
.of0, .of3 { width: 100% } .of1 { width: 9.6rem } .of2 { width: 19.5rem }
figcaption, .of1 p, .of2 p { font-size: 12px; overflow-wrap: anywhere }
@page { size: A4; margin: 14mm 12mm } @media print { .wide { overflow: visible } table { font-size: 7.5pt } }
</style></head><body>
<h1>Audit of {{ audit.description }}</h1>
<p>{{ counts }}</p>
<div class="wide"><table><tr>{% for name in head %}<th>{{ name }}</th>{% endfor %}</tr>
{% for cells in rows %}<tr>{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% if audit.shortcuts %}<p>{{ shortcuts_title }}</p>
<div class="wide"><table><tr>{% for name in shortcut_head %}<th>{{ name }}</th>{% endfor %}</tr>
{% for cells in shortcuts %}<tr>{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% endif %}<p class="how">{{ audit.method }}</p>
{% for title, kinds in severities %}<h2>{{ title }}</h2>
{% for kind, advice, severity, findings in kinds %}<section class="{{ severity }}"><h3>{{ kind }}</h3>
{% if advice %}<p class="how">{{ advice }}</p>{% endif %}
<div class="findings">{% for message, pictures, named in findings %}
<div class="of{{ [pictures | length, 3] | min }}"><p>{{ message }}</p>
{% if named > pictures | length %}<p class="how">{{ pictures | length }} of {{ named }} pictures shown</p>
{% endif %}{% for name, image in pictures %}<figure><img src="data:image/jpeg;base64,{{ image }}" alt="{{ name }}">
{% if pictures | length > 1 %}<figcaption>{{ name }}</figcaption>{% endif %}</figure>
{% endfor %}</div>{% endfor %}</div></section>
{% endfor %}{% endfor %}
</body></html>
"""

_TITLES = {"fault": "Faults", "warning": "Warnings", "note": "Notes"}


def audit_page(audit: Audit, source: Source, measurements: Measurements) -> str:
    """Return the audit as HTML, with thumbnails of the pictures that the findings name, up to `MOST_THUMBNAILS`."""
    row_of = {picture.name: row for row, picture in enumerate(all_pictures(source))}
    remaining = MOST_THUMBNAILS

    def thumbnails(names: Sequence[str]) -> list[tuple[str, str]]:
        nonlocal remaining
        readable = [name for name in names if name in row_of and name not in measurements.unreadable]
        thumbnail_names = readable[: min(MOST_OF_ONE, remaining)]
        remaining -= len(thumbnail_names)
        return [(name, _jpeg(measurements, row_of[name])) for name in thumbnail_names]

    severities = []
    for severity, title in _TITLES.items():
        findings = [finding for finding in audit.findings if finding.severity == severity]
        kinds = [
            (
                kind,
                ADVICE.get(kind, ""),
                severity,
                [(f.message, thumbnails(f.pictures), len(f.pictures)) for f in findings if f.kind == kind],
            )
            for kind in dict.fromkeys(finding.kind for finding in findings)
        ]
        if kinds:
            severities.append((f"{title} ({len(findings)})", kinds))
    template = Environment(autoescape=True).from_string(_PAGE)  # a file name may contain HTML
    return template.render(
        audit=audit,
        head=HEAD,
        rows=[format_row(row) for row in audit.rows],
        shortcuts_title=SHORTCUTS,
        shortcut_head=SHORTCUT_HEAD,
        shortcuts=[format_shortcut(shortcut) for shortcut in audit.shortcuts],
        severities=severities,
        counts="Faults found." if audit.faults else "No fault found.",
    )


def _jpeg(measurements: Measurements, row: int) -> str:
    out = io.BytesIO()
    Image.fromarray(measurements.thumbnails[row]).save(out, "JPEG", quality=85)
    return base64.b64encode(out.getvalue()).decode()
