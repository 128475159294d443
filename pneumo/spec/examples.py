"""The example experiments that come with the package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def examples_folder() -> Path:
    """Return the folder of the example experiments: `experiments` in an installed package, or beside it in a clone."""
    installed = _PACKAGE / "experiments"
    return installed if installed.is_dir() else _PACKAGE.parent / "experiments"
