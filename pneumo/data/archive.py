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
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath

from pneumo.data.cache import cache_error, cache_folder, replacing
from pneumo.data.decoding import UnreadableError
from pneumo.data.pictures import content_digest
from pneumo.spec.cores import usable_cores
from pneumo.spec.errors import RequestError

MOST_BYTES = 512 * 2**20
"""Largest size of one unpacked file: a 16-bit DICOM with the largest number of pixels that is decoded has 180 MB."""

MOST_RATIO = 1_100
"""Largest ratio of unpacked to packed size of a whole zip. Deflate reaches 1,032; a larger ratio means that members overlap, as
in D. Fifield, "A better zip bomb", WOOT 2019."""

MOST_FILES = 1_000_000
"""Largest number of files and folders, so that the search of a whole disk ends soon. The largest public set of chest X-rays,
MIMIC-CXR, has 670,000."""

FOLDER_LINK = "a link to a folder, which is not followed"
"""Why a link to a folder is left out. It may hold pictures, whatever its name is."""

_SYSTEM_FOLDERS = frozenset(
    ("__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information")
)
"""Folders, in lower case, in which macOS, network storage and Windows put copies and thumbnails."""

_SYSTEM_FILES = frozenset(("desktop.ini", "ehthumbs.db", "icon\r", "thumbs.db"))
"""Files, in lower case, that Windows and macOS put into folders of pictures."""

_DOS_SYSTEMS = (0, 10, 14)
"""What a zip's entries say if they were written under DOS or Windows, where a backslash separates folders."""

_UTF8 = 0x800
"""The flag of a zip's entry whose name is marked as UTF-8."""


@dataclass(frozen=True)
class Archive:
    """The files below a path: the same files for a folder and for a zip of it.

    Attributes:
        files: POSIX names relative to the path.
        empty: Those of `files` that have no content.
        ignored: Number of hidden files and of files of the system, by kind.
        left_out: Name and reason for each other file that is not used.
        digests: Returns the content digests of some of `files`, by name.
        read: Returns a file's bytes, given its name and its digest. If the digest is not None, it must still be the file's.
    """

    files: tuple[str, ...]
    empty: frozenset[str]
    ignored: tuple[tuple[str, int], ...]
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
        entries = archive.infolist()
        packed = path.stat().st_size
    # What zipfile raises for a broken directory depends on where it is broken, and on Python's version.
    except (zipfile.BadZipFile, ValueError, RuntimeError, zlib.error, struct.error, EOFError, IndexError):
        raise RequestError(f"{path}: is no zip, or a broken one; expected {expected}") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None
    _check_number(len(entries), path)
    # Larger files are left out one by one.
    unpacked = sum(entry.file_size for entry in entries if entry.file_size <= MOST_BYTES)
    if unpacked > MOST_RATIO * packed:
        raise RequestError(
            f"{path}: is a bomb: {len(entries):,} files that unpack from {packed:,} to {unpacked:,} bytes; it is not read"
        )
    named = [(_entry_name(entry), entry) for entry in entries]
    counts = Counter(name for name, _ in named)
    members: dict[str, zipfile.ZipInfo] = {}
    left_out: dict[str, str] = {}
    ignored: Counter[str] = Counter()
    for name, entry in named:
        if name.endswith("/"):
            continue
        if fault := _place_fault(name):
            left_out[printable(name)] = fault
        elif kind := _ignored_kind(name):
            ignored[kind] += 1
        elif fault := _name_fault(name) or _entry_fault(entry, counts[name] > 1):
            left_out[printable(name)] = fault
        else:
            members[name] = entry

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

    empty = frozenset(name for name, entry in members.items() if not entry.file_size)
    return Archive(
        tuple(members), empty, tuple(sorted(ignored.items())), tuple(sorted(left_out.items())), digests, read
    )


def _entry_name(entry: zipfile.ZipInfo) -> str:
    """Return an entry's name with one `/` between folders, ending in `/` if the entry is a folder."""
    name = entry.filename
    if not entry.flag_bits & _UTF8:
        # macOS and Info-ZIP write UTF-8 without saying so; zipfile takes it for code page 437.
        with contextlib.suppress(UnicodeError):
            name = entry.orig_filename.encode("cp437").decode("utf-8")
    if entry.create_system in _DOS_SYSTEMS:
        name = name.replace("\\", "/")
    return PurePosixPath(name).as_posix() + "/" * name.endswith("/")


