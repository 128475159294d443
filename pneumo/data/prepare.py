"""Pictures decoded once, and kept.

`prepare` decodes the training pool, at every size wanted in one pass, with a thread for each core. Pillow lets go of
Python's lock while it decodes and resizes: two cores were 2.0 times as fast as one on pictures of 1,300 x 1,000, and 1.6
times on 224 x 224. Drawing phantoms, many small steps of NumPy, gains nothing from threads.

What comes out is one array of 8-bit greys for each size, in a cache folder named by the pictures' content, their names
and the decoding recipe:

    <cache>/pictures/<key>/64.npy             uint8 (n, 64, 64), rows in the order of the names
    <cache>/pictures/<key>/unreadable.json    name to reason, of pictures that cannot be decoded; their rows are black
    <cache>/pictures/<key>/split-*.npz        training and validation, so that a second start needs no scikit-learn

A file comes into its place whole or not at all. One process writes while others wait for it; what a killed writer left is
removed by the next. A later run that wants one more size decodes only that.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from pneumo.data.cache import cache_error, cache_folder, cache_root, remove_temporary_files, replacing
from pneumo.data.decoding import RECIPE, UnreadableError, decode
from pneumo.data.pictures import Picture, Source, pictures_digest
from pneumo.data.split import RULES, Count, Indices, count_parts, split
from pneumo.spec.errors import RequestError
from pneumo.spec.result import CLASSES, Part

MOST_UNREADABLE = 0.01
"""The share of the pool that may be unreadable before the request is refused."""

_BATCH = 32
"""Pictures a thread takes at once."""

_UNREADABLE = "unreadable.json"

_DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile)
"""What NumPy raises for a file that is missing, empty or cut short, as a power loss leaves it."""

_Row = tuple[list[NDArray[np.uint8]], str | None]
"""One picture at every size, and why it cannot be read."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """The training pool, decoded and cut. Small, and can be pickled: worker processes map the pixels themselves.

    `names`, `labels` (uint8), `patients` and `digests` have one entry for each picture of the pool, sorted by name, and
    `pixels` one row. `training` and `validation` (int64, sorted) are indices into them; pictures that cannot be read
    (`unreadable`: name and reason) stand in neither. `test` tells the sealed test pictures; `classes` names the labels.
    """

    kind: str
    description: str
    names: tuple[str, ...]
    labels: NDArray[np.uint8]
    patients: tuple[str, ...]
    digests: tuple[str, ...]
    training: Indices
    validation: Indices
    unreadable: tuple[tuple[str, str], ...]
    counts: tuple[Count, ...]
    test: str
    sizes: tuple[int, ...]
    folder: Path
    classes: tuple[str, str] = CLASSES

    def pixels(self, size: int) -> NDArray[np.uint8]:
        """All pictures at one of `sizes`: a read-only memory map, uint8 (n, size, size).

        Raises `RequestError` where the cache is gone.
        """
        if size not in self.sizes:
            raise ValueError(f"{size} pixels were not prepared; there is {self.sizes}")
        rows = _mapped(self.folder, size, len(self.names))
        if rows is None:
            raise RequestError(f"{self.folder}: the prepared pictures are gone; the same command again makes them anew")
        return rows

    def digest(self, part: Part) -> str:
        """32 hexadecimal digits that tell the part's pictures: names, labels, content, and so the split."""
        rows = getattr(self, part)
        return pictures_digest(part, ((self.names[row], self.labels[row], self.digests[row]) for row in rows))


