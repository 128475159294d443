"""What an audit says: findings, tables, and how both are kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from pneumo.data.pictures import Picture, Source

Severity = Literal["fault", "warning", "note"]

LEAKS = ("copy-leak", "near-copy-leak", "patient-leak")
"""Kinds of findings in which the training pool and the sealed test pictures have something in common."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    A `fault` spoils a result, a `warning` wants a look, a `note` explains. `kind` is one word for programs, `message` one
    line for people, `pictures` are the names of those concerned.
    """

    kind: str
    severity: Severity
    message: str
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupRow:
    """One split and class: counts, share of the split, and the medians and means of its readable pictures.

    `width` and `height` are medians in pixels, `brightness` and `contrast` (mean and standard deviation of the grey values,
    0 to 255) and `sharpness` means over pictures.
    """

    part: str
    label: str
    pictures: int
    patients: int
    share: float
    width: float
    height: float
    modes: dict[str, int]
    brightness: float
    contrast: float
    sharpness: float


@dataclass(frozen=True)
class Audit:
    """What a full audit found in one source."""

    description: str
    method: str
    rows: tuple[GroupRow, ...]
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "fault")


def leaks(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that make a test figure mean nothing."""
    return [finding for finding in findings if finding.kind in LEAKS]


def parts_of(source: Source) -> dict[str, str]:
    """Each picture's split by name: `train`, `val` or `test`."""
    parts = {picture.name: "test" for picture in source.sealed}
    for picture in source.pictures:
        in_val = picture.name in source.validation or picture.name.partition("/")[0].lower().startswith("val")
        parts[picture.name] = "val" if in_val else "train"
    return parts


def all_of(source: Source) -> list[Picture]:
    """The pool's pictures, then the sealed ones."""
    return [*source.pictures, *source.sealed]


def to_json(audit: Audit) -> str:
    """The audit as JSON: description, method, rows, findings."""
    return json.dumps(asdict(audit), indent=1)


def from_json(text: str) -> Audit:
    """An audit that `to_json` wrote. Raises `ValueError`, `KeyError` or `TypeError` for any other text."""
    document = json.loads(text)
    findings = (Finding(**one | {"pictures": tuple(one["pictures"])}) for one in document["findings"])
    return Audit(
        document["description"], document["method"], tuple(GroupRow(**r) for r in document["rows"]), tuple(findings)
    )
