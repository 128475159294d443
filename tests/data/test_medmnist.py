"""PneumoniaMNIST: its pictures and split are read as they are, and broken files are refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pneumo.data.audit import audit_source
from pneumo.data.medmnist import KEYS
from pneumo.data.prepare import prepare
from pneumo.data.sources import source_at
from pneumo.spec.errors import RequestError
from tests.support.medmnist_files import arrays, save_arrays


@pytest.mark.parametrize("colour", [False, True])
def test_its_own_split_is_used_and_the_pixels_are_unchanged(tmp_path: Path, colour: bool) -> None:
    content = arrays(colour=colour)
    source = source_at(str(save_arrays(tmp_path / "pneumoniamnist.npz", content)))
    assert (source.kind, len(source.pictures), len(source.sealed)) == ("medmnist", 16, 8)
    assert source.validation == {p.name for p in source.pictures if p.name.startswith("val/")}
    assert len(source.validation) == 8
    first = next(picture for picture in source.pictures if picture.name == "train/PNEUMONIA/pneumoniamnist_00003.png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(source.encoded(first)))), content["train_images"][3])
    prepared = prepare(source, [28], 0.12, 0)
    assert {prepared.names[row] for row in prepared.validation} == source.validation
    if not colour:
        row = prepared.names.index(first.name)
        assert np.array_equal(prepared.pixels(28)[row], content["train_images"][3])


def test_a_copy_between_its_splits_is_a_fault(tmp_path: Path) -> None:
    content = arrays()
    content["val_images"][1] = content["train_images"][3]
    content["test_images"][0] = content["train_images"][2]
    result, _ = audit_source(source_at(str(save_arrays(tmp_path / "a.npz", content))))
    assert sorted(finding.kind for finding in result.faults) == ["copy-leak", "validation-leak"]


def bomb(path: Path) -> Path:
    """Write a small file that claims arrays of terabytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for key in KEYS:
            header = io.BytesIO()
            shape = (1_000_000, 3000, 3000) if key.endswith("images") else (1_000_000, 1)
            np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
            archive.writestr(f"{key}.npy", header.getvalue())
    return path


def truncated(path: Path) -> Path:
    complete = save_arrays(path, arrays()).read_bytes()
    path.write_bytes(complete[: len(complete) // 2])
    return path


WRONG: dict[str, tuple[Any, str]] = {
    "missing key": ({key: value for key, value in arrays().items() if key != "val_labels"}, "val_labels is missing"),
    "float pixels": (
        arrays() | {"train_images": np.zeros((8, 28, 28))},
        r"train_images is float64 \(8, 28, 28\); expected uint8",
    ),
    "not square": (arrays() | {"test_images": np.zeros((8, 28, 27), np.uint8)}, "test_images is uint8"),
    "four channels": (arrays() | {"val_images": np.zeros((8, 28, 28, 4), np.uint8)}, "val_images is uint8"),
    "too few labels": (arrays() | {"train_labels": np.zeros((7, 1), np.uint8)}, r"train_labels is uint8 \(7, 1\)"),
    "label out of range": (arrays() | {"train_labels": np.arange(8)[:, None]}, "train_labels has the label 2"),
    "one class": (arrays() | {"test_labels": np.zeros((8, 1), np.uint8)}, "test_labels has no PNEUMONIA"),
    "pickled": (arrays() | {"train_labels": np.array([{}] * 8, object)}, "train_labels holds pickled objects"),
    "bomb": (bomb, "unpack to"),
    "cut short": (truncated, "is no npz, or a broken one"),
    "text": (lambda path: path.write_text("text") and path, "is no npz, or a broken one"),
    "nothing": (lambda path: path, "there is no such file.*fetch medmnist"),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_is_refused_with_the_reason(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "wrong.npz"
    if callable(content):
        content(path)
    else:
        save_arrays(path, content)
    with pytest.raises(RequestError, match=message):
        source_at(str(path))