def prepare(
    source: Source,
    sizes: Sequence[int],
    share: float,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """The source's training pool, decoded at `sizes` (pixels) and cut by patient.

    `progress` is told how many of how many pictures are decoded, in the calling thread, and nothing where the cache has
    them all. `say` is given the source's notes and a line for each picture that is left out. Raises `RequestError`: too few
    patients, more than 1 % unreadable, a cache that cannot be written.
    """
    pictures = source.pictures
    sizes = sorted(set(sizes))
    folder = cache_folder(f"pictures/{_key(pictures)}")
    try:
        # Under the lock throughout: cleaning up takes away what another process is writing.
        with FileLock(folder / ".lock"):
            remove_temporary_files(folder)
            training, validation = _cut(folder, source, share, seed)
            if missing := _missing(folder, sizes, len(pictures)):
                _write(folder, missing, source, progress)
        unreadable = _listed(folder) or {}
    except OSError as error:
        raise cache_error(folder, error) from None
    _check(unreadable, len(pictures), source.description)
    for note in source.notes:
        say(note)
    for name, reason in source.left_out:
        say(f"{name}: left out: {reason}")
    for name, reason in unreadable.items():
        say(f"{name}: left out, cannot be decoded: {reason}")
    bad = np.array([picture.name in unreadable for picture in pictures])
    training, validation = training[~bad[training]], validation[~bad[validation]]
    counts = count_parts(source, training, validation)
    for empty in (each for each in counts if each.part != "test" and not each.pictures):
        raise RequestError(
            f"{source.description}: no {source.classes[empty.label]} picture of the {empty.part} part can be decoded"
        )
    return Prepared(
        kind=source.kind,
        description=source.description,
        names=tuple(picture.name for picture in pictures),
        labels=np.array([picture.label for picture in pictures], np.uint8),
        patients=tuple(picture.patient for picture in pictures),
        digests=tuple(picture.digest for picture in pictures),
        training=training,
        validation=validation,
        unreadable=tuple(unreadable.items()),
        counts=counts,
        test=source.test_digest,
        sizes=tuple(sizes),
        folder=folder,
        classes=source.classes,
    )


def sizes_to_decode(source: Source, sizes: Sequence[int]) -> tuple[int, ...]:
    """Those of `sizes` at which the source's training pool is not in the cache yet. Makes nothing."""
    pictures = source.pictures
    return tuple(_missing(cache_root() / "pictures" / _key(pictures), sorted(set(sizes)), len(pictures)))


def _key(pictures: Sequence[Picture]) -> str:
    lines = [f"recipe {RECIPE}", *(f"{picture.name} {picture.digest}" for picture in pictures)]
    return sha256("\n".join(lines).encode()).hexdigest()[:32]


def _cut(folder: Path, source: Source, share: float, seed: int) -> tuple[Indices, Indices]:
    """`split`, remembered."""
    patients = sha256("\n".join(picture.patient for picture in source.pictures).encode()).hexdigest()[:8]
    memory = folder / f"split-{share!r}-{seed}-{patients}-{RULES}.npz"
    if source.validation:
        return split(source.pictures, share, seed, source.validation, source.classes)
    with contextlib.suppress(KeyError, *_DAMAGED), np.load(memory, allow_pickle=False) as kept:
        return kept["training"], kept["validation"]
    training, validation = split(source.pictures, share, seed, classes=source.classes)
    with replacing(memory) as file:
        np.savez(file, training=training, validation=validation)
    return training, validation


def _missing(folder: Path, sizes: Sequence[int], n: int) -> list[int]:
    known = _listed(folder) is not None
    return [size for size in sizes if not known or _mapped(folder, size, n) is None]


def _listed(folder: Path) -> dict[str, str] | None:
    """The unreadable pictures, name to reason, or None where the list is not there or not whole."""
    try:
        return dict(json.loads((folder / _UNREADABLE).read_bytes()))
    except (OSError, ValueError):
        return None


def _mapped(folder: Path, size: int, n: int) -> NDArray[np.uint8] | None:
    """The array of one size, or None where it is not there or not whole."""
    try:
        rows: NDArray[np.uint8] = np.load(folder / f"{size}.npy", mmap_mode="r", allow_pickle=False)
    except _DAMAGED:
        return None
    return rows if rows.shape == (n, size, size) and rows.dtype == np.uint8 else None


def _write(folder: Path, sizes: Sequence[int], source: Source, progress: Callable[[int, int], None]) -> None:
    """Decodes every picture at `sizes`, and writes the rows in order while they come."""
    n = len(source.pictures)
    unreadable: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(replacing(folder / f"{size}.npy")) for size in sizes]
        for file, size in zip(files, sizes, strict=True):
            header = {"descr": "|u1", "fortran_order": False, "shape": (n, size, size)}
            np.lib.format.write_array_header_1_0(file, header)
        decoded = stack.enter_context(contextlib.closing(_decoded(source, sizes)))
        progress(0, n)
        for row, (squares, reason) in enumerate(decoded):
            for file, square in zip(files, squares, strict=True):
                file.write(square.tobytes())
            if reason is not None:
                unreadable[source.pictures[row].name] = reason
            progress(row + 1, n)
        # Before the arrays, which come into their places when the stack is left: an array is never there without it.
        with replacing(folder / _UNREADABLE) as listed:
            listed.write(json.dumps(unreadable).encode())


def _decoded(source: Source, sizes: Sequence[int]) -> Generator[_Row, None, None]:
    """The pictures of the pool, in order, decoded by as many threads as there are cores."""

    def one(picture: Picture) -> _Row:
        try:
            return decode(source.encoded(picture), sizes, picture.name).squares, None
        except UnreadableError as error:
            return [np.zeros((size, size), np.uint8) for size in sizes], " ".join(str(error).split())

    def batch(start: int) -> list[_Row]:
        return [one(picture) for picture in source.pictures[start : start + _BATCH]]

    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        for done in pool.map(batch, range(0, len(source.pictures), _BATCH)):
            yield from done
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted run must not decode the rest first


def _check(unreadable: dict[str, str], n: int, description: str) -> None:
    if len(unreadable) > MOST_UNREADABLE * n:
        first = "; ".join(f"{name} ({reason})" for name, reason in list(unreadable.items())[:3])
        raise RequestError(
            f"{description}: {len(unreadable)} of {n} pictures cannot be decoded, more than 1 %: "
            f"{first}{'; ...' if len(unreadable) > 3 else ''}"
        )
