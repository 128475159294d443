"""The public archive `paultimothymooney/chest-xray-pneumonia`, as the zip or as the unpacked folder.

The layout is `chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`, whatever lies around it is called: the shallowest
folder with `train` pictures of both classes is taken, so that the archive's nested second copy is passed over, as
are `__MACOSX`, `._*` and files that are no pictures. `val` (16 pictures, too few to choose by) joins the training pool.

Nothing is decoded here. A zip's directory names each content digest; for a folder every file is read once and its digest
remembered, as long as size and time of the file stay the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path, PurePosixPath

from pneumo.data.cache import cache_folder, replacing, unwritable
from pneumo.data.pictures import Picture, Source, UnreadableError, content_digest, patient_of
from pneumo.spec.errors import RequestError
from pneumo.spec.result import CLASSES

_SLUG = "paultimothymooney/chest-xray-pneumonia"
_LAYOUT = "chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}"
_SUFFIXES = (".jpeg", ".jpg", ".png")
_PARTS = ("train", "val", "test")
_DEEPEST = 6
"""Levels of a folder that are looked through, so that a path to a whole disk ends soon."""


def open_kaggle(path: Path | None) -> Source:
    """The archive at `path`, a zip or a folder. Raises `RequestError` with what would be right."""
    if path is None:
        raise RequestError(f"data.path: no path is given; give --data the Kaggle zip {_SLUG} or its unpacked folder")
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a folder on the way is closed
        raise RequestError(f"{path}: there is no such file or folder; give --data the Kaggle zip {_SLUG} or its folder")
    return _open_folder(path) if path.is_dir() else _open_zip(path)


def _open_zip(path: Path) -> Source:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise RequestError(f"{path}: is no zip, or a broken one; wants the Kaggle zip {_SLUG} or its folder") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None
    members = {member.filename: member for member in archive.infolist() if not member.is_dir()}
    files = _in_layout(members, str(path))
    digests = {name: content_digest(members[file].CRC, members[file].file_size) for name, file in files.items()}

    def read(picture: Picture) -> bytes:
        # Threads may share one ZipFile: each read has its own place in the file and locks the handle for itself.
        try:
            return archive.read(members[files[picture.name]])
        except OSError as error:
            raise RequestError(f"{path}: {picture.name} cannot be read: {error.strerror or error}") from None
        # zipfile raises RuntimeError for an encrypted member and its NotImplementedError for an unknown compression.
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise UnreadableError(f"broken in the zip: {error}") from None

    return _source(path, digests, read)


def _open_folder(path: Path) -> Source:
    files = _in_layout(_walk(path), str(path))
    digests = _folder_digests(path, files)

    def read(picture: Picture) -> bytes:
        encoded = _file_bytes(path / files[picture.name])
        if content_digest(zlib.crc32(encoded), len(encoded)) != picture.digest:
            raise RequestError(f"{path / files[picture.name]}: changed after it was listed; start again")
        return encoded

    return _source(path, digests, read)


def _source(path: Path, digests: Mapping[str, str], read: Callable[[Picture], bytes]) -> Source:
    pictures = [_picture(name, digest) for name, digest in sorted(digests.items())]
    return Source(
        kind="kaggle",
        description=path.resolve().name,
        pictures=tuple(picture for picture in pictures if not picture.name.startswith("test/")),
        sealed=tuple(picture for picture in pictures if picture.name.startswith("test/")),
        read=read,
    )


def _picture(name: str, digest: str) -> Picture:
    return Picture(name, CLASSES.index(PurePosixPath(name).parts[1]), patient_of(name), digest)


def _in_layout(files: Iterable[str], where: str) -> dict[str, str]:
    """The pictures of the shallowest complete layout: name inside the layout (`train/NORMAL/a.jpeg`) to file."""
    layouts: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for file in files:
        *outer, part, label, last = ("", "", *PurePosixPath(file).parts)
        if not _is_picture(file) or part.lower() not in _PARTS or label.upper() not in CLASSES:
            continue
        name = f"{part.lower()}/{label.upper()}/{last}"
        other = layouts[tuple(outer)].setdefault(name, file)
        if other != file:
            raise RequestError(f"{where}: {other} and {file} are the same picture by name; leave one out")
    counts = {root: Counter(name.rsplit("/", 1)[0] for name in found) for root, found in layouts.items()}
    complete = [root for root, count in counts.items() if all(count[f"train/{label}"] for label in CLASSES)]
    if not complete:
        raise RequestError(f"{where}: {_lacking(counts)}")
    shallowest = [root for root in complete if len(root) == min(map(len, complete))]
    if len(shallowest) > 1:
        first, second = ("/".join(filter(None, root)) for root in sorted(shallowest)[:2])
        raise RequestError(f"{where}: holds several sets of pictures ({first}, {second}); give the path of one")
    empty = [f"test/{label}" for label in CLASSES if not counts[shallowest[0]][f"test/{label}"]]
    if len(empty) == 1:
        raise RequestError(f"{where}: {empty[0]} has no pictures; wants {_LAYOUT}, or no test folder at all")
    return layouts[shallowest[0]]


def _lacking(counts: Mapping[tuple[str, ...], Counter[str]]) -> str:
    """Why no layout is complete, told of the one that is nearest to it."""
    train = {root: count for root, count in counts.items() if any(count[f"train/{label}"] for label in CLASSES)}
    if not train:
        return f"there are no training pictures (.jpeg or .png); wants {_LAYOUT}"
    nearest = min(train, key=len)
    empty = next(label for label in CLASSES if not train[nearest][f"train/{label}"])
    return f"{'/'.join(filter(None, (*nearest, 'train', empty)))} has no pictures; wants {_LAYOUT}"


def _is_picture(file: str) -> bool:
    """Whether a file counts, by its name: Finder's `__MACOSX` and `._*` carry picture suffixes and are none."""
    path = PurePosixPath(file)
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith("._") and "__MACOSX" not in path.parts


def _walk(folder: Path) -> Iterator[str]:
    """The files below a folder, as POSIX paths relative to it; hidden folders are passed over."""

    def refuse(error: OSError) -> None:
        raise RequestError(f"{error.filename}: cannot be read: {error.strerror}")

    for here, folders, files in os.walk(folder, onerror=refuse):
        relative = Path(here).relative_to(folder)
        folders[:] = [] if len(relative.parts) >= _DEEPEST else sorted(f for f in folders if not f.startswith("."))
        yield from ((relative / file).as_posix() for file in files)


def _folder_digests(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Content digests by name. Only files that are new, or have another size or time than before, are read."""
    memory = cache_folder("digests") / f"{sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json"
    known: dict[str, tuple[int, int, str]] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):  # none yet, or broken: read the files
        known = {file: (size, time, crc) for file, (size, time, crc) in json.loads(memory.read_bytes()).items()}

    states = {file: _state(folder / file) for file in files.values()}
    changed = [file for file, state in states.items() if known.get(file, ())[:2] != state]

    def digest(file: str) -> str:
        encoded = _file_bytes(folder / file)
        return content_digest(zlib.crc32(encoded), len(encoded))

    if changed:
        with ThreadPoolExecutor() as pool:
            fresh = dict(zip(changed, pool.map(digest, changed), strict=True))
        known = {file: (*state, fresh.get(file) or known[file][2]) for file, state in states.items()}
        try:
            with replacing(memory) as out:
                out.write(json.dumps(known).encode())
        except OSError as error:
            raise unwritable(memory.parent, error) from None
    return {name: known[file][2] for name, file in files.items()}


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
