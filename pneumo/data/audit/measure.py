"""The measurements of every picture: file digest and size, width and height, brightness, contrast, sharpness, and a thumbnail.

They are cached by the pictures' content, so that a second audit decodes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.data.audit.findings import all_pictures
from pneumo.data.cache import replacing
from pneumo.data.decoding import UnreadableError, decode
from pneumo.data.pictures import Picture, Source
from pneumo.data.sealed import open_sealed_test
from pneumo.spec.cores import usable_cores

THUMBNAIL = 64
"""Side in pixels of the thumbnails, which brightness and contrast are measured on."""

SHARPNESS_SIZE = 128
"""Side in pixels of the squares that sharpness is measured on."""

_BATCH = 32
"""Pictures that a thread decodes at a time."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """Measurements of n pictures: those of the training pool, then the sealed ones, in the source's order.

    Attributes:
        digests: SHA-256 digests of the files' bytes; "" for a file that cannot be read.
        file_sizes: Bytes of the files, int64 (n,); 0 for a file that cannot be read.
        sizes: Widths and heights in pixels, int64 (n, 2).
        modes: The pictures' modes, as the decoder names them.
        statistics: Brightness, contrast and sharpness, float64 (n, 3). Brightness and contrast are mean and standard
            deviation of the grey values (0 to 255), sharpness is the logarithm of the Laplacian's variance at 128 pixels.
        thumbnails: uint8 (n, 64, 64).
        unreadable: Reasons by name of the pictures that cannot be decoded; their rows are zeros.
    """

    digests: tuple[str, ...]
    file_sizes: NDArray[np.int64]
    sizes: NDArray[np.int64]
    modes: tuple[str, ...]
    statistics: NDArray[np.float64]
    thumbnails: NDArray[np.uint8]
    unreadable: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Measurement:
    """The measurements of one picture."""

    digest: str = ""
    file_size: int = 0
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    statistics: tuple[float, float, float] = (0.0, 0.0, 0.0)
    thumbnail: NDArray[np.uint8] | None = None
    unreadable: str | None = None


def measure(source: Source, folder: Path, progress: Callable[[int, int], None]) -> Measurements:
    """Measure every picture of the source, the sealed ones too, or read the measurements that `folder` holds."""
    path = folder / "looks.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _from_arrays(arrays)
    except Exception:  # noqa: S110 - missing, or damaged in any way that NumPy and zipfile report
        pass
    pictures = all_pictures(source)
    test = open_sealed_test(source) if source.sealed else source

    def measure_batch(start: int) -> list[_Measurement]:
        rows = range(start, min(start + _BATCH, len(pictures)))
        return [_measure_picture(source if row < len(source.pictures) else test, pictures[row]) for row in rows]

    measured: list[_Measurement] = []
    threads = ThreadPoolExecutor(usable_cores())
    try:
        for batch in threads.map(measure_batch, range(0, len(pictures), _BATCH)):
            measured += batch
            progress(len(measured), len(pictures))
    finally:
        threads.shutdown(cancel_futures=True)
    black = np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)
    measurements = Measurements(
        digests=tuple(m.digest for m in measured),
        file_sizes=np.array([m.file_size for m in measured], np.int64),
        sizes=np.array([m.size for m in measured], np.int64).reshape(-1, 2),
        modes=tuple(m.mode for m in measured),
        statistics=np.array([m.statistics for m in measured], np.float64).reshape(-1, 3),
        thumbnails=np.array([black if m.thumbnail is None else m.thumbnail for m in measured], np.uint8),
        unreadable={
            picture.name: m.unreadable
            for picture, m in zip(pictures, measured, strict=True)
            if m.unreadable is not None
        },
    )
    with replacing(path) as file:
        np.savez(file, **_to_arrays(measurements))
    return measurements


def _measure_picture(source: Source, picture: Picture) -> _Measurement:
    digest, file_size = "", 0
    try:
        encoded = source.encoded(picture)
        digest, file_size = sha256(encoded).hexdigest(), len(encoded)
        decoded = decode(encoded, (THUMBNAIL, SHARPNESS_SIZE), picture.name)
    except UnreadableError as error:
        return _Measurement(digest, file_size, unreadable=" ".join(str(error).split()))
    thumbnail, square = decoded.squares
    statistics = (float(thumbnail.mean()), float(thumbnail.std()), _sharpness(square))
    return _Measurement(digest, file_size, (decoded.width, decoded.height), decoded.mode, statistics, thumbnail)


def _sharpness(square: NDArray[np.uint8]) -> float:
    grey = square.astype(np.float64)
    laplacian = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
    return float(np.log(laplacian.var() + 1))


def _to_arrays(measurements: Measurements) -> dict[str, Any]:
    texts = {
        "contents": measurements.digests,
        "modes": measurements.modes,
        "unreadable": measurements.unreadable,
    }
    return {
        "file_sizes": measurements.file_sizes,
        "sizes": measurements.sizes,
        "figures": measurements.statistics,
        "thumbnails": measurements.thumbnails,
        "texts": np.frombuffer(json.dumps(texts).encode(), np.uint8),
    }


def _from_arrays(arrays: Any) -> Measurements:
    texts = json.loads(arrays["texts"].tobytes())
    return Measurements(
        digests=tuple(texts["contents"]),
        file_sizes=arrays["file_sizes"],
        sizes=arrays["sizes"],
        modes=tuple(texts["modes"]),
        statistics=arrays["figures"],
        thumbnails=arrays["thumbnails"],
        unreadable=texts["unreadable"],
    )
