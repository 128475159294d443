"""What is wrong with the pictures, before it costs a study.

- `findings`: what an audit says
- `look`: one look at every picture; `copies`, `patients`, `shift`: what the looks tell
- `report`, `page`: an audit as text and as a page
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.data.archive import printable
from pneumo.data.audit.findings import Audit, Finding, all_of, from_json, leaks, parts_of, to_json
from pneumo.data.cache import cache_error, cache_folder, replacing
from pneumo.data.decoding import UnreadableError
from pneumo.data.pictures import Picture, Source
from pneumo.data.sealed import open_sealed_test
from pneumo.data.split import FEWEST_TO_CHOOSE_BY

if TYPE_CHECKING:
    from pneumo.data.audit.look import Looks

__all__ = ["Audit", "Finding", "audit", "cheap", "leaks", "verdict"]

RECIPE = 1
"""Version of what an audit does; another verdict wants a new one."""

_ORDER = ("fault", "warning", "note")


def audit(source: Source, progress: Callable[[int, int], None] = lambda done, total: None) -> tuple[Audit, Looks]:
    """Looks at every picture, the sealed ones too, and says what is wrong.

    `progress` is told how many of how many are decoded, and nothing where an audit of the same content was made before. The
    verdict is kept for searches. Raises `RequestError`: a cache that cannot be written, files that cannot be read.
    """
    from pneumo.data.audit.look import looks

    folder = _folder(source)
    try:
        seen = looks(source, folder, progress)
        result = _audited(source, seen)
        with replacing(folder / "audit.json") as file:
            file.write(to_json(result).encode())
    except OSError as error:
        raise cache_error(folder, error) from None
    return result, seen


def verdict(source: Source) -> Audit | None:
    """The last full audit of the same content, patients and split; None where there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return from_json((_folder(source) / "audit.json").read_text(encoding="utf-8"))
    return None


def cheap(source: Source) -> tuple[Finding, ...]:
    """What names and content digests tell: nothing is decoded.

    A picture of the pool that has a test picture's digest is compared with it byte by byte, since CRC-32 may be equal
    by chance.
    """
    from pneumo.data.audit.copies import exact_groups, judged
    from pneumo.data.audit.patients import in_two_parts

    pictures, parts = all_of(source), parts_of(source)
    groups = [
        same for group in exact_groups(pictures, [p.digest for p in pictures]) for same in _confirmed(source, group)
    ]
    findings = judged(groups, parts, source.classes, bool(source.validation))
    findings += in_two_parts(pictures, parts, source.stated, bool(source.validation), _agreeing(groups, parts))
    return _sorted([*findings, *_given(source)])


def _audited(source: Source, seen: Looks) -> Audit:
    from pneumo.data.audit.copies import METHOD, exact_groups, judged, near_pairs
    from pneumo.data.audit.patients import in_two_parts
    from pneumo.data.audit.shift import balances, odd_ones, rows_of, shifts

    pictures, parts, kept = all_of(source), parts_of(source), bool(source.validation)
    exact = exact_groups(pictures, seen.contents)
    pairs = [p for p in near_pairs(seen.thumbnails, seen.figures[:, 1]) if seen.contents[p[0]] != seen.contents[p[1]]]
    near = [(pictures[one], pictures[other]) for one, other, _ in pairs]
    findings = judged(exact, parts, source.classes, kept)
    findings += judged(near, parts, source.classes, kept, [alike for _, _, alike in pairs])
    findings += in_two_parts(pictures, parts, source.stated, kept, _agreeing([*exact, *near], parts))
    findings += [
        Finding("unreadable", "fault", f"{printable(name)}: cannot be read: {reason}", (name,))
        for name, reason in seen.unreadable.items()
    ]
    rows = rows_of(pictures, parts, source.classes, seen)
    findings += (
        odd_ones(pictures, seen) + shifts(pictures, parts, source.classes, seen) + balances(rows) + _given(source)
    )
    return Audit(source.description, METHOD, tuple(rows), _sorted(findings))


def _given(source: Source) -> list[Finding]:
    """What the source itself says, and what its val folder is."""
    found = [Finding("left-out", "fault", f"{name}: left out: {reason}", (name,)) for name, reason in source.left_out]
    found += [Finding("source", "note", note) for note in source.notes]
    parts = parts_of(source)
    val = [picture for picture in source.pictures if parts[picture.name] == "val"]
    fewest = min((sum(picture.label == label for picture in val) for label in (0, 1)), default=0)
    if val and not source.validation and fewest < FEWEST_TO_CHOOSE_BY:
        found.append(
            Finding(
                "small-val",
                "note",
                f"val has {len(val)} pictures, too few to choose by (one picture is {1 / len(val):.0%} of accuracy): they join "
                f"training, and validation is cut from it by patient",
            )
        )
    return found


def _confirmed(source: Source, group: Sequence[Picture]) -> list[tuple[Picture, ...]]:
    """The group split by content, where it reaches into the test pictures and chance may deceive."""
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
    return [tuple(same) for same in by_content.values() if len(same) > 1]


def _agreeing(groups: Sequence[tuple[Picture, ...]], parts: dict[str, str]) -> frozenset[str]:
    """Patients who have copies of one picture in more than one split."""
    return frozenset(
        patient
        for group in groups
        for patient in {picture.patient for picture in group}
        if len({parts[picture.name] for picture in group if picture.patient == patient}) > 1
    )


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity)))


def _folder(source: Source) -> Path:
    """Where looks and verdict are kept: by all that they depend on."""
    lines = [f"{RECIPE} {source.kind} {source.classes} {source.left_out} {source.notes}"]
    for pictures in (source.pictures, source.sealed):
        lines.append(f"{len(pictures)}")
        lines += [
            f"{p.name}\t{p.digest}\t{p.label}\t{p.patient}\t{p.name in source.stated}\t{p.name in source.validation}"
            for p in pictures
        ]
    return cache_folder(f"audits/{sha256(chr(10).join(lines).encode()).hexdigest()[:32]}")
