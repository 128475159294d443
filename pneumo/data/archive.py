"""The files of a zip or a folder, from whoever it comes.

Nothing is ever unpacked to disk: a file is read into memory when it is asked for, by the name that the listing gave. What
could lead elsewhere or harm is left out and named: names that climb out, links that leave the folder, pipes and devices,
files too large to be one picture. A zip that can only be a bomb is refused.
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
"""Of one file, unpacked: a 16-bit DICOM of the most pixels that are decoded has 180 MB."""

MOST_RATIO = 1_100
"""Unpacked to packed, of a whole zip: deflate reaches 1,032 to 1. Beyond it members overlap, as in D. Fifield, "A better
zip bomb", WOOT 2019."""

MOST_FILES = 2_000_000
"""Of a zip, whose directory is held in memory."""

_DEEPEST = 6
"""Levels of a folder that are looked through, so that a path to a whole disk ends soon."""


@dataclass(frozen=True)
class Archive:
    """The files below a path, by POSIX names relative to it.

    `digests` gives content digests of some of `files`, `read` a file's bytes if they still have that digest. `left_out` are
    files that are not taken, name and reason.
    """

    files: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    digests: Callable[[Iterable[str]], dict[str, str]]
    read: Callable[[str, str | None], bytes]


def open_archive(path: Path, wanted: str) -> Archive:
    """The zip or the folder at `path`; `wanted` says what it should be, for the error. Raises `RequestError`."""
    return _folder(path) if path.is_dir() else _zip(path, wanted)


def printable(name: str) -> str:
    """A file's name as it may be printed: control characters and half surrogates escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in name)


def _zip(path: Path, wanted: str) -> Archive:
    try:
        archive = zipfile.ZipFile(path)
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        packed = path.stat().st_size
    # What zipfile raises for a broken directory differs with where it is broken, and with Python's version.
    except (zipfile.BadZipFile, ValueError, RuntimeError, zlib.error, struct.error, EOFError, IndexError):
        raise RequestError(f"{path}: is no zip, or a broken one; wants {wanted}") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None
    # Those beyond MOST_BYTES are left out one by one.
    unpacked = sum(entry.file_size for entry in entries if entry.file_size <= MOST_BYTES)
    if unpacked > MOST_RATIO * packed or len(entries) > MOST_FILES:
        raise RequestError(
            f"{path}: {len(entries):,} files that unpack to {unpacked:,} bytes, out of {packed:,}: no such zip is read, "
            f"it is a bomb"
        )
    names = Counter(entry.filename for entry in entries)
    faults = [(entry, _fault(entry, names)) for entry in entries]
    members = {entry.filename: entry for entry, fault in faults if fault is None}

    def digests(files: Iterable[str]) -> dict[str, str]:
        return {file: content_digest(members[file].CRC, members[file].file_size) for file in files}

    def read(file: str, digest: str | None) -> bytes:
        # Threads may share one ZipFile: each read has its own place in the file and locks the handle for itself. It never
        # gives more than the directory's size, and checks the directory's CRC, but says nothing where less comes.
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


def _fault(entry: zipfile.ZipInfo, names: Counter[str]) -> str | None:
    name = entry.filename
    elsewhere = "\\" in entry.orig_filename or name.startswith("/") or re.match(r"[A-Za-z]:", name)
    faults = {
        "an absolute name, or one of another system": elsewhere,
        "a name that climbs out of the zip": ".." in PurePosixPath(name).parts,
        "a link, no file": stat.S_ISLNK(entry.external_attr >> 16),
        "encrypted": entry.flag_bits & 1,
        f"unpacks to {entry.file_size:,} bytes; at most {MOST_BYTES:,}": entry.file_size > MOST_BYTES,
        "stands twice in the zip": names[name] > 1,
    }
    return _name_fault(name) or next((fault for fault, there in faults.items() if there), None)


def _name_fault(name: str) -> str | None:
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "a name with control characters, or one that is not UTF-8"
    return None


def _folder(path: Path) -> Archive:
    left_out: dict[str, str] = {}
    files = tuple(_walk(path, left_out))

    def read(file: str, digest: str | None) -> bytes:
        encoded = _file_bytes(path / file)
        if digest is not None and content_digest(zlib.crc32(encoded), len(encoded)) != digest:
            raise RequestError(f"{path / printable(file)}: changed after it was listed; start again")
        return encoded

    return Archive(files, tuple(sorted(left_out.items())), partial(_folder_digests, path), read)


def _walk(folder: Path, left_out: dict[str, str]) -> Iterator[str]:
    """The files below a folder; hidden folders are passed over, links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise RequestError(f"{error.filename}: cannot be read: {error.strerror}")

    root = folder.resolve()
    for here, folders, files in os.walk(folder, onerror=refuse):
        relative = Path(here).relative_to(folder)
        left_out |= {
            printable((relative / name).as_posix()): "a link to a folder, which is not followed"
            for name in folders
            if (Path(here) / name).is_symlink()
        }
        folders[:] = [] if len(relative.parts) >= _DEEPEST else sorted(f for f in folders if not f.startswith("."))
        for file in files:
            name = (relative / file).as_posix()
            if fault := _name_fault(name) or _path_fault(Path(here) / file, root):
                left_out[printable(name)] = fault
            else:
                yield name


def _path_fault(path: Path, root: Path) -> str | None:
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            # strict: a link that turns in a circle raises instead of standing for itself.
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
    """Content digests by name. Only files that are new, or have another size or time than before, are read."""
    files = list(files)
    memory = cache_folder("digests") / f"{sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json"
    known: dict[str, tuple[int, int, str]] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):  # none yet, or broken: read the files
        known = {file: (size, time, crc) for file, (size, time, crc) in json.loads(memory.read_bytes()).items()}

    states = {file: _state(folder / file) for file in files}
    changed = [file for file, state in states.items() if known.get(file, ())[:2] != state]

    def digest(file: str) -> str:
        encoded = _file_bytes(folder / file)
        return content_digest(zlib.crc32(encoded), len(encoded))

    if changed:
        with ThreadPoolExecutor() as pool:
            fresh = dict(zip(changed, pool.map(digest, changed), strict=True))
        known = {file: (*states[file], fresh.get(file) or known[file][2]) for file in states}
        try:
            with replacing(memory) as out:
                out.write(json.dumps(known).encode())
        except OSError as error:
            raise cache_error(memory.parent, error) from None
    return {file: known[file][2] for file in files}


def _state(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
