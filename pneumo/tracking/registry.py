"""The model registry: versions with their evaluation as tags, and aliases that move as if in one step.

The registry moves one alias in a call, but a promotion moves several (`champion`, `previous`, and `challenger` is removed).
So a tag of the registered model says first which aliases are to move. If the process dies, the next one finishes the move
(`finish_move`).
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
    try:
        return _version(store.client.get_model_version_by_alias(model, alias))
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise


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
    """Return whether a version of a registered model was made from this model or from this run."""
    conditions = (f"source_path = 'models:/{model_id}'", f"run_id = '{run_id}'", f"tags.`{Tags.RUN}` = '{run_id}'")
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
    try:
        return str(store.client.get_registered_model(model).tags.get(Tags.DATA, ""))
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise


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
    moves: dict[str, str] = {alias: version}
    if before is not None:
        moves[previous_of(alias)] = before.number
    store.client.set_registered_model_tag(model, Tags.MOVING, json.dumps(moves))
    finish_move(store, model)
    return before.number if before else None


def challenge(store: Store, model: str, version: str) -> None:
    """Give the alias `challenger` to a version that the gate refused."""
    store.client.set_registered_model_alias(model, CHALLENGER, version)


def finish_move(store: Store, model: str) -> None:
    """Finish a move that a process began and did not finish, if there is one."""
    client = store.client
    if pictures_kind(store, model) is None:
        return
    registered = client.get_registered_model(model)
    if not (moves := registered.tags.get(Tags.MOVING)):
        return
    for alias, version in json.loads(moves).items():  # the alias itself is the first: it decides what is served
        client.set_registered_model_alias(model, alias, version)
        if str(registered.aliases.get(CHALLENGER)) == version and alias != CHALLENGER:
            client.delete_registered_model_alias(model, CHALLENGER)
    client.delete_registered_model_tag(model, Tags.MOVING)


def roll_back(store: Store, model: str, alias: str) -> tuple[str, str]:
    """Exchange an alias and its `previous`.

    Returns:
        The number of the version that has the alias now, and of the one that had it.

    Raises:
        RequestError: There is no such model, or no version had the alias before.
    """
    if pictures_kind(store, model) is None:
        raise RequestError(
            f"{store.display_uri} has no registered model {model!r}; there is {', '.join(registered_models(store)) or 'none'}"
        )
    finish_move(store, model)
    now, before = version_at(store, model, alias), version_at(store, model, previous_of(alias))
    if now is None or before is None:
        raise RequestError(f"model {model}: no version had the alias {alias} before, so there is nothing to go back to")
    move(store, model, alias, before.number)
    return before.number, now.number


def _version(version: ModelVersion) -> Version:
    return Version(version.name, str(version.version), dict(version.tags))
