"""Load the registered model that predicts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.console.command import describe_error
from pneumo.spec.errors import RequestError

if TYPE_CHECKING:
    from pneumo.tracking.served import Decision, Served

NOT_MEDICAL = "Not a medical device: for research and teaching only."


@dataclass(frozen=True)
class LoadedModel:
    """A registered model, loaded. `label` names it in messages, for example `article version 3, champion`."""

    served: Served
    label: str

    @property
    def decision(self) -> Decision:
        """The model's classes, operating point and input."""
        return self.served.decision

    @property
    def description(self) -> str:
        """The label, with the number of networks of an ensemble, and a warning if the model was trained on phantoms."""
        members = len(self.decision.members)
        ensemble = f", ensemble of {members}" if members > 1 else ""
        return (
            f"{self.label}{ensemble}{', trained on generated phantoms, not on X-rays' if self.decision.phantom else ''}"
        )


@dataclass(frozen=True)
class FoundModel:
    """A registered model that is not loaded yet, which needs TensorFlow.

    Attributes:
        uri: The model.
        folder: The folder of its files.
        label: As in `LoadedModel`.
    """

    uri: str
    folder: Path
    label: str

    def load(self) -> LoadedModel:
        """Load the model. Raises `RequestError` if it is another kind of model, or damaged."""
        from pneumo.tracking.served import load_folder

        return LoadedModel(load_folder(self.folder, self.uri), self.label)


def find_model(uri: str | None) -> FoundModel:
    """Find the model at `models:/NAME@ALIAS`, at `models:/NAME/VERSION` or in a folder; default: the only champion.

    Raises `RequestError` if there is no such model, or if no URI is given and there is not exactly one champion.
    """
    from pneumo.tracking.registry import only_champion, version_at
    from pneumo.tracking.served import served_folder
    from pneumo.tracking.store import ERRORS, connect_existing

    store = connect_existing()
    uri = uri or only_champion(store)
    label = uri
    if alias := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", uri):
        # The alias is resolved once, so that label and model are of the same version even if the alias moves now.
        if version := version_at(store, *alias.groups()):
            uri, label = version.uri, f"{version.model} version {version.number}, {alias[2]}"
    elif number := re.fullmatch(r"models:/([^/@]+)/(\d+)", uri):
        label = f"{number[1]} version {number[2]}"
    try:
        return FoundModel(uri, served_folder(store, uri), label)
    except ERRORS as error:
        raise RequestError(f"{uri}: not loaded from {store.display_uri}: {describe_error(error)}") from None
