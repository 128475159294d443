"""The sources by name. A new one is a function from `DataSpec` and path to `Source`, and a line in `_OPENERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pneumo.data.kaggle import open_kaggle
from pneumo.data.phantom import open_phantoms
from pneumo.data.pictures import Source
from pneumo.spec.experiment import DataSpec

Opener = Callable[[DataSpec, Path | None], Source]
"""Opens a source. The path is absolute or relative to the current folder, None where the experiment names none."""


def open_source(spec: DataSpec) -> Source:
    """The source that the experiment names, its pictures listed and none of them decoded.

    A relative `spec.path` counts from the current folder. Raises `RequestError`.
    """
    path = None if spec.path is None else Path(spec.path).expanduser()
    return _OPENERS[spec.source](spec, path)


_OPENERS: Mapping[str, Opener] = {
    "kaggle": lambda _, path: open_kaggle(path),
    "phantom": lambda spec, _: open_phantoms(spec.phantom.patients, spec.phantom.size, spec.phantom.seed),
}
