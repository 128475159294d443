"""What an outbox holds, taken to a real MLflow, and what that then holds."""

from __future__ import annotations

from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from pneumo.tracking.outbox import Outbox
from pneumo.tracking.sender import Sender
from pneumo.tracking.store import Store


def send(outbox: Outbox, store: Store) -> None:
    """Delivers all of it; MLflow takes each."""
    said: list[str] = []
    with Sender(outbox, store, say=said.append, complain=said.append) as sender:
        assert sender.flush(0), said
    assert said == []


def sent(outbox: Outbox, store: Store, run: str) -> str:
    """Delivers all of it; the id of a run that was made by a key."""
    send(outbox, store)
    found = outbox.run_id(run)
    assert found is not None
    return found


def record(client: MlflowClient, experiment_id: str) -> list[dict[str, Any]]:
    """All that MLflow holds of a study's runs, the study's own first, without ids, names and times."""
    found = client.search_runs([experiment_id], order_by=["attributes.start_time ASC"])
    return [_of_run(client, run) for run in sorted(found, key=lambda run: run.data.tags.get("pneumo.trial", ""))]


def files(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    """The paths of a run's artifacts."""
    found = client.list_artifacts(run_id, folder)
    return sorted(
        [one.path for one in found if not one.is_dir]
        + [name for one in found if one.is_dir for name in files(client, run_id, one.path)]
    )


def _of_run(client: MlflowClient, run: Run) -> dict[str, Any]:
    of_run = [] if not run.outputs or "pneumo.model_removed" in run.data.tags else run.outputs.model_outputs
    models = [client.get_logged_model(one.model_id) for one in of_run]
    own = {"pneumo.key", "pneumo.id", "pneumo.study", "pneumo.best_run"}
    own |= {"mlflow.parentRunId", "mlflow.runName", "mlflow.note.content"}
    return {
        "tags": {name: value for name, value in run.data.tags.items() if name not in own},
        "ended": (run.info.status, run.info.end_time is not None),
        "params": run.data.params,
        "metrics": {
            name: [(point.step, str(point.value)) for point in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        },
        "inputs": [one.dataset.digest for one in (run.inputs.dataset_inputs if run.inputs else [])],
        "files": files(client, run.info.run_id),
        "models": [(str(one.status), {m.key: m.value for m in one.metrics or []}, one.params) for one in models],
    }
