"""How each operation of an outbox reaches MLflow: done twice it leaves what it leaves done once.

For a process can die, or an answer be lost, after MLflow has done it and before the outbox says so. MLflow itself ignores a
metric that it has, with its timestamp, step and value, and replaces tags and files; it gives new ids to runs and models,
so those are looked for before they are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException, RestException
from requests import HTTPError

from pneumo.spec.names import Tags
from pneumo.tracking import models
from pneumo.tracking.outbox import Operation, Outbox
from pneumo.tracking.store import Store

MODEL = "model"
"""Name of a trial's model."""

_REFUSALS = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST"})
_PASSING = ("QueuePool limit", "InterfaceError", "reconnect")
"""What SQLAlchemy says of a database that has no connection to give, which MLflow calls a bad request."""

_REFUSED_FILES = frozenset({400, 413, 422})
_UNFIT = (AttributeError, LookupError, TypeError, ValueError, yaml.YAMLError)
"""What Python raises of data that are not what they should be; a proxy's answer in MLflow's place, too."""


class RefusedError(Exception):
    """An operation that no patience helps; the message says why."""


def deliver(client: MlflowClient, outbox: Outbox, operation: Operation) -> None:
    """Does what the operation says. Raises `RefusedError`, and whatever else MLflow raises where it is away."""
    try:
        _deliver(client, outbox, operation)
    except (MlflowException, HTTPError) as error:
        if _is_refusal(client, error):
            raise RefusedError(str(error)) from error
        raise
    except _UNFIT as error:
        # A saved model that the disk has damaged, say: with an MLflow that is there, no waiting mends that.
        client.search_experiments(max_results=1)
        raise RefusedError(f"{operation.call}: {type(error).__name__}: {error}") from error


def _deliver(client: MlflowClient, outbox: Outbox, operation: Operation) -> None:
    if operation.folder and not operation.folder.is_dir():
        raise RefusedError(f"its files are gone from {operation.folder}")
    if operation.call == "create_run":
        _create_run(client, outbox, operation.run, **operation.arguments)
    elif (run_id := outbox.run_id(operation.run)) is None:
        raise RefusedError("its run was refused")
    elif operation.folder:
        _UPLOADS[operation.call](client, outbox, run_id, operation.folder)
    else:
        _WRITES[operation.call](client, outbox, run_id, **operation.arguments)


def _is_refusal(client: MlflowClient, error: MlflowException | HTTPError) -> bool:
    """Whether MLflow itself has said no, rather than something between us and it, or nobody."""
    if isinstance(error, HTTPError):
        return error.response is not None and error.response.status_code in _REFUSED_FILES
    if client.tracking_uri.startswith("http") and not isinstance(error, RestException):
        return False
    return error.error_code in _REFUSALS and not any(text in str(error) for text in _PASSING)


def _create_run(
    client: MlflowClient, outbox: Outbox, key: str, experiment_id: str, name: str, start_time: int, tags: dict[str, str]
) -> None:
    found = _of_key(client, experiment_id, key)
    if not found:
        run = client.create_run(experiment_id, start_time=start_time, tags=tags | {Tags.KEY: key}, run_name=name)
        found = [run.info.run_id]
    outbox.keep_run_id(key, found[0])


def _of_key(client: MlflowClient, experiment_id: str, key: str) -> list[str]:
    runs = client.search_runs([experiment_id], f"tags.`{Tags.KEY}` = '{key}'", run_view_type=ViewType.ACTIVE_ONLY)
    return [run.info.run_id for run in runs]


def _log_batch(
    client: MlflowClient,
    outbox: Outbox,
    run_id: str,
    *,
    metrics: Sequence[tuple[str, float, int, int]] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    of_model: bool = False,
) -> None:
    model_id = outbox.model_id(run_id) if of_model else None
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, time, step, model_id=model_id) for name, value, time, step in metrics],
        params=[Param(name, value) for name, value in (params or {}).items()],
        tags=[RunTag(name, value) for name, value in (tags or {}).items()],
    )


def _log_inputs(
    client: MlflowClient, outbox: Outbox, run_id: str, *, datasets: Sequence[tuple[str, dict[str, Any]]]
) -> None:
    inputs = [DatasetInput(Dataset(**said), [InputTag(Tags.DATASET_CONTEXT, context)]) for context, said in datasets]
    client.log_inputs(run_id, inputs)


def _set_terminated(client: MlflowClient, outbox: Outbox, run_id: str, *, status: str, end_time: int) -> None:
    run = client.get_run(run_id)
    # A request that was given up for lost may have been done later, after the search for its run or model.
    key = run.data.tags.get(Tags.KEY)
    if key and (made := outbox.run_id(key)):
        for double in _of_key(client, run.info.experiment_id, key):
            if double != made:
                client.delete_run(double)
        if run_id != made:
            return
    if model_id := outbox.model_id(run_id):
        for model in _models(client, run.info.experiment_id, run_id):
            if model.model_id != model_id:
                client.delete_logged_model(model.model_id)
    # Not before its beginning, whatever the clock said.
    client.set_terminated(run_id, status, max(end_time, run.info.start_time))


def _log_artifacts(client: MlflowClient, outbox: Outbox, run_id: str, folder: Path) -> None:
    client.log_artifacts(run_id, str(folder))


def _log_model(client: MlflowClient, outbox: Outbox, run_id: str, folder: Path) -> None:
    run = client.get_run(run_id)
    found = _models(client, run.info.experiment_id, run_id)
    logged = found[0] if found else None
    if logged is None:
        logged = client.create_logged_model(
            run.info.experiment_id, name=MODEL, source_run_id=run_id, params=run.data.params, model_type="keras"
        )
    if logged.status != LoggedModelStatus.READY:
        models.upload(client, logged, run_id, folder)
    outputs = run.outputs.model_outputs if run.outputs else []
    if logged.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    outbox.keep_model_id(run_id, logged.model_id)


def _models(client: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    found = f"source_run_id = '{run_id}' and name = '{MODEL}'"
    return list(client.search_logged_models([experiment_id], filter_string=found))


def _discard_model(client: MlflowClient, outbox: Outbox, run_id: str) -> None:
    with _removing(client, run_id):
        models.discard(Store(client.tracking_uri), run_id)


def _remove_model(client: MlflowClient, outbox: Outbox, run_id: str, *, why: str) -> None:
    with _removing(client, run_id):
        models.remove(Store(client.tracking_uri), run_id, why)


@contextmanager
def _removing(client: MlflowClient, run_id: str) -> Iterator[None]:
    """No record waits for a file that cannot be removed, while MLflow itself is there."""
    try:
        yield
    except Exception as error:
        client.get_run(run_id)
        raise RefusedError(f"the model of run {run_id} cannot be removed: {error}") from error


_WRITES: Mapping[str, Callable[..., None]] = {
    "log_batch": _log_batch,
    "log_inputs": _log_inputs,
    "set_terminated": _set_terminated,
    "discard_model": _discard_model,
    "remove_model": _remove_model,
}
_UPLOADS: Mapping[str, Callable[[MlflowClient, Outbox, str, Path], None]] = {
    "log_artifacts": _log_artifacts,
    "log_model": _log_model,
}
