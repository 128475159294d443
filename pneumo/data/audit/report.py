"""The audit as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from pneumo.data.audit.findings import Audit, ClassStatistics, Finding, Shortcut

MOST = 15
"""Findings of one kind that are printed. `audit.json` has all."""

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
    "left-out": "not used, for the reason given",
    "blank": "take them out",
    "copy-of-another-patient": "a patient has two names, or a label is wrong; a search keeps them on one side",
    "near-copy-of-another-patient": "a patient may have two names; patients.csv can say so",
    "copy-of-unknown-patient": "take one out; a search keeps them on one side",
    "near-copy-of-unknown-patient": "one patient may be in training and in validation: state the patients, or take one out",
    "patients-unknown": "state them, if you know them: a split by picture makes figures too good and intervals too narrow",
    "outlier": "look at them",
    "shift": "mention it beside a test figure",
    "shortcut-files": "write all pictures in one size, mode and format; hyperparameters that help: crop, blur, noise",
    "shortcut-brightness": "hyperparameters that help: normalization: standardize, brightness, contrast, gamma",
    "shortcut-frame": "cut margins and markers off, if you can; hyperparameters that help: crop, frame_exchange, erase",
}
"""What to do about findings, by kind."""

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
"""Header of the table of parts and classes."""

SHORTCUTS = "How well the class of a training picture can be told from what is no lung (other patients; chance is 0.5):"
"""Caption of the table of shortcuts."""

SHORTCUT_HEAD = ("seen", "AUC", "95 % interval")
"""Header of the table of shortcuts."""

_TITLES = {"fault": "FAULTS", "warning": "Warnings", "note": "Notes"}


def format_report(audit: Audit) -> str:
    """Return the report: the tables, then faults, warnings and notes, each kind with advice."""
    lines = [f"Audit of {audit.description}", "", *_aligned([HEAD, *(format_row(row) for row in audit.rows)])]
    if audit.shortcuts:
        rows = [SHORTCUT_HEAD, *(format_shortcut(shortcut) for shortcut in audit.shortcuts)]
        lines += ["", SHORTCUTS, *(f"  {line}" for line in _aligned(rows))]
    for severity, title in _TITLES.items():
        findings = [finding for finding in audit.findings if finding.severity == severity]
        if not findings:
            continue
        lines += ["", f"{title} ({len(findings)})"]
        for kind in dict.fromkeys(finding.kind for finding in findings):
            lines += _format_kind(kind, [finding for finding in findings if finding.kind == kind])
    lines += ["", audit.method, "", _summary(audit)]
    return "\n".join(lines)


def _format_kind(kind: str, findings: Sequence[Finding]) -> list[str]:
    advice = f": {ADVICE[kind]}" if kind in ADVICE else ""
    lines = [f"  {kind}{advice}", *(f"    {finding.message}" for finding in findings[:MOST])]
    return [*lines, f"    and {len(findings) - MOST} more; audit.json has all"] if len(findings) > MOST else lines


def _summary(audit: Audit) -> str:
    counts = {severity: sum(f.severity == severity for f in audit.findings) for severity in _TITLES}
    counted = ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts.items())
    return f"{'Faults found' if audit.faults else 'No fault found'}: {counted}."


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows]


def format_row(row: ClassStatistics) -> tuple[str, ...]:
    """Return the cells of one row of the table."""
    modes = ", ".join(f"{mode} {count:,}" for mode, count in row.modes.items())
    statistics = (f"{row.brightness:.1f}", f"{row.contrast:.1f}", f"{row.sharpness:.2f}")
    patients = "not known" if row.unknown == row.pictures else f"{row.patients:,}"
    counts = (f"{row.pictures:,}", f"{row.share:.0%}", patients, f"{row.width:.0f} x {row.height:.0f}")
    return (row.part, row.label, *counts, modes, *statistics)


def format_shortcut(shortcut: Shortcut) -> tuple[str, ...]:
    """Return the cells of one row of the table of shortcuts."""
    return (shortcut.seen, f"{shortcut.auc:.3f}", f"{shortcut.low:.3f} to {shortcut.high:.3f}")
