"""The model registry: versions with their evaluation as tags, and aliases that move as if in one step.

The registry moves one alias in a call, but a promotion moves several (`champion`, `previous`, and `challenger` is removed).
So a tag of the registered model says first which aliases are to move. If the process dies, the next one finishes the move
(`finish_move`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

from pneumo.spec.errors import RequestError
from pneumo.spec.names import Tags
from pneumo.tracking.store import Store, pages

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"

_ABSENT = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes:
        model: Name of the registered model.
        number: Number of the version.
        tags: Its evaluation, see `pneumo.spec.names`.
    """

    model: str
    number: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """MLflow's address of the version."""
        return f"models:/{self.model}/{self.number}"


def previous_of(alias: str) -> str:
    """Return the alias of the version that had `alias` before: `previous` for `champion`, `staging-previous` for `staging`."""
    return PREVIOUS if alias == CHAMPION else f"{alias}-{PREVIOUS}"


def version_at(store: Store, model: str, alias: str) -> Version | None:
    """Return the version that has an alias; None if there is none."""
    # Not by get_model_version_by_alias: MLflow's basic authentication answers 403 to it if there is no such model.
    registered = _registered_model(store, model)
    if registered is None or alias not in registered.aliases:
        return None
    with _nothing_if_absent():
        return _version(store.client.get_model_version(model, str(registered.aliases[alias])))
    return None


def registered_models(store: Store) -> dict[str, dict[str, str]]:
    """Return the aliases of every registered model, each with the number of its version."""
    models = pages(lambda token: store.client.search_registered_models(max_results=100, page_token=token))
    return {model.name: {alias: str(number) for alias, number in model.aliases.items()} for model in models}


def only_champion(store: Store) -> str:
    """Return the address of the only champion. Raises `RequestError` if there is none, or if there are several."""
    names = sorted(name for name, aliases in registered_models(store).items() if CHAMPION in aliases)
    if len(names) == 1:
        return f"models:/{names[0]}@{CHAMPION}"
    if names:
        raise RequestError(
            f"{store.display_uri} has {len(names)} champions ({', '.join(names)}); name one: "
            f"--model models:/{names[0]}@champion"
        )
    raise RequestError(f"{store.display_uri} has no champion yet; python -m pneumo.promote makes one")


def version_with(store: Store, model: str, tag: str, value: str) -> Version | None:
    """Return the version of a model that has a tag with this value; None if there is none."""
    versions = store.client.search_model_versions(f"name = '{model}' and tags.`{tag}` = '{value}'")
    return _version(versions[0]) if versions else None


def is_registered(store: Store, run_id: str, model_id: str) -> bool:
    """Return whether a version of a registered model was made from this model or this run, alone or in an ensemble."""
    conditions = (
        f"source_path = 'models:/{model_id}'",
        f"run_id = '{run_id}'",
        f"tags.`{Tags.RUN}` = '{run_id}'",
        f"tags.`{Tags.MEMBERS}` LIKE '%{run_id}%'",
    )
    return any(store.client.search_model_versions(condition, max_results=1) for condition in conditions)


def create(store: Store, model: str, *, model_id: str, run_id: str, tags: Mapping[str, str], card: str) -> Version:
    """Create a version with its tags and its description in one call. A missing registered model is created.

    Args:
        store: MLflow.
        model: Name of the registered model.
        model_id: The logged model.
        run_id: The promotion's run.
        tags: The version's evaluation; the registered model gets the kind of pictures.
        card: The description, Markdown.
    """
    client = store.client
    try:
        client.create_registered_model(model, tags={Tags.DATA: tags[Tags.DATA]})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # The source is the logged model: a version made from `runs:/...` is READY and cannot be loaded.
    return _version(
        client.create_model_version(
            model, f"models:/{model_id}", run_id=run_id, tags=dict(tags), description=card, model_id=model_id
        )
    )


