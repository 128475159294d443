"""The folder that holds decoded pictures and content digests between runs.

It is `PNEUMO_CACHE`, otherwise `$XDG_CACHE_HOME/pneumo`, otherwise `~/.cache/pneumo`. It can be deleted whenever no command
is running; everything in it is computed again.
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
    """Return the folder of one part of the cache, and create it if it is missing. Raises `RequestError` if that fails."""
    folder = cache_root() / part
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cache_error(folder, error) from None
    return folder


def cache_root() -> Path:
    """Return the cache's folder, which may not exist yet."""
    own = os.environ.get("PNEUMO_CACHE")
    root = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pneumo"
    return root.expanduser().absolute()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends. If the block raises, the temporary file is removed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files of killed processes from a folder. The caller has to hold the folder's lock."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def cache_error(folder: Path, error: OSError) -> RequestError:
    """Return the error for a cache folder that cannot be written."""
    reason = error.strerror or str(error)
    make_room = "make room there, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return RequestError(
        f"{folder}: the cache cannot be written: {reason}; {make_room}set PNEUMO_CACHE to a folder that can be"
    )
