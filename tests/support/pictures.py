"""Small folders and zips of pictures in the public archive's layout."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(seed: int = 0, size: tuple[int, int] = (80, 60), mode: str = "L", kind: str = "JPEG") -> bytes:
    """Return a picture of smooth noise as a file's bytes. `size` is width and height in pixels, `kind` JPEG or PNG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    grey = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    out = io.BytesIO()
    grey.convert(mode).save(out, kind)
    return out.getvalue()


def archive_files(patients: int = 6, pictures: int = 2, test: int = 2) -> dict[str, bytes]:
    """Return files by name in the public archive's layout.

    Args:
        patients: Training patients of each class.
        pictures: Pictures of each patient.
        test: Test patients of each class.
    """
    names = [
        f"{part}/{folder}/{stem}"
        for part, count, first in (("train", patients, 1), ("test", test, 9001))
        for patient in range(first, first + count)
        for number in range(1, pictures + 1)
        for folder, stem in (
            ("NORMAL", f"IM-{patient:04d}-{number:04d}.jpeg"),
            ("PNEUMONIA", f"person{patient}_{('virus', 'bacteria')[number % 2]}_{number}.jpeg"),
        )
    ]
    return {name: encoded(seed) for seed, name in enumerate(names)}


def write_folder(root: Path, files: Mapping[str, bytes], outer: str = "chest_xray") -> Path:
    """Write the files below `root/outer` and return `root`."""
    for name, content in files.items():
        path = root / outer / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_zip(path: Path, files: Mapping[str, bytes], outer: str = "chest_xray/") -> Path:
    """Write the files into a zip, with `outer` before each name, and return its path."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(outer + name, content)
    return path
