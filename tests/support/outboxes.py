"""What an outbox holds, taken to a real MLflow, and what that then holds; the MLflow and the outbox are fixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pneumo.tracking.operations import LogModel
from pneumo.tracking.outbox import Outbox, open_outbox
from pneumo.tracking.sender import Sender
from pneumo.tracking.store import Store, connect
from pneumo.tracking.study import DatasetPart, StudyRun, end_study, end_trial, start_trial
from pneumo.tracking.trial_log import TrialLog

PICTURES = [DatasetPart("training", "phantoms", "01" * 16, "phantom:seed=0", {"num_rows": 90})]


@pytest.fixture(scope="module", params=["folder", pytest.param("server", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A place that runs can stand in, shared by this module's tests; each takes a study name of its own."""
    folder = tmp_path_factory.mktemp("project")
    address = f"sqlite:///{folder}/mlflow.db" if request.param == "folder" else request.getfixturevalue("mlflow_server")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where MLflow puts the artifacts of a database's runs
        return connect(address)


@pytest.fixture
def outbox(project: Path) -> Outbox:
    return open_outbox(project / "outbox")


def saved_model(outbox: Outbox, run: str) -> None:
    """What a worker saves, but of no network: a description and a file."""
    from mlflow.models import Model

    with outbox.append_folder(run, LogModel()) as folder:
        (folder / "data").write_bytes(b"weights")
        Model().save(str(folder / "MLmodel"))


def write_trials(study: StudyRun) -> None:
    """A whole study of two trials that are under way at once, and one that is killed when its model is there already."""
    outbox = study.outbox
    runs = [start_trial(study, number, {"layers": number}, 7, PICTURES, "name: it\n") for number in range(2)]
    logs = [TrialLog(outbox, run) for run in runs]
    for epoch in (1, 2, 3):
        for number, log in enumerate(logs):
            log.epoch({"loss": number + 1 / epoch, "val_auc": float("nan") if epoch == 1 else 0.5}, epoch)
    for run, log in zip(runs, logs, strict=True):
        saved_model(outbox, run)
        log.artifacts({"plots/roc.png": b"\x89PNG", "history.csv": "epoch\n"})
        log.finish({"best_val_auc": 0.5}, of_model=True)
        end_trial(study, run, "complete")
    killed = start_trial(study, 2, {}, 9)
    saved_model(outbox, killed)
    end_trial(study, killed, "killed")
    end_study(study, "FINISHED", metrics={"best_trial": 1}, artifacts={"trials.csv": "trial\n"}, best_run_id="x")


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
    removed = "pneumo.model_removed" in run.data.tags or run.info.status == "KILLED"
    of_run = run.outputs.model_outputs if run.outputs and not removed else []
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
