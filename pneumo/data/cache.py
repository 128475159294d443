"""Where decoded pictures and content digests are kept between runs.

The place is `PNEUMO_CACHE`, else `$XDG_CACHE_HOME/pneumo`, else `~/.cache/pneumo`. It can be deleted whenever nothing
runs: everything in it is made again.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pneumo.spec.errors import RequestError


def cache_folder(part: str) -> Path:
    """The folder of one part of the cache, made where it is missing. Raises `RequestError` where it cannot be made."""
    folder = cache_place() / part
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None
    return folder


def cache_place() -> Path:
    """The cache's folder, which need not be there."""
    root = os.environ.get("PNEUMO_CACHE")
    place = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pneumo"
    return place.expanduser().absolute()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` at the end, whole; on an exception it is removed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def clean(folder: Path) -> None:
    """Removes what a killed writer left in a folder. Only for who holds the folder's lock."""
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def unwritable(folder: Path, error: OSError) -> RequestError:
    """The error for a cache that cannot be written."""
    reason = error.strerror or str(error)
    room = "make room there, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return RequestError(
        f"{folder}: the cache cannot be written: {reason}; {room}set PNEUMO_CACHE to a folder that can be"
    )
