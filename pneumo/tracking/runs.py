"""Read and write a single run, whatever its role."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from pneumo.spec.errors import RequestError
from pneumo.spec.run import RecordedRun, Status
from pneumo.tracking.operations import now
from pneumo.tracking.outbox import write_files
from pneumo.tracking.store import Store, pages


def recorded_run(run: Run) -> RecordedRun:
    """Return MLflow's run as plain values."""
    return RecordedRun(
        run_id=run.info.run_id,
        status=run.info.status,
        parameters=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
        started=run.info.start_time,
        ended=run.info.end_time,
    )


def runs_of(client: MlflowClient, experiment_id: str, condition: str = "") -> Iterator[Run]:
    """Yield the runs of an MLflow experiment that are not deleted, by their start."""
    return pages(
        lambda token: client.search_runs(
            [experiment_id],
            condition,
            run_view_type=ViewType.ACTIVE_ONLY,
            max_results=1000,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
    )


def read_artifact(store: Store, run_id: str, name: str) -> str:
    """Return the text of an artifact. Raises `RequestError` if it cannot be read."""
    return read_artifact_bytes(store, run_id, name).decode("utf-8")


def read_artifact_bytes(store: Store, run_id: str, name: str) -> bytes:
    """Return the content of an artifact. Raises `RequestError` if it cannot be read."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            return Path(store.client.download_artifacts(run_id, name, folder)).read_bytes()
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"{run_id}: its artifact {name} cannot be read: {reason}") from None


def has_artifact(store: Store, run_id: str, name: str) -> bool:
    """Return whether a run has an artifact, given its path in the run."""
    folder = name.rpartition("/")[0] or None
    return any(file.path == name for file in store.client.list_artifacts(run_id, folder))


def model_of(store: Store, run_id: str) -> str | None:
    """Return the id of the model that a run logged; None if it logged none."""
    outputs = store.client.get_run(run_id).outputs
    return str(outputs.model_outputs[0].model_id) if outputs and outputs.model_outputs else None


def log_files(client: MlflowClient, run_id: str, files: Mapping[str, str | bytes]) -> None:
    """Upload artifacts together, given their contents by path in the run, such as `plots/roc.png`.

    Raises:
        ValueError: A path leads out of the run.
    """
    if not files:
        return
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), files)
        client.log_artifacts(run_id, folder)


def close_run(client: MlflowClient, run_id: str, status: Status) -> None:
    """Close a run, not before its start, even if the clock was set back."""
    started = client.get_run(run_id).info.start_time
    client.set_terminated(run_id, status, max(now(), started))


def user_name() -> str:
    """Return the name of the user who runs this process, or the user's number if there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container
        return str(os.getuid())
