"""Room on the disk: whether a study fits before it starts, and what to say where a file system is full."""

from __future__ import annotations

import errno
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumo.compute.footprint import Bytes
from pneumo.spec.errors import RequestError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SAID = ("No space left on device", "Disk quota exceeded", "database or disk is full")
"""What those say who pass an error on as text: SQLite, HDF5, MLflow."""

LITTLE = 16_000_000
"""Bytes free at which a file system is taken for the one that was full, where an error does not name it."""

_UNITS = ("B", "KB", "MB", "GB", "TB")

HELP = (
    "make room there, set PNEUMO_CACHE to a folder on another file system for the pictures, keep fewer models "
    "(search.keep: {best: N}), or take fewer trials"
)

TIGHT = 0.9
"""The share of the free space above which what may be needed is worth a line."""


@dataclass(frozen=True)
class Need:
    """What is written under a folder, which need not be there yet."""

    folder: Path
    bytes: Bytes


def check_space(needs: Sequence[Need]) -> list[str]:
    """Lines to show where room may run short. Raises `RequestError` where a file system has too little for certain."""
    lines = []
    for place, of in _by_file_system(needs).items():
        free = shutil.disk_usage(place).free
        least, most = sum(need.bytes.least for need in of), sum(need.bytes.most for need in of)
        if least > free:
            raise RequestError(
                f"disk: {place} has {format_bytes(free)} free, and this study writes at least {format_bytes(least)} there "
                f"({_listed(of, least=True)}); {HELP}"
            )
        if most > TIGHT * free:
            lines.append(
                f"Disk: {place} has {format_bytes(free)} free, and this study may write up to {format_bytes(most)} there "
                f"({_listed(of)}); {HELP}"
            )
    return lines


def describe_needs(needs: Sequence[Need]) -> list[str]:
    """What a study writes, and where, a line for each file system."""
    lines = []
    for place, of in _by_file_system(needs).items():
        least, most = sum(need.bytes.least for need in of), sum(need.bytes.most for need in of)
        much = format_bytes(most) if least == most else f"{format_bytes(least)} to {format_bytes(most)}"
        lines.append(
            f"Disk: {much} under {place}, where {format_bytes(shutil.disk_usage(place).free)} are free ({_listed(of)})"
        )
    return lines


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that it came of, says that a file system is full."""
    return any(
        (isinstance(one, OSError) and one.errno in _FULL) or any(text in str(one) for text in _SAID)
        for one in _chain(error)
    )


def describe_full_disk(error: BaseException) -> str:
    """Which file system is full and what to do, in one line."""
    # Of a copy that failed, the source is named too: it lies where there is more room.
    errors = [one for one in _chain(error) if isinstance(one, OSError)]
    named = [Path(str(name)) for one in errors for name in (one.filename, one.filename2) if name]
    usual = [Path.cwd() / "mlruns", Path.cwd(), Path(tempfile.gettempdir())]
    places = [_there(path) for path in (named or usual)]
    place = min(places, key=lambda path: shutil.disk_usage(path).free)
    free = shutil.disk_usage(place).free
    if not named and free > LITTLE:
        return "a file system is full, perhaps the tracking server's; make room there"
    return f"the file system at {_mount(place)} is full ({format_bytes(free)} free); make room on it"


def format_bytes(size: float) -> str:
    """A number of bytes as a person reads it."""
    power = min(len(_UNITS) - 1, int(math.log10(max(size, 1)) // 3))
    value = size / 1000**power
    return f"{value:.{0 if power == 0 or value >= 10 else 1}f} {_UNITS[power]}"


def _by_file_system(needs: Sequence[Need]) -> dict[Path, list[Need]]:
    """What is needed of each file system, by the folder where it is mounted; without what needs nothing."""
    found: dict[Path, list[Need]] = {}
    for need in needs:
        if need.bytes.most:
            found.setdefault(_mount(_there(need.folder)), []).append(need)
    return found


def _listed(needs: Sequence[Need], least: bool = False) -> str:
    sizes = [(need.bytes.what, need.bytes.least if least else need.bytes.most) for need in needs]
    return ", ".join(f"{what} {format_bytes(size)}" for what, size in sizes if size)


def _there(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _mount(path: Path) -> Path:
    """The folder at which the file system of a path is mounted."""
    device, path = path.stat().st_dev, path.resolve()
    while path != path.parent and path.parent.stat().st_dev == device:
        path = path.parent
    return path


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
