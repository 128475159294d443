"""A full audit, a quick one that decodes nothing, and the last audit of the same pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.data.archive import printable
from pneumo.data.audit.findings import Audit, Finding, all_pictures, from_json, parts_by_name, to_json
from pneumo.data.cache import cache_error, cache_root, replacing
from pneumo.data.decoding import RECIPE as DECODING_RECIPE
from pneumo.data.decoding import UnreadableError
from pneumo.data.pictures import Picture, Source, describe_not_taken
from pneumo.data.sealed import open_sealed_test
from pneumo.data.split import FEWEST_TO_CHOOSE_BY

if TYPE_CHECKING:
    from pneumo.data.audit.measure import Measurements

RECIPE = 3
"""Version of the audit. Increase it when an audit of the same pictures would have another result."""

_NOT_TAKEN = "not-taken"
"""The kind of the finding that counts the files which are no pictures of the source."""

_SEVERITIES = ("fault", "warning", "note")


def audit_source(
    source: Source, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Audit, Measurements]:
    """Decode every picture of the source, the sealed ones too, and report what is wrong.

    The audit is stored in the cache, where `last_audit` finds it.

    Args:
        source: The pictures.
        progress: Called with the number of pictures decoded so far and the number of all pictures. It is not called if the
            measurements of the same pictures are cached.

    Raises:
        RequestError: The cache cannot be written, or a file cannot be read.
    """
    from pneumo.data.audit.measure import measure

    folder = _cache_folder(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        measurements = measure(source, folder, progress)
        audit = _audit(source, measurements)
        with replacing(folder / "audit.json") as file:
            file.write(to_json(audit).encode())
    except OSError as error:
        raise cache_error(folder, error) from None
    return audit, measurements


def last_audit(source: Source) -> Audit | None:
    """Return the last full audit of the same content, patients and split, or None if there is none in the cache."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        audit = from_json((_cache_folder(source) / "audit.json").read_text(encoding="utf-8"))
        # Files that are not taken may come and go without a change of the pictures; audit.html is one.
        lasting = [finding for finding in audit.findings if finding.kind != _NOT_TAKEN]
        return replace(audit, findings=_by_severity([*lasting, *_not_taken(source)]))
    return None


def quick_findings(source: Source) -> tuple[Finding, ...]:
    """Return what names and content digests tell, without decoding a picture.

    If a picture of the training pool has the digest of a test picture, both are compared byte by byte: two CRC-32 values may
    be equal by chance.
    """
    from pneumo.data.audit.copies import copy_findings, exact_groups
    from pneumo.data.audit.patients import patient_findings

    pictures, parts = all_pictures(source), parts_by_name(source)
    groups = [
        copies
        for group in exact_groups(pictures, [picture.digest for picture in pictures])
        for copies in _groups_by_content(source, group)
    ]
    has_val = bool(source.validation)
    findings = copy_findings(groups, parts, source.classes, has_val)
    findings += patient_findings(pictures, parts, has_val, _patients_with_copies(groups, parts))
    return _by_severity([*findings, *_source_findings(source)])


