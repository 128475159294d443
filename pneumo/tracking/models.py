"""The models that runs logged: which there are, uploading one and removing one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.models import Model
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pneumo.spec.names import Tags
from pneumo.tracking.registry import is_registered
from pneumo.tracking.store import Store, pages
from pneumo.tracking.study import experiment_id


def logged_models(store: Store, study: str) -> dict[str, str]:
    """The models of a recorded study's runs, whole or not, that were not removed: the run's id to the model's."""
    of = [experiment_id(store, study)]
    found = pages(lambda token: store.client.search_logged_models(of, max_results=100, page_token=token))
    return {str(model.source_run_id): str(model.model_id) for model in found}


def upload(client: MlflowClient, logged: LoggedModel, run_id: str, folder: Path) -> None:
    """Uploads a saved model, a folder with its `MLmodel`, into one that a run has begun to log, and ends it as READY.

    The folder stays as it is: who is killed within this must find it whole the next time.
    """
    description = Model.load(str(folder))
    description.artifact_path, description.run_id = logged.artifact_location, run_id
    description.model_uuid = description.model_id = logged.model_id
    client.log_model_artifacts(logged.model_id, str(folder))
    with tempfile.TemporaryDirectory() as beside:
        description.save(str(Path(beside, "MLmodel")))
        client.log_model_artifact(logged.model_id, str(Path(beside, "MLmodel")))
    client.finalize_logged_model(logged.model_id, "READY")


def remove(store: Store, run_id: str, why: str) -> None:
    """Removes the model of a run, unless a version of a registered model is made of it or of the run.

    Its files go, then MLflow's entry; all else of the run stays, and a tag says why it has no model. MLflow's
    `delete_logged_model` marks the entry alone, and leaves the files for `mlflow gc`. The entry goes last, so that `models`
    gives what a process that died has left half removed.
    """
    left = _of_run(store, run_id)
    if left and not any(is_registered(store, run_id, str(model.model_id)) for model in left):
        store.client.set_tag(run_id, Tags.MODEL_REMOVED, why)
        for model in left:
            _delete(store, model)


def discard(store: Store, run_id: str) -> None:
    """Removes what a run that was ended before its end has left of a model, if anything."""
    for model in _of_run(store, run_id):
        _delete(store, model)


def _of_run(store: Store, run_id: str) -> list[LoggedModel]:
    experiment = store.client.get_run(run_id).info.experiment_id
    return list(store.client.search_logged_models([experiment], f"source_run_id = '{run_id}'"))


def _delete(store: Store, model: LoggedModel) -> None:
    get_artifact_repository(model.artifact_location, tracking_uri=store.uri).delete_artifacts()
    store.client.delete_logged_model(model.model_id)
