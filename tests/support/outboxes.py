"""Send an outbox to a real MLflow, and read what MLflow stores then. MLflow and the outbox are fixtures."""

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
from pneumo.training.drawing import draw_plots
from tests.support.new_stores import new_store

PICTURES = [DatasetPart("training", "phantoms", "01" * 16, "phantom:seed=0", {"num_rows": 90})]


@pytest.fixture(scope="module", params=["folder", pytest.param("server", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return an MLflow for this module's tests. Each test has a study name of its different."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # MLflow stores artifacts in the current folder
        return new_store(folder) if request.param == "folder" else connect(request.getfixturevalue("mlflow_server"))


@pytest.fixture
def outbox(project: Path) -> Outbox:
    return open_outbox(project / "outbox")


def saved_model(outbox: Outbox, run: str) -> None:
    """Append a model as a worker does, with a description and a file in place of a network."""
    from mlflow.models import Model

    with outbox.append_folder(run, LogModel()) as folder:
        (folder / "data").write_bytes(b"weights")
        Model().save(str(folder / "MLmodel"))


def write_trials(study: StudyRun) -> None:
    """Append a study of two trials that run at once, and a third that is killed after its model was saved."""
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
    """Deliver all operations; MLflow must accept each."""
    lines: list[str] = []
    with Sender(outbox, store, say=lines.append, complain=lines.append, draw=draw_plots) as sender:
        assert sender.flush(0), lines
    assert lines == []


def sent(outbox: Outbox, store: Store, run: str) -> str:
    """Deliver all operations, and return the id of the run that goes by a key."""
    send(outbox, store)
    run_id = outbox.run_id(run)
    assert run_id is not None
    return run_id


def record(client: MlflowClient, experiment_id: str) -> list[dict[str, Any]]:
    """Return what MLflow stores about a study's runs, the study's own first, without ids, names and times."""
    runs = client.search_runs([experiment_id], order_by=["attributes.start_time ASC"])
    return [_contents(client, run) for run in sorted(runs, key=lambda run: run.data.tags.get("pneumo.trial", ""))]


def files(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    """Return the paths of a run's artifacts."""
    entries = client.list_artifacts(run_id, folder)
    return sorted(
        [entry.path for entry in entries if not entry.is_dir]
        + [name for entry in entries if entry.is_dir for name in files(client, run_id, entry.path)]
    )


def _contents(client: MlflowClient, run: Run) -> dict[str, Any]:
    removed = "pneumo.model_removed" in run.data.tags or run.info.status == "KILLED"
    outputs = run.outputs.model_outputs if run.outputs and not removed else []
    models = [client.get_logged_model(output.model_id) for output in outputs]
    different = {"pneumo.key", "pneumo.id", "pneumo.study", "pneumo.best_run", "pneumo.search_started"}
    different |= {"mlflow.parentRunId", "mlflow.runName", "mlflow.note.content"}
    return {
        "tags": {name: value for name, value in run.data.tags.items() if name not in different},
        "ended": (run.info.status, run.info.end_time is not None),
        "params": run.data.params,
        "metrics": {
            name: [(point.step, str(point.value)) for point in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        },
        "inputs": [used.dataset.digest for used in (run.inputs.dataset_inputs if run.inputs else [])],
        "files": files(client, run.info.run_id),
        "models": [
            (str(model.status), {metric.key: metric.value for metric in model.metrics or []}, model.params)
            for model in models
        ],
    }
