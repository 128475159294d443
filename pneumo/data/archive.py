"""The files of a zip or a folder that need not be trusted.

Nothing is unpacked to disk: a file is read into memory on request, by the name in the listing. Files that could lead
elsewhere or do harm are left out and listed with a reason: names that climb out of the zip, links that leave the folder,
pipes and devices, files too large for one picture. A zip that can only be a decompression bomb is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath

from pneumo.data.cache import cache_error, cache_folder, replacing
from pneumo.data.decoding import UnreadableError
from pneumo.data.pictures import content_digest
from pneumo.spec.errors import RequestError

MOST_BYTES = 512 * 2**20
"""Largest size of one unpacked file: a 16-bit DICOM with the largest number of pixels that is decoded has 180 MB."""

MOST_RATIO = 1_100
"""Largest ratio of unpacked to packed size of a whole zip. Deflate reaches 1,032; a larger ratio means that members overlap, as
in D. Fifield, "A better zip bomb", WOOT 2019."""

MOST_FILES = 2_000_000
"""Largest number of files in a zip, whose directory is held in memory."""

_MOST_LEVELS = 6
"""Levels of a folder that are searched, so that the search of a whole disk ends soon."""


@dataclass(frozen=True)
class Archive:
    """The files below a path.

    Attributes:
        files: POSIX names relative to the path.
        left_out: Name and reason for each file that is not used.
        digests: Returns the content digests of some of `files`, by name.
        read: Returns a file's bytes, given its name and its digest. If the digest is not None, it must still be the file's.
    """

    files: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    digests: Callable[[Iterable[str]], dict[str, str]]
    read: Callable[[str, str | None], bytes]


def open_archive(path: Path, expected: str) -> Archive:
    """List the zip or the folder at `path`. Raises `RequestError` that says what is `expected` if it is neither."""
    return _open_folder(path) if path.is_dir() else _open_zip(path, expected)


def printable(name: str) -> str:
    """Return a file's name with control characters and lone surrogates escaped, so that it can be printed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in name)


def _open_zip(path: Path, expected: str) -> Archive:
    try:
        archive = zipfile.ZipFile(path)
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        packed = path.stat().st_size
    # What zipfile raises for a broken directory depends on where it is broken, and on Python's version.
    except (zipfile.BadZipFile, ValueError, RuntimeError, zlib.error, struct.error, EOFError, IndexError):
        raise RequestError(f"{path}: is no zip, or a broken one; expected {expected}") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None
    # Larger files are left out one by one.
    unpacked = sum(entry.file_size for entry in entries if entry.file_size <= MOST_BYTES)
    if unpacked > MOST_RATIO * packed or len(entries) > MOST_FILES:
        raise RequestError(
            f"{path}: is a bomb: {len(entries):,} files that unpack from {packed:,} to {unpacked:,} bytes; it is not read"
        )
    names = Counter(entry.filename for entry in entries)
    faults = [(entry, _entry_fault(entry, names)) for entry in entries]
    members = {entry.filename: entry for entry, fault in faults if fault is None}

    def digests(files: Iterable[str]) -> dict[str, str]:
        return {file: content_digest(members[file].CRC, members[file].file_size) for file in files}

    def read(file: str, digest: str | None) -> bytes:
        # Threads may share one ZipFile: each read has a position of its own and locks the handle. It returns at most as many
        # bytes as the directory says and checks the directory's CRC, but does not report that there are fewer.
        try:
            content = archive.read(members[file])
        except OSError as error:
            raise RequestError(f"{path}: {printable(file)} cannot be read: {error.strerror or error}") from None
        # RuntimeError: the member is encrypted, or compressed in a way that zipfile does not know.
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
            raise UnreadableError(f"broken in the zip: {error}") from None
        if len(content) != members[file].file_size:
            raise UnreadableError(f"broken in the zip: {len(content):,} of {members[file].file_size:,} bytes")
        return content

    left_out = {printable(entry.filename): fault for entry, fault in faults if fault is not None}
    return Archive(tuple(members), tuple(sorted(left_out.items())), digests, read)


