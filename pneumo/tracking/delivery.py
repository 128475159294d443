"""Execute an outbox's operations in MLflow, so that an operation executed twice has the effect of one.

A process may die, or an answer may be lost, after MLflow has executed an operation and before the outbox records it. MLflow
ignores a metric that it has with the same time, step and value, and replaces tags and files. But it gives new ids to runs
and models, so these are looked for before they are created. MLflow takes the longer for it the more runs it has, so a run
is not looked for if nobody can have tried to create it before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
from mlflow.exceptions import MlflowException
from requests import HTTPError

from pneumo.spec.names import Tags
from pneumo.tracking import models
from pneumo.tracking.failures import is_final
from pneumo.tracking.operations import (
    CloseEarlier,
    CreateRun,
    DiscardModel,
    LogArtifacts,
    LogBatch,
    LogInputs,
    LogModel,
    Operation,
    RemoveModel,
    SetTerminated,
    UnknownOperation,
    call_name,
)
from pneumo.tracking.outbox import Outbox, QueuedOperation
from pneumo.tracking.store import Store

_BAD_DATA = (AttributeError, LookupError, TypeError, ValueError, yaml.YAMLError)
"""What Python raises for malformed data: a damaged file, or the answer of a proxy in place of MLflow's."""


class RefusedError(Exception):
    """MLflow refuses an operation for good; the message says why."""


class Attempts:
    """Which operations were tried before, as far as their sender knows.

    Args:
        last: Number of the newest operation when the sender began. Another process may have tried the operations until then.
    """

    def __init__(self, last: int = sys.maxsize) -> None:
        self._last = last
        self._tried: set[int] = set()
        self._made_once: set[str] = set()

    def is_first(self, queued: QueuedOperation) -> bool:
        """Return whether nobody has tried an operation before, and remember that it is tried now."""
        is_first = queued.number > self._last and queued.number not in self._tried
        self._tried.add(queued.number)
        return is_first

    def add_made_once(self, run_id: str) -> None:
        """Remember a run that the first attempt has created, so that there is one of it only."""
        self._made_once.add(run_id)

    def is_made_once(self, run_id: str) -> bool:
        """Return whether there is certainly one run only of those with this run's key."""
        return run_id in self._made_once


def deliver(client: MlflowClient, outbox: Outbox, queued: QueuedOperation, attempts: Attempts | None = None) -> None:
    """Execute an operation in MLflow.

    Args:
        client: MLflow's client.
        outbox: The outbox of the operation.
        queued: The operation.
        attempts: What the sender has tried; None if nothing is known of that.

    Raises:
        RefusedError: It cannot succeed, however often it is tried.
        Exception: Anything that MLflow raises while it is unreachable.
    """
    try:
        _deliver(client, outbox, queued, attempts or Attempts())
    except (MlflowException, HTTPError) as error:
        if is_final(error, client.tracking_uri):
            raise RefusedError(str(error)) from error
        raise
    except _BAD_DATA as error:
        # If MLflow answers, the operation's own data are damaged, and waiting is useless.
        client.search_experiments(max_results=1)
        raise RefusedError(f"{call_name(queued.operation)}: {type(error).__name__}: {error}") from error


def _deliver(client: MlflowClient, outbox: Outbox, queued: QueuedOperation, attempts: Attempts) -> None:
    if queued.folder and not queued.folder.is_dir():
        raise RefusedError(f"its files are gone from {queued.folder}")
    if isinstance(queued.operation, UnknownOperation):
        raise RefusedError(f"{queued.operation.call}: {queued.operation.reason}")
    if isinstance(queued.operation, CreateRun):
        _create_run(client, outbox, queued, queued.operation, attempts)
    elif run_id := outbox.run_id(queued.run):
        _write(client, outbox, run_id, queued.operation, queued.folder, attempts)
    else:
        raise RefusedError("its run was refused")


def _write(
    client: MlflowClient, outbox: Outbox, run_id: str, operation: Operation, folder: Path | None, attempts: Attempts
) -> None:
    """Execute an operation on a run that MLflow has."""
    match operation:
        case LogBatch():
            _log_batch(client, outbox, run_id, operation)
        case LogInputs():
            _log_inputs(client, run_id, operation)
        case SetTerminated():
            _set_terminated(client, outbox, run_id, operation, attempts)
        case CloseEarlier():
            _close_earlier(client, run_id)
        case LogArtifacts() if folder:
            client.log_artifacts(run_id, str(folder))
        case LogModel() if folder:
            _log_model(client, outbox, run_id, folder)
        case DiscardModel():
            with _removing(client, run_id):
                models.discard(Store(client.tracking_uri), run_id)
        case RemoveModel():
            with _removing(client, run_id):
                models.remove(Store(client.tracking_uri), run_id, operation.why)
        case _:
            raise RefusedError(f"{call_name(operation)}: it has no files")


