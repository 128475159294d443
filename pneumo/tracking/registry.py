"""The model registry: versions that carry their evidence as tags, and aliases that move in one step.

An alias moves by one call to the registry, but what goes with it (`previous`, and `challenger` taken away) takes more. So
what is about to be done stands in a tag of the registered model first, and whoever comes next does what a process that died
has left undone (`settle`): before that tag the registry is as it was, after it the move will be whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

from pneumo.spec.errors import RequestError
from pneumo.spec.names import Tags
from pneumo.tracking.store import Store, pages

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"

_ABSENT = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}


@dataclass(frozen=True)
class Version:
    """A version of a registered model. `tags` are its evidence (see `pneumo.promotion`)."""

    model: str
    number: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return f"models:/{self.model}/{self.number}"


def previous_of(alias: str) -> str:
    """The alias of the version that had `alias` before: `previous` for `champion`, `staging-previous` for `staging`."""
    return PREVIOUS if alias == CHAMPION else f"{alias}-{PREVIOUS}"


def at(store: Store, model: str, alias: str) -> Version | None:
    """The version that has an alias."""
    try:
        return _version(store.client.get_model_version_by_alias(model, alias))
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise


def registered_models(store: Store) -> dict[str, dict[str, str]]:
    """Every registered model: its aliases, each with its version's number."""
    found = pages(lambda token: store.client.search_registered_models(max_results=100, page_token=token))
    return {model.name: {alias: str(number) for alias, number in model.aliases.items()} for model in found}


def only_champion(store: Store) -> str:
    """The address of the one registered model that has a champion. Raises `RequestError` where there is none, or several."""
    there = sorted(name for name, aliases in registered_models(store).items() if CHAMPION in aliases)
    if len(there) == 1:
        return f"models:/{there[0]}@{CHAMPION}"
    if there:
        raise RequestError(
            f"{store.display_uri} has {len(there)} champions ({', '.join(there)}); name one: --model models:/{there[0]}@champion"
        )
    raise RequestError(f"{store.display_uri} has no champion yet; python -m pneumo.promote makes one")


def version_with(store: Store, model: str, tag: str, value: str) -> Version | None:
    """The version of a model that carries a tag."""
    found = store.client.search_model_versions(f"name = '{model}' and tags.`{tag}` = '{value}'")
    return _version(found[0]) if found else None


def is_registered(store: Store, run_id: str, model_id: str) -> bool:
    """Whether a version of a registered model is made of this model, or of a run's, this one."""
    conditions = (f"source_path = 'models:/{model_id}'", f"run_id = '{run_id}'", f"tags.`{Tags.RUN}` = '{run_id}'")
    return any(store.client.search_model_versions(condition, max_results=1) for condition in conditions)


def create(store: Store, model: str, *, model_id: str, run_id: str, tags: Mapping[str, str], card: str) -> Version:
    """A new version, born with its evidence: tags, and `card`, Markdown, its description. Makes the model where it is new."""
    client = store.client
    try:
        client.create_registered_model(model, tags={Tags.DATA: tags[Tags.DATA]})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # By the logged model: a version made from `runs:/...` says READY and does not load.
    return _version(
        client.create_model_version(
            model, f"models:/{model_id}", run_id=run_id, tags=dict(tags), description=card, model_id=model_id
        )
    )


def pictures_kind(store: Store, model: str) -> str | None:
    """The kind of pictures that a registered model is of; None where there is no such model, or it is not of pneumo's."""
    try:
        return str(store.client.get_registered_model(model).tags.get(Tags.DATA, ""))
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise


def tag(store: Store, version: Version, tags: Mapping[str, str]) -> None:
    """Sets tags of a version."""
    for key, value in tags.items():
        store.client.set_model_version_tag(version.model, version.number, key, value)


def move(store: Store, model: str, alias: str, version: str) -> str | None:
    """Gives an alias to a version, and its `previous` to the version that had it, whose number is returned."""
    before = at(store, model, alias)
    if before is not None and before.number == version:
        return None
    moves: dict[str, str] = {alias: version}
    if before is not None:
        moves[previous_of(alias)] = before.number
    store.client.set_registered_model_tag(model, Tags.MOVING, json.dumps(moves))
    settle(store, model)
    return before.number if before else None


def challenge(store: Store, model: str, version: str) -> None:
    """Gives the alias `challenger` to a version that was refused."""
    store.client.set_registered_model_alias(model, CHALLENGER, version)


def settle(store: Store, model: str) -> None:
    """Does what is left of a move that a process began and did not finish, if there is one."""
    client = store.client
    if pictures_kind(store, model) is None:
        return
    registered = client.get_registered_model(model)
    if not (left := registered.tags.get(Tags.MOVING)):
        return
    for alias, version in json.loads(left).items():  # the alias itself first: that is the step that counts
        client.set_registered_model_alias(model, alias, version)
        if str(registered.aliases.get(CHALLENGER)) == version and alias != CHALLENGER:
            client.delete_registered_model_alias(model, CHALLENGER)
    client.delete_registered_model_tag(model, Tags.MOVING)


def roll_back(store: Store, model: str, alias: str) -> tuple[str, str]:
    """Gives an alias back to the version that had it before, which changes places with it. Both numbers, the new one first.

    Raises `RequestError` where there is nothing to go back to.
    """
    if pictures_kind(store, model) is None:
        raise RequestError(
            f"{store.display_uri} has no registered model {model!r}; there is {', '.join(registered_models(store)) or 'none'}"
        )
    settle(store, model)
    now, before = at(store, model, alias), at(store, model, previous_of(alias))
    if now is None or before is None:
        raise RequestError(f"model {model}: no version had the alias {alias} before, so there is nothing to go back to")
    move(store, model, alias, before.number)
    return before.number, now.number


def _version(version: ModelVersion) -> Version:
    return Version(version.name, str(version.version), dict(version.tags))
