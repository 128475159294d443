"""Find a study in MLflow: its MLflow experiment may have been renamed, and its run may have been deleted."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException

from pneumo.spec.errors import RequestError
from pneumo.spec.names import Tags
from pneumo.tracking.store import Store, pages

_MOST_STUDIES = 10
"""Largest number of studies that an error lists."""


def find_experiment(store: Store, name: str, study_id: str | None = None) -> Experiment | None:
    """Return the MLflow experiment of a study; None if there is none.

    Args:
        store: MLflow.
        name: The study's name, which its MLflow experiment has too unless it was renamed.
        study_id: The study's id. Without it, a study whose MLflow experiment was renamed is known by its name alone.

    Raises:
        RequestError: The MLflow experiment of this name was deleted.
    """
    client = store.client
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and not study_id:
        check_active(store, name, experiment)
        return experiment
    if experiment is not None and _is_active(experiment):
        run = study_run(client, experiment.experiment_id)
        if run is not None and run.data.tags.get(Tags.STUDY_ID) == study_id:
            return experiment
    condition = f"{_tag(Tags.STUDY, name)} and " + (_tag(Tags.STUDY_ID, study_id) if study_id else _STUDY)
    for run in _runs(client, condition, ViewType.ACTIVE_ONLY):
        return client.get_experiment(run.info.experiment_id)
    if experiment is not None:
        check_active(store, name, experiment)
    return experiment


def named_study(store: Store, name: str | None) -> str:
    """Return the id of the MLflow experiment of a recorded study.

    Args:
        store: MLflow.
        name: The study's name; None for the study that was started last.

    Raises:
        RequestError: There is no such study.
    """
    name = name or latest_study(store)
    experiment = find_experiment(store, name)
    if experiment is None or study_run(store.client, experiment.experiment_id) is None:
        explain_missing(store, name)
        raise RequestError(f"{name}: no study in {store.display_uri}; there is {list_studies(store)}")
    return str(experiment.experiment_id)


def latest_study(store: Store) -> str:
    """Return the name of the study that was started last. Raise `RequestError` if there is none."""
    if runs := _latest_study_runs(store, 1):
        return str(runs[0].data.tags[Tags.STUDY])
    raise RequestError(f"{store.display_uri} has no study yet; python -m pneumo.search makes one")


def list_studies(store: Store) -> str:
    """Return the names of the latest studies, for an error."""
    runs = _latest_study_runs(store, _MOST_STUDIES)
    return ", ".join(str(run.data.tags[Tags.STUDY]) for run in runs) or "no study"


def study_run(client: MlflowClient, experiment_id: str) -> Run | None:
    """Return the study's own run in an MLflow experiment; None if there is none."""
    runs = client.search_runs([experiment_id], _STUDY, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0] if runs else None


def check_active(store: Store, study: str, experiment: Experiment) -> None:
    """Raise `RequestError` if the MLflow experiment of a study was deleted."""
    if not _is_active(experiment):
        renamed = f" {experiment.name}" if experiment.name != study else ""
        raise RequestError(
            f"study {study}: its MLflow experiment{renamed} is deleted in {store.display_uri}; bring it back with "
            f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`, or take another name with --name"
        )


def explain_missing(store: Store, name: str, study_id: str | None = None) -> None:
    """Raise `RequestError` if MLflow had the study's run and it was deleted. Otherwise the study was never here.

    Args:
        store: MLflow.
        name: The study's name.
        study_id: The study's id; None for any study of this name.
    """
    client = store.client
    of_study = f"{_tag(Tags.STUDY, name)} and {_STUDY}"
    if study_id:
        of_study += f" and {_tag(Tags.STUDY_ID, study_id)}"
    for run in _runs(client, of_study, ViewType.DELETED_ONLY):
        check_active(store, name, client.get_experiment(run.info.experiment_id))
        raise RequestError(
            f"study {name}: its run {run.info.run_id} is deleted in {store.display_uri}; bring it back with "
            f"`mlflow runs restore --run-id {run.info.run_id}`"
        )
    trials = _runs(client, f"{_tag(Tags.STUDY, name)} and {_tag(Tags.ROLE, 'trial')}", ViewType.ACTIVE_ONLY)
    for parent in {run.data.tags.get(Tags.PARENT, "") for run in trials}:
        if not _exists(client, parent):
            raise RequestError(
                f"study {name}: its run {parent} was deleted for good in {store.display_uri}, and the runs of its trials are "
                "still there; bring back a backup of MLflow's database, or search under another name (--name)"
            )


def _latest_study_runs(store: Store, limit: int) -> list[Run]:
    ids = [experiment.experiment_id for experiment in store.client.search_experiments(max_results=1000)]
    return list(store.client.search_runs(ids, _STUDY, max_results=limit, order_by=["attributes.start_time DESC"]))


_STUDY = f"tags.`{Tags.ROLE}` = 'study'"


def _tag(name: str, value: str) -> str:
    quote = '"' if "'" in value else "'"
    return f"tags.`{name}` = {quote}{value}{quote}"


def _exists(client: MlflowClient, run_id: str) -> bool:
    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return False
    return True


def _is_active(experiment: Experiment) -> bool:
    return bool(experiment.lifecycle_stage == "active")


def _runs(client: MlflowClient, condition: str, view: int) -> Iterator[Run]:
    """Yield the runs of all MLflow experiments that meet a condition, latest first. Those of deleted ones are deleted."""
    kind = ViewType.ACTIVE_ONLY if view == ViewType.ACTIVE_ONLY else ViewType.ALL
    experiments = pages(lambda token: client.search_experiments(view_type=kind, max_results=1000, page_token=token))
    ids = [experiment.experiment_id for experiment in experiments]
    return pages(
        lambda token: client.search_runs(
            ids, condition, view, max_results=100, order_by=["attributes.start_time DESC"], page_token=token
        )
    )
