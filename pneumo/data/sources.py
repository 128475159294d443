"""The sources by name. A new one is a function from `DataSpec` and path to `Source`, and a line in `_OPENERS`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from pneumo.data.folder import open_folder
from pneumo.data.kaggle import open_kaggle
from pneumo.data.medmnist import open_medmnist
from pneumo.data.phantom import open_phantoms
from pneumo.data.pictures import Source
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec

Opener = Callable[[DataSpec, Path | None], Source]
"""Opens a source. The path is absolute or relative to the current folder, None where the experiment names none."""


def open_source(spec: DataSpec) -> Source:
    """The source that the experiment names, its pictures listed and none of them decoded.

    A relative `spec.path` counts from the current folder. Raises `RequestError`.
    """
    path = None if spec.path is None else Path(spec.path).expanduser()
    return _OPENERS[spec.source](spec, path)


def source_at(path: str, source: str | None = None, classes: tuple[str, str] | None = None) -> Source:
    """The pictures at a path, by the source that is named, or by the one that takes them. Raises `RequestError`."""
    if source is not None:
        return open_source(DataSpec(source=source, path=path, classes=classes))
    if path.lower().endswith(".npz"):
        return open_source(DataSpec(source="medmnist", path=path))
    if classes is None:
        with contextlib.suppress(RequestError):
            return open_source(DataSpec(source="kaggle", path=path))
    return open_source(DataSpec(source="folder", path=path, classes=classes))


_OPENERS: Mapping[str, Opener] = {
    "kaggle": lambda _, path: open_kaggle(path),
    "folder": open_folder,
    "medmnist": lambda _, path: open_medmnist(path),
    "phantom": lambda spec, _: open_phantoms(spec.phantom.patients, spec.phantom.size, spec.phantom.seed),
}
