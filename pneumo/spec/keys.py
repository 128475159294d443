"""The keys that an experiment file may have, as the models of its blocks define them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from pneumo.spec.compute import ComputeSpec
from pneumo.spec.experiment import DataSpec, Experiment, PhantomSpec
from pneumo.spec.hyperparameters import NAMES
from pneumo.spec.promotion import PromoteSpec
from pneumo.spec.search import ConfirmSpec, KeepSpec, SearchSpec

BLOCKS: Mapping[str, type[BaseModel]] = {
    "": Experiment,
    "data": DataSpec,
    "data.phantom": PhantomSpec,
    "search": SearchSpec,
    "search.confirm": ConfirmSpec,
    "search.keep": KeepSpec,
    "promote": PromoteSpec,
    "compute": ComputeSpec,
}
"""The models of the blocks of an experiment, by dotted key."""


def file_keys(model: type[BaseModel]) -> list[str]:
    """Return the keys of a block as an experiment file has them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def known_keys() -> list[str]:
    """Return the dotted keys of all blocks and settings, and of the hyperparameters."""
    in_blocks = [f"{block}.{name}" if block else name for block, model in BLOCKS.items() for name in file_keys(model)]
    return [*in_blocks, *(f"hyperparameters.{name}" for name in NAMES)]
