"""Decodes all pictures of the training pool once, and caches them.

`prepare` decodes the pool at every requested size in one pass, with a thread for each core. Pillow releases Python's global
lock while it decodes and resizes: two cores were 2.0 times as fast as one on pictures of 1,300 x 1,000, and 1.6 times on
224 x 224. Phantoms gain nothing from threads, because drawing one consists of many small steps of NumPy.

The result is one array of 8-bit greys for each size, in a cache folder whose name is a digest of the pictures' content, their
names and the decoding recipe:

    <cache>/pictures/<key>/64.npy             uint8 (n, 64, 64), rows in the order of the names
    <cache>/pictures/<key>/unreadable.json    name to reason, of pictures that cannot be decoded; their rows are black
    <cache>/pictures/<key>/split-*.npz        training and validation, so that a second start needs no scikit-learn

A file replaces the one before only when it is complete. One process writes while others wait for it; temporary files of a
killed process are removed by the next one. A later run that needs one more size decodes only that size.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from pneumo.data.cache import cache_error, cache_folder, cache_root, remove_temporary_files, replacing
from pneumo.data.decoding import RECIPE, UnreadableError, decode
from pneumo.data.picture_files import EMPTY
from pneumo.data.pictures import Picture, Source, describe_patients, pictures_digest
from pneumo.data.split import RULES, Count, Indices, count_parts, split
from pneumo.spec.cores import usable_cores
from pneumo.spec.errors import RequestError
from pneumo.spec.result import CLASSES, Part

MOST_UNREADABLE = 0.01
"""Largest share of the pool that may be unreadable."""

_BATCH = 32
"""Pictures that a thread decodes at a time."""

_UNREADABLE = "unreadable.json"

_DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile)
"""What NumPy raises for a file that is missing, empty or cut short, for example by a power loss."""

_DecodedPicture = tuple[list[NDArray[np.uint8]], str | None]
"""One picture at every size, and the reason why it cannot be decoded."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """The training pool, decoded and split. It is small and can be pickled: worker processes map the pixels themselves.

    Attributes:
        kind: The name of the source.
        description: One line for people.
        names: Names of the pictures of the pool, sorted. `labels` (uint8), `patients`, `digests` and the rows of `pixels`
            are in the same order.
        training: Indices of the training pictures, int64, sorted. Unreadable pictures are in no part.
        validation: Indices of the validation pictures, likewise.
        unreadable: Name and reason for each picture that cannot be decoded.
        counts: Pictures and patients of each part and class, without the unreadable ones.
        test: The digest of the sealed test pictures.
        sizes: The sizes at which the pictures are decoded.
        folder: The folder of the cache.
        classes: The names of the labels 0 and 1.
        patients_known: How the patients of all pictures are known, as `describe_patients` says.
        stored: For a process that does not see `folder`: by size, a function that returns the pixels. Empty elsewhere.
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
    patients_known: str = ""
    stored: Mapping[int, Callable[[], NDArray[np.uint8]]] = field(default_factory=dict, repr=False)

    def pixels(self, size: int) -> NDArray[np.uint8]:
        """Return all pictures at one of `sizes` as a read-only array that is mapped into memory, uint8 (n, size, size).

        Raises `RequestError` if the cache was deleted.
        """
        if size not in self.sizes:
            raise ValueError(f"{size} pixels were not prepared; there is {self.sizes}")
        if size in self.stored:
            return self.stored[size]()
        pixels = _map_pixels(self.folder, size, len(self.names))
        if pixels is None:
            raise RequestError(f"{self.folder}: the prepared pictures are gone; the same command prepares them again")
        return pixels

    def digest(self, part: Part) -> str:
        """Return 32 hexadecimal digits that identify the part's pictures: names, labels, content, and so the split."""
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
    """Decode and split the source's training pool, or read it from the cache.

    Args:
        source: The pictures.
        sizes: Sides of the decoded squares in pixels.
        share: Share of the patients of each class that go to validation.
        seed: Seed of the split.
        progress: Called in this thread with the number of pictures decoded so far and the number of all pictures. It is not
            called if all of them are cached.
        say: Called with each of the source's remarks, and with a line for each picture that cannot be decoded.

    Raises:
        RequestError: There are too few patients, more than 1 % of the pictures are unreadable, or the cache cannot be
            written.
    """
    pictures = source.pictures
    sizes = sorted(set(sizes))
    folder = cache_folder(f"pictures/{_cache_key(pictures)}")
    try:
        training, validation = _cached_split(folder, source, share, seed)
        # A complete cache is not locked, so that it may be read-only: a file is there only when it is complete.
        if _missing_sizes(folder, sizes, len(pictures)):
            # Removing temporary files without the lock would remove those that another process is writing.
            with FileLock(folder / ".lock"):
                remove_temporary_files(folder)
                if missing := _missing_sizes(folder, sizes, len(pictures)):
                    _decode_pool(folder, missing, source, progress)
        unreadable = _read_unreadable(folder) or {}
    except OSError as error:
        raise cache_error(folder, error) from None
    empty = {name: reason for name, reason in source.left_out if reason == EMPTY}
    _check_unreadable(empty | unreadable, len(empty) + len(pictures), source.description)
    for line in source.remarks:
        say(line)
    for name, reason in unreadable.items():
        say(f"{name}: left out, cannot be decoded: {reason}")
    broken = np.array([picture.name in unreadable for picture in pictures])
    training, validation = training[~broken[training]], validation[~broken[validation]]
    counts = count_parts(source, training, validation)
    for count in counts:
        if count.part != "test" and not count.pictures:
            raise RequestError(
                f"{source.description}: no {source.classes[count.label]} picture of the {count.part} part can be decoded"
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
        patients_known=describe_patients([*source.pictures, *source.sealed]),
    )


