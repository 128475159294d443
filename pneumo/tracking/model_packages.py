"""The packages that a model needs, as MLflow treats them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.utils import requirements_utils


@contextmanager
def packages_are_named() -> Iterator[None]:
    """Keep MLflow from mapping modules to packages while the context lasts.

    When MLflow saves or loads a model, it reads the file lists of all installed packages to make that map, which takes a
    second or more. Only MLflow's guess of the packages of a model needs it, and pneumo names them.

    The map is a private variable of MLflow (`_init_modules_to_packages_map` in `mlflow/utils/requirements_utils.py`, 3.17).
    If MLflow renames it, models are saved and loaded as before, only later.
    """
    private = vars(requirements_utils)
    name = "_MODULES_TO_PACKAGES"
    before = private.get(name)
    if before is None:
        private[name] = {}
    try:
        yield
    finally:
        private[name] = before