def _audit(source: Source, measurements: Measurements) -> Audit:
    """Return the audit that follows from the measurements of the pictures."""
    from pneumo.data.audit.copies import METHOD, copy_findings, exact_groups, near_pairs
    from pneumo.data.audit.patients import patient_findings
    from pneumo.data.audit.shift import balance_findings, class_statistics, outlier_findings, shift_findings
    from pneumo.data.audit.shortcuts import find_shortcuts

    pictures, parts, has_val = all_pictures(source), parts_by_name(source), bool(source.validation)
    digests = measurements.digests
    exact = exact_groups(pictures, digests)
    pairs = near_pairs(measurements.thumbnails, measurements.statistics[:, 1])
    pairs = [(first, second, r) for first, second, r in pairs if digests[first] != digests[second]]
    near = [(pictures[first], pictures[second]) for first, second, _ in pairs]
    rows = class_statistics(pictures, parts, source.classes, measurements)
    copied = _patients_with_copies([*exact, *near], parts)
    shortcuts, shortcut_findings = find_shortcuts(source.pictures, measurements)
    findings = [
        *copy_findings(exact, parts, source.classes, has_val),
        *copy_findings(near, parts, source.classes, has_val, [r for _, _, r in pairs]),
        *patient_findings(pictures, parts, has_val, copied),
        *(
            Finding("unreadable", "fault", f"{printable(name)}: cannot be read: {reason}", (name,))
            for name, reason in measurements.unreadable.items()
        ),
        *outlier_findings(pictures, measurements),
        *shift_findings(pictures, parts, source.classes, measurements),
        *balance_findings(rows),
        *shortcut_findings,
        *_source_findings(source),
    ]
    return Audit(source.description, METHOD, tuple(rows), _by_severity(findings), shortcuts)


def _source_findings(source: Source) -> list[Finding]:
    """Return what the source itself reports, and whether its `val` folder is too small."""
    findings = [
        Finding("left-out", "fault", f"{name}: left out: {reason}", (name,)) for name, reason in source.left_out
    ]
    findings += [Finding("source", "note", note) for note in source.notes]
    findings += _not_taken(source)
    parts = parts_by_name(source)
    val = [picture for picture in source.pictures if parts[picture.name] == "val"]
    fewest = min((sum(picture.label == label for picture in val) for label in (0, 1)), default=0)
    if val and not source.validation and fewest < FEWEST_TO_CHOOSE_BY:
        findings.append(
            Finding(
                "small-val",
                "note",
                f"val has {len(val)} pictures, too few to choose by (one picture is {1 / len(val):.0%} of accuracy): they join "
                f"training, and validation is cut from it by patient",
            )
        )
    return findings


def _not_taken(source: Source) -> list[Finding]:
    line = describe_not_taken(source.not_taken)
    return [Finding(_NOT_TAKEN, "note", line)] if line else []


def _groups_by_content(source: Source, group: Sequence[Picture]) -> list[tuple[Picture, ...]]:
    """Split a group of equal digests by the pictures' bytes, if it has both training and test pictures."""
    pool = {picture.name for picture in source.pictures}
    if len({picture.name in pool for picture in group}) < 2:
        return [tuple(group)]
    test, by_content = open_sealed_test(source), dict[bytes, list[Picture]]()
    for picture in group:
        try:
            encoded = (source if picture.name in pool else test).encoded(picture)
        except UnreadableError:
            encoded = b""
        by_content.setdefault(sha256(encoded).digest(), []).append(picture)
    return [tuple(copies) for copies in by_content.values() if len(copies) > 1]


def _patients_with_copies(groups: Sequence[tuple[Picture, ...]], parts: dict[str, str]) -> frozenset[str]:
    """Return the patients who have copies of one picture in more than one part."""
    return frozenset(
        patient
        for group in groups
        for patient in {picture.patient for picture in group}
        if len({parts[picture.name] for picture in group if picture.patient == patient}) > 1
    )


def _by_severity(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity)))


def _cache_folder(source: Source) -> Path:
    """Return the cache folder, which may not exist yet; its name is a digest of everything that the audit depends on."""
    # Notes and reasons are part of it, so an audit is lost when their wording changes.
    lines = [f"{RECIPE} {DECODING_RECIPE} {source.kind} {source.classes} {source.left_out} {source.notes}"]
    for pictures in (source.pictures, source.sealed):
        lines.append(f"{len(pictures)}")
        lines += [
            f"{p.name}\t{p.digest}\t{p.label}\t{p.patient}\t{p.known_by}\t{p.name in source.validation}"
            for p in pictures
        ]
    return cache_root() / f"audits/{sha256(chr(10).join(lines).encode()).hexdigest()[:32]}"
