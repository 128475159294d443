"""PneumoniaMNIST: the archive's pictures at one small size, pre-split, as an `.npz` (J. Yang et al., "MedMNIST v2", Scientific
Data 10, 41, 2023, doi:10.1038/s41597-022-01721-8; CC BY 4.0).

The file names no patients, so that its own split, which was made from the archive, is kept.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo.data.pictures import Picture, Source
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec
from pneumo.spec.result import CLASSES

PARTS = ("train", "val", "test")
KEYS = tuple(f"{part}_{what}" for part in PARTS for what in ("images", "labels"))

MOST_BYTES = 2 * 2**30
"""Of all arrays, unpacked: PneumoniaMNIST at 224 pixels has 294 MB, in colour it would have 0.9 GB."""

Array = NDArray[Any]


def open_medmnist(_: DataSpec, path: Path) -> Source:
    """The `.npz` at `path`: arrays `{train,val,test}_{images,labels}`.

    Images are uint8 (n, size, size) or (n, size, size, 3), labels integers (n, 1) or (n,), 0 NORMAL and 1 PNEUMONIA.
    Nothing pickled is loaded. Raises `RequestError` with the fault.
    """
    arrays = _loaded(path)
    listed: dict[str, tuple[Picture, NDArray[np.uint8]]] = {}
    for part in PARTS:
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        _check(images, labels, part, str(path))
        for row, label in enumerate(labels.ravel().tolist()):
            name = f"{part}/{CLASSES[label]}/{path.stem}_{row:05d}.png"
            # All pictures are of one size, so CRC-32 and size alone would take a few in a thousand sets for copies.
            digest = sha256(images[row].tobytes()).hexdigest()[:24]
            listed[name] = Picture(name, label, name, digest), images[row]

    def read(picture: Picture) -> bytes:
        out = io.BytesIO()
        Image.fromarray(listed[picture.name][1]).save(out, "PNG", compress_level=1)
        return out.getvalue()

    pictures = [listed[name][0] for name in sorted(listed)]
    size = arrays["train_images"].shape[1]
    return Source(
        kind="medmnist",
        description=f"{path.resolve().name} ({size} x {size} pixels)",
        pictures=tuple(picture for picture in pictures if not picture.name.startswith("test/")),
        sealed=tuple(picture for picture in pictures if picture.name.startswith("test/")),
        read=read,
        validation=frozenset(picture.name for picture in pictures if picture.name.startswith("val/")),
    )


def _loaded(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            missing = [key for key in KEYS if key not in members]
            if missing:
                raise RequestError(f"{path}: {missing[0]} is missing; wants {', '.join(KEYS)}")
            # The headers first: a few bytes may claim an array that fills the memory.
            size = 0
            for key in KEYS:
                shape, dtype = _header(archive, members[key])
                if dtype.hasobject:
                    raise RequestError(f"{path}: {key} holds pickled objects, which are never loaded; wants numbers")
                size += int(np.prod([1, *shape], dtype=object)) * dtype.itemsize
            if size > MOST_BYTES or sum(members[key].file_size for key in KEYS) > MOST_BYTES:
                raise RequestError(f"{path}: its arrays unpack to {size:,} bytes; at most {MOST_BYTES:,}")
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in KEYS}
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None
    # RuntimeError: the member is encrypted, or compressed in a way that zipfile does not know.
    except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, RuntimeError, SyntaxError) as error:
        raise RequestError(f"{path}: is no npz, or a broken one: {' '.join(str(error).split())[:200]}") from None


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return shape, dtype


def _check(images: Array, labels: Array, part: str, where: str) -> None:
    square = images.ndim in (3, 4) and images.shape[1] == images.shape[2] and images.shape[3:] in ((), (3,))
    if images.dtype != np.uint8 or not square or not images.size:
        raise RequestError(
            f"{where}: {part}_images is {images.dtype} {images.shape}; wants uint8 (n, size, size) or (n, size, size, 3)"
        )
    n = len(images)
    if labels.dtype.kind not in "iu" or labels.shape not in ((n, 1), (n,)):
        raise RequestError(f"{where}: {part}_labels is {labels.dtype} {labels.shape}; wants whole numbers ({n}, 1)")
    outside = labels[(labels != 0) & (labels != 1)]
    if outside.size:
        raise RequestError(f"{where}: {part}_labels has the label {outside[0]}; wants 0 (NORMAL) and 1 (PNEUMONIA)")
    for label, name in enumerate(CLASSES):
        if not (labels == label).any():
            raise RequestError(f"{where}: {part}_labels has no {name} picture; wants both classes in each part")