def _entry_fault(entry: zipfile.ZipInfo, names: Counter[str]) -> str | None:
    """Return why an entry of a zip is left out, or None. `names` counts the names in the zip."""
    name = entry.filename
    absolute = "\\" in entry.orig_filename or name.startswith("/") or re.match(r"[A-Za-z]:", name)
    faults = {
        "an absolute name, or one of another system": absolute,
        "a name that climbs out of the zip": ".." in PurePosixPath(name).parts,
        "a link, no file": stat.S_ISLNK(entry.external_attr >> 16),
        "encrypted": entry.flag_bits & 1,
        f"unpacks to {entry.file_size:,} bytes; at most {MOST_BYTES:,}": entry.file_size > MOST_BYTES,
        "stands twice in the zip": names[name] > 1,
    }
    return _name_fault(name) or next((fault for fault, applies in faults.items() if applies), None)


def _name_fault(name: str) -> str | None:
    """Return why a file of this name is left out, or None."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "a name with control characters, or one that is not UTF-8"
    return None


def _open_folder(path: Path) -> Archive:
    left_out: dict[str, str] = {}
    files = tuple(_walk(path, left_out))

    def read(file: str, digest: str | None) -> bytes:
        content = _read_bytes(path / file)
        if digest is not None and content_digest(zlib.crc32(content), len(content)) != digest:
            raise RequestError(f"{path / printable(file)}: changed after it was listed; start again")
        return content

    return Archive(files, tuple(sorted(left_out.items())), partial(_folder_digests, path), read)


def _walk(folder: Path, left_out: dict[str, str]) -> Iterator[str]:
    """Yield the files below a folder, and add those that are left out to `left_out`.

    Hidden folders are ignored, and links to folders are not followed.
    """

    def refuse(error: OSError) -> None:
        raise RequestError(f"{error.filename}: cannot be read: {error.strerror}")

    root = folder.resolve()
    for parent, folders, files in os.walk(folder, onerror=refuse):
        relative = Path(parent).relative_to(folder)
        left_out |= {
            printable((relative / name).as_posix()): "a link to a folder, which is not followed"
            for name in folders
            if (Path(parent) / name).is_symlink()
        }
        folders[:] = [] if len(relative.parts) >= _MOST_LEVELS else sorted(f for f in folders if not f.startswith("."))
        for file in files:
            name = (relative / file).as_posix()
            if fault := _name_fault(name) or _path_fault(Path(parent) / file, root):
                left_out[printable(name)] = fault
            else:
                yield name


def _path_fault(path: Path, root: Path) -> str | None:
    """Return why a file below the folder `root` is left out, or None."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            # With strict=True a link in a circle raises; without, it would be returned as it is.
            if not path.resolve(strict=True).is_relative_to(root):
                return "a link that leads out of the folder"
            status = path.stat()
    except (OSError, RuntimeError):
        return "a link to nothing"
    if not stat.S_ISREG(status.st_mode):
        return "a pipe, a socket or a device, no file"
    if status.st_size > MOST_BYTES:
        return f"{status.st_size:,} bytes; at most {MOST_BYTES:,}"
    return None


def _folder_digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """Return content digests by name. Only files that are new, or whose size or time changed, are read."""
    files = list(files)
    path = cache_folder("digests") / f"{sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json"
    cached: dict[str, tuple[int, int, str]] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):  # the cache is missing or damaged
        cached = {file: (size, time, digest) for file, (size, time, digest) in json.loads(path.read_bytes()).items()}

    states = {file: _size_and_time(folder / file) for file in files}
    changed = [file for file, state in states.items() if cached.get(file, ())[:2] != state]

    def digest_file(file: str) -> str:
        content = _read_bytes(folder / file)
        return content_digest(zlib.crc32(content), len(content))

    if changed:
        with ThreadPoolExecutor() as threads:
            digests = dict(zip(changed, threads.map(digest_file, changed), strict=True))
        cached = {file: (*state, digests.get(file) or cached[file][2]) for file, state in states.items()}
        try:
            with replacing(path) as out:
                out.write(json.dumps(cached).encode())
        except OSError as error:
            raise cache_error(path.parent, error) from None
    return {file: cached[file][2] for file in files}


def _size_and_time(path: Path) -> tuple[int, int]:
    """Return a file's size in bytes and the time of its last change in nanoseconds."""
    try:
        status = path.stat()
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
