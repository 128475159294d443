"""Free space on the disk: whether a study fits before it starts, and errors of a full file system."""

from __future__ import annotations

import errno
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumo.compute.footprint import SizeEstimate
from pneumo.spec.errors import RequestError

_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)

_FULL_MESSAGES = ("No space left on device", "Disk quota exceeded", "database or disk is full")
"""Messages of a full disk in the errors of SQLite, HDF5 and MLflow, which have no errno."""

NEARLY_FULL = 16_000_000
"""Largest free space in bytes of a file system that counts as full, if an error does not name the file."""

WARNING_SHARE = 0.9
"""Largest share of the free space that a study may need without a warning."""

_UNITS = ("B", "KB", "MB", "GB", "TB")

ADVICE = (
    "make room there, set PNEUMO_CACHE to a folder on another file system for the pictures, keep fewer models "
    "(search.keep: {best: N}), or run fewer trials"
)


@dataclass(frozen=True)
class SpaceNeed:
    """The bytes that are written under a folder. The folder need not exist yet."""

    folder: Path
    size: SizeEstimate


def check_space(needs: Sequence[SpaceNeed]) -> list[str]:
    """Return one warning for each file system that may run out of space.

    Raises:
        RequestError: A file system has less free space than the lower bound of what is written to it.
    """
    warnings = []
    for mount, mount_needs in _group_by_file_system(needs).items():
        free = shutil.disk_usage(mount).free
        least, most = sum(need.size.least for need in mount_needs), sum(need.size.most for need in mount_needs)
        if least > free:
            raise RequestError(
                f"disk: {mount} has {format_bytes(free)} free, and this study writes at least {format_bytes(least)} there "
                f"({_list_sizes(mount_needs, least=True)}); {ADVICE}"
            )
        if most > WARNING_SHARE * free:
            warnings.append(
                f"Disk: {mount} has {format_bytes(free)} free, and this study may write up to {format_bytes(most)} there "
                f"({_list_sizes(mount_needs)}); {ADVICE}"
            )
    return warnings


def describe_needs(needs: Sequence[SpaceNeed]) -> list[str]:
    """Return one line for each file system: how much the study writes there, and how much is free."""
    lines = []
    for mount, mount_needs in _group_by_file_system(needs).items():
        least, most = sum(need.size.least for need in mount_needs), sum(need.size.most for need in mount_needs)
        size = format_bytes(most) if least == most else f"{format_bytes(least)} to {format_bytes(most)}"
        free = format_bytes(shutil.disk_usage(mount).free)
        lines.append(f"Disk: {size} under {mount}, where {free} are free ({_list_sizes(mount_needs)})")
    return lines


def is_full_disk(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, means that a file system is full."""
    return any(
        (isinstance(cause, OSError) and cause.errno in _FULL_ERRNOS)
        or any(message in str(cause) for message in _FULL_MESSAGES)
        for cause in _causes(error)
    )


def describe_full_disk(error: BaseException) -> str:
    """Return which file system is full and what to do, in one line."""
    os_errors = [cause for cause in _causes(error) if isinstance(cause, OSError)]
    named = [Path(str(name)) for cause in os_errors for name in (cause.filename, cause.filename2) if name]
    usual = [Path.cwd() / "mlruns", Path.cwd(), Path(tempfile.gettempdir())]
    folders = [_nearest_existing(path) for path in (named or usual)]
    # The error of a failed copy names its source too. The file system with the least free space is the full one.
    folder = min(folders, key=lambda path: shutil.disk_usage(path).free)
    free = shutil.disk_usage(folder).free
    if not named and free > NEARLY_FULL:
        return "a file system is full, perhaps the tracking server's; make room there"
    return f"the file system at {_mount_point(folder)} is full ({format_bytes(free)} free); make room on it"


def format_bytes(size: float) -> str:
    """Return a number of bytes with a unit, for example `1.5 GB`. Units are powers of 1000."""
    power = min(len(_UNITS) - 1, int(math.log10(max(size, 1)) // 3))
    value = size / 1000**power
    return f"{value:.{0 if power == 0 or value >= 10 else 1}f} {_UNITS[power]}"


def _group_by_file_system(needs: Sequence[SpaceNeed]) -> dict[Path, list[SpaceNeed]]:
    """Return the needs of each file system by its mount point. Needs of zero bytes are left out."""
    groups: dict[Path, list[SpaceNeed]] = {}
    for need in needs:
        if need.size.most:
            groups.setdefault(_mount_point(_nearest_existing(need.folder)), []).append(need)
    return groups


def _list_sizes(needs: Sequence[SpaceNeed], least: bool = False) -> str:
    sizes = [(need.size.what, need.size.least if least else need.size.most) for need in needs]
    return ", ".join(f"{what} {format_bytes(size)}" for what, size in sizes if size)


def _nearest_existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _mount_point(path: Path) -> Path:
    """Return the folder at which the file system of an existing path is mounted."""
    device, path = path.stat().st_dev, path.resolve()
    while path != path.parent and path.parent.stat().st_dev == device:
        path = path.parent
    return path


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