def pictures_kind(store: Store, model: str) -> str | None:
    """Return the kind of pictures that a registered model takes.

    None if there is no such model; empty if pneumo did not create it.
    """
    registered = _registered_model(store, model)
    return None if registered is None else str(registered.tags.get(Tags.DATA, ""))


def tag(store: Store, version: Version, tags: Mapping[str, str]) -> None:
    """Set tags of a version."""
    for key, value in tags.items():
        store.client.set_model_version_tag(version.model, version.number, key, value)


def move(store: Store, model: str, alias: str, version: str) -> str | None:
    """Move an alias to a version, and the alias's `previous` to the version that had it.

    Returns:
        The number of the version that had the alias; None if none had, or if the version has the alias already.
    """
    before = version_at(store, model, alias)
    if before is not None and before.number == version:
        return None
    moves: dict[str, str | None] = {alias: version}
    if before is not None:
        moves[previous_of(alias)] = before.number
    _begin_move(store, model, moves)
    return before.number if before else None


def challenge(store: Store, model: str, version: str) -> None:
    """Give the alias `challenger` to a version that the gate refused."""
    store.client.set_registered_model_alias(model, CHALLENGER, version)


def finish_move(store: Store, model: str) -> None:
    """Finish a move that a process began and did not finish, if there is one."""
    client = store.client
    registered = _registered_model(store, model)
    if registered is None or not (moves := registered.tags.get(Tags.MOVING)):
        return
    for alias, version in json.loads(moves).items():  # the alias itself is the first: it decides what is served
        if version is None:
            client.delete_registered_model_alias(model, alias)
            continue
        with _nothing_if_absent():  # somebody may have deleted the version since the move began
            client.set_registered_model_alias(model, alias, version)
        if str(registered.aliases.get(CHALLENGER)) == version and alias != CHALLENGER:
            client.delete_registered_model_alias(model, CHALLENGER)
    client.delete_registered_model_tag(model, Tags.MOVING)


def roll_back(store: Store, model: str, alias: str) -> tuple[str, str | None]:
    """Give an alias back to the version that has its `previous`, and `previous` to the version that has the alias.

    If no version has the alias, because its version was deleted, no version has `previous` afterwards.

    Returns:
        The number of the version that has the alias now, and of the one that had it; None if no version had it.

    Raises:
        RequestError: There is no such model, or no version has `previous`.
    """
    registered = _registered_model(store, model)
    if registered is None:
        raise RequestError(
            f"{store.display_uri} has no registered model {model!r}; there is {', '.join(registered_models(store)) or 'none'}"
        )
    finish_move(store, model)
    previous = previous_of(alias)
    now, before = version_at(store, model, alias), version_at(store, model, previous)
    if before is None:
        holder = f"version {now.number} has the alias {alias}" if now else f"no version has the alias {alias}"
        raise RequestError(
            f"model {model}: {holder} and none has {previous}, so there is nothing to go back to: no version was replaced, or "
            f"the replaced version was deleted; the versions are {_list_versions(store, model)}"
        )
    _begin_move(store, model, {alias: before.number, previous: now.number if now else None})
    return before.number, now.number if now else None


def _begin_move(store: Store, model: str, moves: Mapping[str, str | None]) -> None:
    """Store the aliases that are to move, each with its new version or None, and move them."""
    store.client.set_registered_model_tag(model, Tags.MOVING, json.dumps(moves))
    finish_move(store, model)


def _registered_model(store: Store, model: str) -> RegisteredModel | None:
    with _nothing_if_absent():
        return store.client.get_registered_model(model)
    return None


def _list_versions(store: Store, model: str) -> str:
    versions = store.client.search_model_versions(f"name = '{model}'")
    return ", ".join(sorted((str(version.version) for version in versions), key=int)) or "all deleted"


@contextlib.contextmanager
def _nothing_if_absent() -> Iterator[None]:
    """Suppress MLflow's error that there is no such model or version."""
    try:
        yield
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise


def _version(version: ModelVersion) -> Version:
    return Version(version.name, str(version.version), dict(version.tags))