def _create_run(
    client: MlflowClient, outbox: Outbox, queued: QueuedOperation, operation: CreateRun, attempts: Attempts
) -> None:
    key, is_first = queued.run, attempts.is_first(queued)
    run_ids = [] if is_first else _run_ids(client, operation.experiment_id, key)
    if not run_ids:
        run = client.create_run(
            operation.experiment_id,
            start_time=operation.start_time,
            tags={**operation.tags, Tags.KEY: key},
            run_name=operation.name,
        )
        run_ids = [run.info.run_id]
    if is_first:
        attempts.add_made_once(run_ids[0])
    outbox.store_run_id(key, run_ids[0])


def _run_ids(client: MlflowClient, experiment_id: str, key: str) -> list[str]:
    runs = client.search_runs([experiment_id], f"tags.`{Tags.KEY}` = '{key}'", run_view_type=ViewType.ACTIVE_ONLY)
    return [run.info.run_id for run in runs]


def _log_batch(client: MlflowClient, outbox: Outbox, run_id: str, operation: LogBatch) -> None:
    model_id = outbox.model_id(run_id) if operation.of_model else None
    client.log_batch(
        run_id,
        metrics=[
            Metric(point.name, point.value, point.time, point.step, model_id=model_id) for point in operation.metrics
        ],
        params=[Param(name, value) for name, value in operation.params.items()],
        tags=[RunTag(name, value) for name, value in operation.tags.items()],
    )


def _log_inputs(client: MlflowClient, run_id: str, operation: LogInputs) -> None:
    client.log_inputs(
        run_id,
        [
            DatasetInput(Dataset(**used.dataset), [InputTag(Tags.DATASET_CONTEXT, used.part)])
            for used in operation.datasets
        ],
    )


def _set_terminated(
    client: MlflowClient, outbox: Outbox, run_id: str, operation: SetTerminated, attempts: Attempts
) -> None:
    run = client.get_run(run_id)
    # A request whose answer was lost may have created a second run or model after they were looked for.
    key = None if attempts.is_made_once(run_id) else run.data.tags.get(Tags.KEY)
    if key and (first := outbox.run_id(key)):
        for other in _run_ids(client, run.info.experiment_id, key):
            if other != first:
                client.delete_run(other)
        if run_id != first:
            return
    if model_id := outbox.model_id(run_id):
        for model in _models(client, run.info.experiment_id, run_id):
            if model.model_id != model_id:
                client.delete_logged_model(model.model_id)
    # The clock may have been set back; a run must not end before it started.
    client.set_terminated(run_id, operation.status, max(operation.end_time, run.info.start_time))


def _close_earlier(client: MlflowClient, run_id: str) -> None:
    tags = client.get_run(run_id).data.tags
    same = " and ".join(f"tags.`{tag}` = '{tags[tag]}'" for tag in (Tags.PARENT, Tags.TRIAL, Tags.ROLE))
    experiment = client.get_run(run_id).info.experiment_id
    for run in client.search_runs([experiment], f"{same} and attributes.status = 'RUNNING'"):
        if run.info.run_id != run_id:
            client.set_terminated(run.info.run_id, "KILLED")


def _log_model(client: MlflowClient, outbox: Outbox, run_id: str, folder: Path) -> None:
    run = client.get_run(run_id)
    logged = next(iter(_models(client, run.info.experiment_id, run_id)), None)
    if logged is None:
        logged = client.create_logged_model(
            run.info.experiment_id,
            name=models.model_name(run),
            source_run_id=run_id,
            params=run.data.params,
            model_type="keras",
        )
    if logged.status != LoggedModelStatus.READY:
        models.upload(client, logged, run_id, folder)
    outputs = run.outputs.model_outputs if run.outputs else []
    if logged.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    outbox.store_model_id(run_id, logged.model_id)


def _models(client: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    return list(client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'"))


@contextmanager
def _removing(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Raise `RefusedError` for a model that cannot be removed although MLflow answers: other operations must not wait."""
    try:
        yield
    except Exception as error:
        client.get_run(run_id)
        raise RefusedError(f"the model of run {run_id} cannot be removed: {error}") from error
