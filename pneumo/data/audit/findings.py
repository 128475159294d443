"""The result of an audit: findings, a table of the classes, shortcuts, and their JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from pneumo.data.pictures import Picture, Source

Severity = Literal["fault", "warning", "note"]

LEAKS = ("copy-leak", "near-copy-leak", "patient-leak")
"""Kinds of findings that connect the training pool with the sealed test pictures."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the pictures, or worth knowing.

    Attributes:
        kind: One word for programs.
        severity: A `fault` spoils a result, a `warning` needs a look, a `note` explains.
        message: One line for people.
        pictures: The names of the pictures concerned.
    """

    kind: str
    severity: Severity
    message: str
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassStatistics:
    """Counts and picture statistics of one class in one part.

    Attributes:
        part: `train`, `val` or `test`.
        label: The name of the class.
        pictures: Number of pictures.
        patients: Number of patients. Pictures whose patient is not known count as one each.
        share: Share of the part's pictures.
        width: Median in pixels, over readable pictures; `height` too.
        modes: Number of pictures by mode, as the decoder names it.
        brightness: Mean of the grey values (0 to 255), averaged over pictures.
        contrast: Standard deviation of the grey values, averaged over pictures.
        sharpness: Sharpness as in `Measurements.statistics`, averaged over pictures.
        unknown: Number of pictures whose patient is not known.
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
    unknown: int = 0


@dataclass(frozen=True)
class Shortcut:
    """How well a small model tells the class of the training pool's pictures from what is no lung.

    Attributes:
        name: `files`, `brightness` or `frame`.
        seen: What the model sees, for people.
        auc: Area under the ROC curve on pictures of patients that the model was not fitted on.
        low: Lower end of its 95 % interval over patients; `high` the upper one.
    """

    name: str
    seen: str
    auc: float
    low: float
    high: float


@dataclass(frozen=True)
class Audit:
    """The result of a full audit of one source.

    Attributes:
        description: The source, for people.
        method: How near copies were found.
        rows: The table of parts and classes.
        findings: What is wrong, or worth knowing, the gravest first.
        shortcuts: What each small model found; empty if there are too few patients.
    """

    description: str
    method: str
    rows: tuple[ClassStatistics, ...]
    findings: tuple[Finding, ...]
    shortcuts: tuple[Shortcut, ...] = ()

    @property
    def faults(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "fault")


def leaks(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that make every test result meaningless."""
    return [finding for finding in findings if finding.kind in LEAKS]


def parts_by_name(source: Source) -> dict[str, str]:
    """Return the part of each picture by its name: `train`, `val` or `test`."""
    parts = {picture.name: "test" for picture in source.sealed}
    for picture in source.pictures:
        in_val = picture.name in source.validation or picture.name.partition("/")[0].lower().startswith("val")
        parts[picture.name] = "val" if in_val else "train"
    return parts


def all_pictures(source: Source) -> list[Picture]:
    """Return the pictures of the training pool, then the sealed ones."""
    return [*source.pictures, *source.sealed]


def to_json(audit: Audit) -> str:
    """Return the audit as JSON: description, method, rows, findings, shortcuts."""
    return json.dumps(asdict(audit), indent=1)


def from_json(text: str) -> Audit:
    """Return the audit that `to_json` wrote. Raises `ValueError`, `KeyError` or `TypeError` for any other text."""
    document = json.loads(text)
    return Audit(
        document["description"],
        document["method"],
        tuple(ClassStatistics(**row) for row in document["rows"]),
        tuple(Finding(**row | {"pictures": tuple(row["pictures"])}) for row in document["findings"]),
        tuple(Shortcut(**row) for row in document["shortcuts"]),
    )
