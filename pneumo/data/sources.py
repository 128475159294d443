"""The sources of pictures by name.

A new source is a module with a function `(DataSpec, Path) -> Source`, a line in `OPENERS`, and its name in
`pneumo.spec.sources`. `tests/data/test_sources.py` holds what every source has to do.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.data.pictures import Source
from pneumo.spec.errors import RequestError
from pneumo.spec.sources import GENERATED_SOURCES, SOURCE_OF_SUFFIX, source_of_suffix

if TYPE_CHECKING:
    from pneumo.spec.experiment import DataSpec


@dataclass(frozen=True)
class Opener:
    """How a source is opened.

    Attributes:
        function: `module:function`, imported when the source is opened. The function takes the `DataSpec` and the path,
            which exists (it is `Path()` for a source that generates its pictures), lists the pictures and decodes none.
        reads: What its path can be, for errors; "" if it reads no path.
        fetch: The `python -m pneumo.data fetch` command that downloads such pictures; "" if there is none.
        takes_classes: Whether `data.classes` may name its classes.
    """

    function: str
    reads: str = ""
    fetch: str = ""
    takes_classes: bool = False


OPENERS: Mapping[str, Opener] = {
    "kaggle": Opener(
        "pneumo.data.kaggle:open_kaggle",
        "the Kaggle zip paultimothymooney/chest-xray-pneumonia or its folder",
        fetch="kaggle",
    ),
    "folder": Opener("pneumo.data.folder:open_folder", "a folder or a zip", fetch="kaggle", takes_classes=True),
    "medmnist": Opener("pneumo.data.medmnist:open_medmnist", "a MedMNIST npz", fetch="medmnist"),
    "phantom": Opener("pneumo.data.phantom:open_phantoms"),
}

FETCHES = tuple(dict.fromkeys(opener.fetch for opener in OPENERS.values() if opener.fetch))
"""The `python -m pneumo.data fetch` commands."""


def open_source(spec: DataSpec) -> Source:
    """Return the source that the experiment names, its pictures listed and none of them decoded.

    A relative `spec.path` counts from the current folder. Raises `RequestError`.
    """
    opener = OPENERS[spec.source]
    path = Path() if spec.source in GENERATED_SOURCES else _existing_path(spec.path, opener)
    ignores_classes = spec.classes is not None and not opener.takes_classes
    try:
        source: Source = pkgutil.resolve_name(opener.function)(spec, path)
    except RequestError as error:
        if ignores_classes:
            advice = "data.classes needs data: {source: folder}"
            raise RequestError(f"{error}; the source {spec.source} has these classes only; {advice}") from None
        raise
    if ignores_classes:
        note = f"data.classes is not used: the source {spec.source} has the classes {' and '.join(source.classes)}"
        return replace(source, notes=(*source.notes, note))
    return source


def source_at(path: str, source: str | None = None, classes: tuple[str, str] | None = None) -> Source:
    """Return the pictures at a path.

    Args:
        path: A file or a folder.
        source: The source that reads it. By default the one that the path's suffix tells, otherwise the one that takes the
            most pictures of it.
        classes: The names of the two classes, the negative one first, for a source that takes them.

    Raises:
        RequestError: There is no such source, or it cannot read the path.
    """
    from pneumo.spec.experiment import DataSpec

    by_suffix = source_of_suffix(path)
    if source is not None:
        candidates = [source]
    elif by_suffix is not None:
        candidates = [by_suffix]
    else:
        candidates = [
            name
            for name, opener in OPENERS.items()
            if name in path_sources()
            and name not in SOURCE_OF_SUFFIX.values()
            and (opener.takes_classes or not classes)
        ]
    if candidates[0] not in path_sources():
        *names, last = path_sources()
        raise RequestError(f"--source {source}: expected {', '.join(names)} or {last}")
    if len(candidates) == 1:
        return open_source(DataSpec(source=candidates[0], path=path, classes=classes))
    sources, errors = [], []
    for name in candidates:
        try:
            sources.append(open_source(DataSpec(source=name, path=path)))
        except RequestError as error:
            errors.append(error)
    if not sources:
        raise errors[-1]
    return max(sources, key=lambda source: len(source.pictures) + len(source.sealed))  # of equal ones the first


def path_sources() -> tuple[str, ...]:
    """Return the names of the sources that read a path."""
    return tuple(name for name in OPENERS if name not in GENERATED_SOURCES)


def _existing_path(path: str | None, opener: Opener) -> Path:
    advice = f"give --data {opener.reads}"
    if opener.fetch:
        advice += f"; python -m pneumo.data fetch {opener.fetch} fetches it"
    if path is None:
        raise RequestError(f"data.path: no path is given; {advice}")
    expanded = Path(path).expanduser()
    if not os.path.exists(expanded):  # noqa: PTH110 - Path.exists raises for a folder without permission on the way
        raise RequestError(f"{expanded}: there is no such file or folder; {advice}")
    return expanded