def _place_fault(name: str) -> str | None:
    """Return why an entry of a zip is left out because of where it would be, or None."""
    if name.startswith("/") or re.match(r"[A-Za-z]:/", name):
        return "an absolute name"
    if ".." in name.split("/"):
        return "a name that climbs out of the zip"
    return "it has no name" if name == "." else None


def _entry_fault(entry: zipfile.ZipInfo, twice: bool) -> str | None:
    """Return why an entry of a zip is left out, or None. `twice` says whether another one has the same name."""
    faults = {
        "a link, no file": stat.S_ISLNK(entry.external_attr >> 16),
        "encrypted": entry.flag_bits & 1,
        f"unpacks to {entry.file_size:,} bytes; at most {MOST_BYTES:,}": entry.file_size > MOST_BYTES,
        "stands twice in the zip": twice,
    }
    return next((fault for fault, applies in faults.items() if applies), None)


def _check_number(number: int, path: Path) -> None:
    if number > MOST_FILES:
        raise RequestError(
            f"{path}: holds more than {MOST_FILES:,} files and folders; give the path of the pictures alone"
        )


def _ignored_kind(name: str) -> str | None:
    """Return the kind of a file that is hidden or of the system, or None. `name` is relative to the archive."""
    *folders, file = name.split("/")
    if any(folder.startswith(".") for folder in folders):
        return "in hidden folders"
    if any(folder.casefold() in _SYSTEM_FOLDERS for folder in folders):
        return "in system folders"
    if file.startswith("."):
        return "hidden"
    return "of the system" if file.casefold() in _SYSTEM_FILES else None


def _name_fault(name: str) -> str | None:
    """Return why a file of this name is left out, or None."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "a name with control characters, or one that is not UTF-8"
    return "a name with a backslash, as of another system" if "\\" in name else None


def _open_folder(path: Path) -> Archive:
    files, ignored, left_out = _walk(path)

    def read(file: str, digest: str | None) -> bytes:
        content = _read_bytes(path / file)
        if digest is not None and content_digest(zlib.crc32(content), len(content)) != digest:
            raise RequestError(f"{path / printable(file)}: changed after it was listed; start again")
        return content

    return Archive(
        tuple(files),
        frozenset(name for name, size in files.items() if not size),
        tuple(sorted(ignored.items())),
        tuple(sorted(left_out.items())),
        partial(_folder_digests, path),
        read,
    )


def _walk(folder: Path) -> tuple[dict[str, int], Counter[str], dict[str, str]]:
    """Return the files below a folder with their sizes, the number of ignored files by kind, and those that are left out.

    Links to folders are not followed.
    """
    files: dict[str, int] = {}
    ignored: Counter[str] = Counter()
    left_out: dict[str, str] = {}
    root, number, below = folder.resolve(), 0, [""]
    while below:
        parent = below.pop()
        try:
            with os.scandir(folder / parent) as entries:
                found = list(entries)
        except OSError as error:
            if _ignored_kind(f"{parent}/file") is None:
                raise RequestError(f"{printable(str(error.filename))}: cannot be read: {error.strerror}") from None
            ignored["hidden folders that cannot be read"] += 1
            continue
        number += len(found)
        _check_number(number, folder)
        for entry in found:
            name = f"{parent}/{entry.name}" if parent else entry.name
            if entry.is_dir(follow_symlinks=False):
                below.append(name)
            elif kind := _ignored_kind(name):
                ignored[kind] += 1
            else:
                size, fault = _path_state(Path(entry.path), root)
                if fault := _name_fault(name) or fault:
                    left_out[printable(name)] = fault
                else:
                    files[name] = size
    return files, ignored, left_out


def _path_state(path: Path, root: Path) -> tuple[int, str | None]:
    """Return the size in bytes of a file below the folder `root`, and why it is left out, or None."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            # With strict=True a link in a circle raises; without, it would be returned as it is.
            target = path.resolve(strict=True)
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                return 0, FOLDER_LINK
            if not target.is_relative_to(root):
                return 0, "a link that leads out of the folder"
    except (OSError, RuntimeError):
        return 0, "a link to nothing"
    if not stat.S_ISREG(status.st_mode):
        return 0, "a pipe, a socket or a device, no file"
    if status.st_size > MOST_BYTES:
        return 0, f"{status.st_size:,} bytes; at most {MOST_BYTES:,}"
    return status.st_size, None


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
        with ThreadPoolExecutor(usable_cores() + 4) as threads:
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
