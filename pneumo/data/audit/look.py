"""One look at every picture: what its file is, how bright, contrasty and sharp it is, and a thumbnail.

A look is kept in the cache by the content that was looked at, so that a second audit decodes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.data.audit.findings import all_of
from pneumo.data.cache import replacing
from pneumo.data.decoding import UnreadableError, decode
from pneumo.data.pictures import Picture, Source
from pneumo.data.sealed import open_sealed_test

THUMBNAIL, SHARP = 64, 128
"""Sides of the squares, pixels: for thumbnails, brightness and contrast, and for sharpness."""

_BATCH = 32


@dataclass(frozen=True, eq=False)
class Looks:
    """Of n pictures, the pool's and then the sealed ones, in the source's order.

    `contents` are SHA-256 digests of the files' bytes ("" where they cannot be read), `sizes` (n, 2) widths and heights in
    pixels, `modes` as the decoder names them, `figures` (n, 3) brightness, contrast and sharpness (logarithm of the
    Laplacian's variance at 128 pixels), `thumbnails` uint8 (n, 64, 64). `unreadable` has reasons by name; the rows of
    those are zeros.
    """

    contents: tuple[str, ...]
    sizes: NDArray[np.int64]
    modes: tuple[str, ...]
    figures: NDArray[np.float64]
    thumbnails: NDArray[np.uint8]
    unreadable: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Look:
    content: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    figures: tuple[float, float, float] = (0.0, 0.0, 0.0)
    thumbnail: NDArray[np.uint8] | None = None
    unreadable: str | None = None


def looks(source: Source, folder: Path, progress: Callable[[int, int], None]) -> Looks:
    """A look at every picture of the source, the sealed ones too, from `folder` where it is kept there."""
    memory = folder / "looks.npz"
    try:
        with np.load(memory, allow_pickle=False) as kept:
            return _from_arrays(kept)
    except Exception:  # noqa: S110 - none yet, or broken in any of NumPy's and zipfile's ways
        pass
    pictures = all_of(source)
    test = open_sealed_test(source) if source.sealed else source

    def one(picture: Picture, of: Source) -> _Look:
        content = ""
        try:
            encoded = of.encoded(picture)
            content = sha256(encoded).hexdigest()
            decoded = decode(encoded, (THUMBNAIL, SHARP), picture.name)
        except UnreadableError as error:
            return _Look(content, unreadable=" ".join(str(error).split()))
        small, large = decoded.squares
        figures = (float(small.mean()), float(small.std()), _sharpness(large))
        return _Look(content, (decoded.width, decoded.height), decoded.mode, figures, small)

    def batch(start: int) -> list[_Look]:
        pool = len(source.pictures)
        rows = range(start, min(start + _BATCH, len(pictures)))
        return [one(pictures[row], source if row < pool else test) for row in rows]

    found: list[_Look] = []
    workers = ThreadPoolExecutor(os.cpu_count())
    try:
        for some in workers.map(batch, range(0, len(pictures), _BATCH)):
            found += some
            progress(len(found), len(pictures))
    finally:
        workers.shutdown(cancel_futures=True)
    blank = np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)
    result = Looks(
        contents=tuple(look.content for look in found),
        sizes=np.array([look.size for look in found], np.int64).reshape(-1, 2),
        modes=tuple(look.mode for look in found),
        figures=np.array([look.figures for look in found], np.float64).reshape(-1, 3),
        thumbnails=np.array([blank if look.thumbnail is None else look.thumbnail for look in found], np.uint8),
        unreadable={
            p.name: look.unreadable for p, look in zip(pictures, found, strict=True) if look.unreadable is not None
        },
    )
    with replacing(memory) as file:
        np.savez(file, **_to_arrays(result))
    return result


def _sharpness(square: NDArray[np.uint8]) -> float:
    grey = square.astype(np.float64)
    laplacian = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
    return float(np.log(laplacian.var() + 1))


def _to_arrays(looks: Looks) -> dict[str, Any]:
    texts = {"contents": looks.contents, "modes": looks.modes, "unreadable": looks.unreadable}
    return {
        "sizes": looks.sizes,
        "figures": looks.figures,
        "thumbnails": looks.thumbnails,
        "texts": np.frombuffer(json.dumps(texts).encode(), np.uint8),
    }


def _from_arrays(kept: Any) -> Looks:
    texts = json.loads(kept["texts"].tobytes())
    return Looks(
        contents=tuple(texts["contents"]),
        sizes=kept["sizes"],
        modes=tuple(texts["modes"]),
        figures=kept["figures"],
        thumbnails=kept["thumbnails"],
        unreadable=texts["unreadable"],
    )
