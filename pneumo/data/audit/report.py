"""An audit as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from pneumo.data.audit.findings import Audit, Finding, GroupRow, from_json, to_json

__all__ = ["from_json", "text", "to_json"]

MOST = 15
"""Findings of one kind that are printed; `audit.json` has all."""

ADVICE = {
    "copy-leak": "take the test pictures out, or the training ones: a test figure on them means nothing",
    "near-copy-leak": "look at them; take one side out",
    "patient-leak": "put each patient on one side",
    "label-conflict": "one of the labels is wrong: decide, or take both out",
    "near-label-conflict": "look at them: one of the labels may be wrong",
    "validation-leak": "take one side out: validation figures are too good",
    "near-validation-leak": "look at them; take one side out",
    "patient-in-validation": "put each patient on one side",
    "unreadable": "a search leaves them out and refuses more than 1 %",
    "left-out": "not read, for safety",
    "blank": "take them out",
    "copy-of-another-patient": "a patient has two names, or a label is wrong; a search keeps them on one side",
    "near-copy-of-another-patient": "a patient may have two names; patients.csv can say so (source folder)",
    "outlier": "look at them",
    "shift": "say so beside a test figure",
}
"""What to do about each kind."""

HEAD = (
    "split",
    "class",
    "pictures",
    "share",
    "patients",
    "median size",
    "modes",
    "brightness",
    "contrast",
    "sharpness",
)
"""Of the table of splits and classes."""

_TITLES = {"fault": "FAULTS", "warning": "Warnings", "note": "Notes"}


def text(audit: Audit) -> str:
    """The report: the table, then faults, warnings and notes, each kind with what to do."""
    lines = [f"Audit of {audit.description}", "", *_table(audit.rows)]
    for severity, title in _TITLES.items():
        findings = [finding for finding in audit.findings if finding.severity == severity]
        if not findings:
            continue
        lines += ["", f"{title} ({len(findings)})"]
        for kind in dict.fromkeys(finding.kind for finding in findings):
            lines += _kind(kind, [finding for finding in findings if finding.kind == kind])
    lines += ["", audit.method, "", _verdict(audit)]
    return "\n".join(lines)


def _kind(kind: str, findings: Sequence[Finding]) -> list[str]:
    advice = f": {ADVICE[kind]}" if kind in ADVICE else ""
    lines = [f"  {kind}{advice}", *(f"    {finding.message}" for finding in findings[:MOST])]
    return [*lines, f"    and {len(findings) - MOST} more; audit.json has all"] if len(findings) > MOST else lines


def _verdict(audit: Audit) -> str:
    counts = {s: sum(finding.severity == s for finding in audit.findings) for s in _TITLES}
    said = ", ".join(f"{n} {s}{'' if n == 1 else 's'}" for s, n in counts.items())
    return f"{'Faults found' if audit.faults else 'No fault found'}: {said}."


def _table(rows: Sequence[GroupRow]) -> list[str]:
    cells = [HEAD, *(cells_of(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def cells_of(row: GroupRow) -> tuple[str, ...]:
    """A row of the table, as people read it."""
    modes = ", ".join(f"{mode} {n:,}" for mode, n in row.modes.items())
    figures = (f"{row.brightness:.1f}", f"{row.contrast:.1f}", f"{row.sharpness:.2f}")
    counts = (f"{row.pictures:,}", f"{row.share:.0%}", f"{row.patients:,}", f"{row.width:.0f} x {row.height:.0f}")
    return (row.part, row.label, *counts, modes, *figures)
