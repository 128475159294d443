"""List, upload and remove the models that runs logged."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.models import Model
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from pneumo.spec.names import Tags
from pneumo.tracking.location import check_own
from pneumo.tracking.registry import is_registered
from pneumo.tracking.store import Store, pages
from pneumo.tracking.study import experiment_id

_NOT_IN_NAMES = re.compile(r"[/:.%\"']")
"""What MLflow refuses in the name of a model."""


def logged_models(store: Store, study: str) -> dict[str, str]:
    """Return the models of a recorded study, complete or not: the id of each by the id of its run."""
    experiments = [experiment_id(store, study)]
    models = pages(lambda token: store.client.search_logged_models(experiments, max_results=100, page_token=token))
    return {str(model.source_run_id): str(model.model_id) for model in models}


def model_name(run: Run) -> str:
    """Return the name of a run's model: `article-trial-3`, or `article-confirm-3-seed-1000`."""
    tags = run.data.tags
    name = re.sub(r"-0+(?=\d)", "-", str(run.info.run_name))  # the run is trial-0003
    return _NOT_IN_NAMES.sub("_", f"{tags[Tags.STUDY]}-{name}" if Tags.STUDY in tags else name)


def upload(client: MlflowClient, logged: LoggedModel, run_id: str, folder: Path) -> None:
    """Upload a saved model and mark it as READY.

    The folder is not changed, so that a process that is killed meanwhile can upload it again.

    Args:
        client: MLflow.
        logged: The model that was created for the run.
        run_id: The run.
        folder: The saved model: a folder with its `MLmodel`.
    """
    description = Model.load(str(folder))
    description.artifact_path, description.run_id = logged.artifact_location, run_id
    description.model_uuid = description.model_id = logged.model_id
    client.log_model_artifacts(logged.model_id, str(folder))
    with tempfile.TemporaryDirectory() as temporary:
        description.save(str(Path(temporary, "MLmodel")))
        client.log_model_artifact(logged.model_id, str(Path(temporary, "MLmodel")))
    client.finalize_logged_model(logged.model_id, "READY")


def remove(store: Store, run_id: str, why: str) -> None:
    """Remove the model of a run, unless a version of a registered model was made from it or from the run.

    The rest of the run stays, and a tag says why it has no model. The files are deleted before MLflow's entry, so that
    `logged_models` lists a model whose removal was interrupted. MLflow's `delete_logged_model` alone marks the entry and
    leaves the files to `mlflow gc`.

    Raises:
        RequestError: The store is a copy whose addresses still are those of the original.
    """
    models = _models_of_run(store, run_id)
    if models and not any(is_registered(store, run_id, str(model.model_id)) for model in models):
        store.client.set_tag(run_id, Tags.MODEL_REMOVED, why)
        for model in models:
            _delete(store, model)


def discard(store: Store, run_id: str) -> None:
    """Remove what the run of a killed trial has of a model, if anything."""
    for model in _models_of_run(store, run_id):
        _delete(store, model)


def _models_of_run(store: Store, run_id: str) -> list[LoggedModel]:
    experiment = store.client.get_run(run_id).info.experiment_id
    return list(store.client.search_logged_models([experiment], f"source_run_id = '{run_id}'"))


def _delete(store: Store, model: LoggedModel) -> None:
    if store.file:
        check_own(store.file, model.artifact_location)
    repository = get_artifact_repository(model.artifact_location, tracking_uri=store.uri)
    repository.delete_artifacts()
    if isinstance(repository, LocalArtifactRepository):
        _remove_empty(Path(repository.artifact_dir).parent, str(model.model_id))
    store.client.delete_logged_model(model.model_id)


def _remove_empty(folder: Path, model_id: str) -> None:
    """Remove a model's folder and the one with all models, if they are empty: MLflow keeps them."""
    if folder.name == model_id:
        with contextlib.suppress(OSError):  # it is not empty, or was never made
            folder.rmdir()
            folder.parent.rmdir()
