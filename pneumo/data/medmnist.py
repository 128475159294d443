"""PneumoniaMNIST: the archive's pictures at one small size, already split, as an `.npz`.

J. Yang et al., "MedMNIST v2", Scientific Data 10, 41, 2023, doi:10.1038/s41597-022-01721-8; CC BY 4.0. The file names no
patients, so its own split, which its authors made from the archive, is used.
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
KEYS = tuple(f"{part}_{content}" for part in PARTS for content in ("images", "labels"))
"""The names of the arrays."""

MOST_BYTES = 2 * 2**30
"""Largest size of all arrays, unpacked: PneumoniaMNIST at 224 pixels has 294 MB, and would have 0.9 GB in colour."""

Array = NDArray[Any]


def open_medmnist(_: DataSpec, path: Path) -> Source:
    """Return the pictures of the `.npz` at `path`, with its arrays `{train,val,test}_{images,labels}`.

    Images are uint8 (n, size, size) or (n, size, size, 3). Labels are integers (n, 1) or (n,): 0 for NORMAL, 1 for PNEUMONIA.
    Nothing pickled is loaded. Raises `RequestError`.
    """
    arrays = _load(path)
    pixels: dict[str, NDArray[np.uint8]] = {}
    pictures: list[Picture] = []
    for part in PARTS:
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        _check_part(images, labels, part, path)
        for row, label in enumerate(labels.ravel().tolist()):
            name = f"{part}/{CLASSES[label]}/{path.stem}_{row:05d}.png"
            # All pictures have the same size, so CRC-32 and size alone would be equal by chance in a few of a thousand sets.
            digest = sha256(images[row].tobytes()).hexdigest()[:24]
            pictures.append(Picture(name, label, name, digest))
            pixels[name] = images[row]
    pictures.sort(key=lambda picture: picture.name)

    def read(picture: Picture) -> bytes:
        out = io.BytesIO()
        Image.fromarray(pixels[picture.name]).save(out, "PNG", compress_level=1)
        return out.getvalue()

    size = arrays["train_images"].shape[1]
    return Source(
        kind="medmnist",
        description=f"{path.resolve().name} ({size} x {size} pixels)",
        pictures=tuple(picture for picture in pictures if not picture.name.startswith("test/")),
        sealed=tuple(picture for picture in pictures if picture.name.startswith("test/")),
        read=read,
        validation=frozenset(picture.name for picture in pictures if picture.name.startswith("val/")),
    )


def _load(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            missing = [key for key in KEYS if key not in members]
            if missing:
                raise RequestError(f"{path}: {missing[0]} is missing; expected {', '.join(KEYS)}")
            # The headers are checked before an array is read: a few bytes may claim an array that fills the memory.
            size = 0
            for key in KEYS:
                shape, dtype = _read_header(archive, members[key])
                if dtype.hasobject:
                    raise RequestError(f"{path}: {key} holds pickled objects, which are never loaded; expected numbers")
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


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of an array without reading it."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return shape, dtype


def _check_part(images: Array, labels: Array, part: str, path: Path) -> None:
    square = images.ndim in (3, 4) and images.shape[1] == images.shape[2] and images.shape[3:] in ((), (3,))
    if images.dtype != np.uint8 or not square or not images.size:
        raise RequestError(
            f"{path}: {part}_images is {images.dtype} {images.shape}; "
            f"expected uint8 (n, size, size) or (n, size, size, 3)"
        )
    n = len(images)
    if labels.dtype.kind not in "iu" or labels.shape not in ((n, 1), (n,)):
        raise RequestError(f"{path}: {part}_labels is {labels.dtype} {labels.shape}; expected whole numbers ({n}, 1)")
    outside = labels[(labels != 0) & (labels != 1)]
    if outside.size:
        raise RequestError(f"{path}: {part}_labels has the label {outside[0]}; expected 0 (NORMAL) and 1 (PNEUMONIA)")
    for label, name in enumerate(CLASSES):
        if not (labels == label).any():
            raise RequestError(f"{path}: {part}_labels has no {name} picture; expected both classes in each part")
