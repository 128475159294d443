"""The sources of pictures that an experiment can name; `pneumo.data.sources` opens them."""

from __future__ import annotations

SOURCES: tuple[str, ...] = ("kaggle", "folder", "medmnist", "phantom")

DEFAULT_SOURCE = "kaggle"

GENERATED_SOURCES: tuple[str, ...] = ("phantom",)
"""Sources that draw their pictures and read no path."""

SOURCE_OF_SUFFIX = {".npz": "medmnist"}
"""The source that reads all files with a suffix, and no other file."""


def source_of_suffix(path: str) -> str | None:
    """Return the source that alone reads files with the suffix of `path`, or None."""
    return next((source for suffix, source in SOURCE_OF_SUFFIX.items() if path.lower().endswith(suffix)), None)


def source_of_path(path: str, named: str = DEFAULT_SOURCE) -> str:
    """Return the source that reads `path`: the one of its suffix, otherwise `named` if that reads such paths."""
    other = (*GENERATED_SOURCES, *SOURCE_OF_SUFFIX.values())
    return source_of_suffix(path) or (DEFAULT_SOURCE if named in other else named)