def sizes_to_decode(source: Source, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return those of `sizes` at which the source's training pool is not cached yet. Creates no file or folder."""
    folder = cache_root() / "pictures" / _cache_key(source.pictures)
    return tuple(_missing_sizes(folder, sorted(set(sizes)), len(source.pictures)))


def _cache_key(pictures: Sequence[Picture]) -> str:
    lines = [f"recipe {RECIPE}", *(f"{picture.name} {picture.digest}" for picture in pictures)]
    return sha256("\n".join(lines).encode()).hexdigest()[:32]


def _cached_split(folder: Path, source: Source, share: float, seed: int) -> tuple[Indices, Indices]:
    """Return the split of the pool, from the cache if it is there."""
    if source.validation:
        return split(source.pictures, share, seed, source.validation, source.classes)
    patients = sha256("\n".join(picture.patient for picture in source.pictures).encode()).hexdigest()[:8]
    path = folder / f"split-{share!r}-{seed}-{patients}-{RULES}.npz"
    with contextlib.suppress(KeyError, *_DAMAGED), np.load(path, allow_pickle=False) as arrays:
        return arrays["training"], arrays["validation"]
    training, validation = split(source.pictures, share, seed, classes=source.classes)
    # The split is stored for speed only. A shared cache may be read-only.
    with contextlib.suppress(OSError), replacing(path) as file:
        np.savez(file, training=training, validation=validation)
    return training, validation


def _missing_sizes(folder: Path, sizes: Sequence[int], n: int) -> list[int]:
    if _read_unreadable(folder) is None:
        return list(sizes)
    return [size for size in sizes if _map_pixels(folder, size, n) is None]


def _read_unreadable(folder: Path) -> dict[str, str] | None:
    """Return the unreadable pictures, name to reason, or None if the file is missing or damaged."""
    try:
        return dict(json.loads((folder / _UNREADABLE).read_bytes()))
    except (OSError, ValueError):
        return None


def _map_pixels(folder: Path, size: int, n: int) -> NDArray[np.uint8] | None:
    """Return the array of one size as a memory map, or None if the file is missing or damaged."""
    try:
        pixels: NDArray[np.uint8] = np.load(folder / f"{size}.npy", mmap_mode="r", allow_pickle=False)
    except _DAMAGED:
        return None
    return pixels if pixels.shape == (n, size, size) and pixels.dtype == np.uint8 else None


def _decode_pool(folder: Path, sizes: Sequence[int], source: Source, progress: Callable[[int, int], None]) -> None:
    """Decode every picture at `sizes`, and write the rows in order as they arrive."""
    n = len(source.pictures)
    unreadable: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(replacing(folder / f"{size}.npy")) for size in sizes]
        for file, size in zip(files, sizes, strict=True):
            header = {"descr": "|u1", "fortran_order": False, "shape": (n, size, size)}
            np.lib.format.write_array_header_1_0(file, header)
        decoded_pictures = stack.enter_context(contextlib.closing(_decode_in_threads(source, sizes)))
        progress(0, n)
        for row, (squares, reason) in enumerate(decoded_pictures):
            for file, square in zip(files, squares, strict=True):
                file.write(square.tobytes())
            if reason is not None:
                unreadable[source.pictures[row].name] = reason
            progress(row + 1, n)
        # The list is written before the stack moves the arrays into place, so that no array is there without it.
        with replacing(folder / _UNREADABLE) as file:
            file.write(json.dumps(unreadable).encode())


def _decode_in_threads(source: Source, sizes: Sequence[int]) -> Generator[_DecodedPicture, None, None]:
    """Yield the decoded pictures of the pool in order."""

    def decode_picture(picture: Picture) -> _DecodedPicture:
        try:
            return decode(source.encoded(picture), sizes, picture.name).squares, None
        except UnreadableError as error:
            return [np.zeros((size, size), np.uint8) for size in sizes], " ".join(str(error).split())

    def decode_batch(start: int) -> list[_DecodedPicture]:
        return [decode_picture(picture) for picture in source.pictures[start : start + _BATCH]]

    threads = ThreadPoolExecutor(usable_cores())
    try:
        for batch in threads.map(decode_batch, range(0, len(source.pictures), _BATCH)):
            yield from batch
    finally:
        threads.shutdown(cancel_futures=True)  # otherwise an interrupted run would decode the rest first


def _check_unreadable(unreadable: dict[str, str], n: int, description: str) -> None:
    if len(unreadable) > MOST_UNREADABLE * n:
        examples = "; ".join(f"{name} ({reason})" for name, reason in list(unreadable.items())[:3])
        raise RequestError(
            f"{description}: {len(unreadable)} of {n} pictures cannot be decoded, more than 1 %: "
            f"{examples}{'; ...' if len(unreadable) > 3 else ''}"
        )
