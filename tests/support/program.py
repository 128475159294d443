"""The real program in a child process, and what it left in MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

PHANTOMS = {"source": "phantom", "phantom": {"patients": 24, "size": 64}, "validation": 0.3}
"""A few small ones: what is tested is the way, not the result."""

# What a study leaves in MLflow, by the names that its readers rely on.
TAGS = {"pneumo.role", "pneumo.study", "pneumo.engine", "pneumo.algorithm", "pneumo.version"}
EPOCH = {"loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc", "epoch_seconds"}
ONCE = {"best_epoch", "best_val_auc", "best_val_accuracy", "val_sensitivity", "val_specificity", "val_f1", "threshold"}
ONCE |= {"parameters", "predict_ms", "epochs_trained", "train_seconds", "images_per_second"}
PLOTS = {"learning_curves", "confusion_matrix", "roc", "precision_recall", "calibration", "mistakes"}

SAME = "Data, code, libraries, device and threads are the same as in the record."
EQUAL = "Every metric is equal to the last bit."
"""Lines of `python -m pneumo.replay`, if nothing differs from the record before and after the training."""

LONGEST = 600
"""Seconds after which a program that hangs is ended."""


def write(folder: Path, **document: object) -> Path:
    """An experiment file on a few phantoms, small enough for seconds a trial."""
    small: dict[str, object] = {"epochs": 1, "image_size": 32, "dense_units": 8}
    given = document.pop("hyperparameters", {})
    assert isinstance(given, Mapping)
    path = folder / "experiment.yaml"
    path.write_text(
        yaml.safe_dump({"name": "small", "data": PHANTOMS, "hyperparameters": small | dict(given)} | document)
    )
    return path


def command(*arguments: object, verb: str = "search") -> list[str]:
    return [sys.executable, "-m", f"pneumo.{verb}", *map(str, arguments)]


def search(*arguments: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m pneumo.search` with these arguments, in this folder."""
    return called("search", *arguments, folder=folder, **environment)


def called(verb: str, *arguments: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m pneumo.VERB` with these arguments, in this folder."""
    return subprocess.run(
        command(*arguments, verb=verb),
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def client(folder: Path) -> MlflowClient:
    """The store that a bare `mlflow ui` in this folder shows."""
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def runs(folder: Path, study: str) -> tuple[Run, list[Run]]:
    """The study's one parent run and its trials' runs, by number and start; not those that train a trial again."""
    store = client(folder)
    experiment = store.get_experiment_by_name(study)
    assert experiment is not None
    found = list(store.search_runs([experiment.experiment_id], max_results=1000))
    (parent,) = [run for run in found if run.data.tags["pneumo.role"] == "study"]
    trials = [run for run in found if run.data.tags["pneumo.role"] == "trial"]
    children = [run for run in found if run.data.tags["pneumo.role"] != "study"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} <= {parent.info.run_id}
    assert {run.data.tags["pneumo.role"] for run in children} <= {"trial", "confirm", "promotion"}
    return parent, sorted(trials, key=lambda run: (int(run.data.tags["pneumo.trial"]), run.info.start_time))


def check_trial(folder: Path, run: Run) -> None:
    """All that a trial leaves in MLflow, by the names that its readers rely on."""
    store, tags, state = client(folder), run.data.tags, run.data.tags["pneumo.state"]
    assert set(tags) >= TAGS
    assert tags["mlflow.runName"] == f"trial-{int(tags['pneumo.trial']):04d}"
    assert tags["pneumo.device"]
    assert run.info.status == "FINISHED"
    assert state in ("complete", "pruned")
    assert {"layers", "learning_rate", "optimizer", "epochs", "seed"} <= set(run.data.params)
    assert "momentum" not in run.data.params  # adam has none
    assert set(run.data.metrics) >= EPOCH | ONCE
    epochs = int(run.data.params["epochs"]) if state == "complete" else int(run.data.metrics["best_epoch"])
    history = store.get_metric_history(run.info.run_id, "val_auc")
    assert [metric.step for metric in history][:epochs] == list(range(1, epochs + 1))
    assert run.inputs is not None
    assert {(one.tags[0].value, len(one.dataset.digest)) for one in run.inputs.dataset_inputs} == {
        ("training", 32),
        ("validation", 32),
    }
    files = {file.path for file in store.list_artifacts(run.info.run_id)}
    assert {"history.csv", "predictions.csv", "experiment.yaml"} <= files
    plots = {file.path for file in store.list_artifacts(run.info.run_id, "plots")}
    assert plots == {f"plots/{name}.png" for name in PLOTS}
    models = run.outputs.model_outputs if run.outputs else []
    assert len(models) == (1 if state == "complete" else 0)
    assert ("model_bytes" in run.data.metrics) == (state == "complete")


def check_study(folder: Path, study: str, trials: int) -> list[Run]:
    """A whole record: one finished parent, one run for each number, nothing registered."""
    parent, children = runs(folder, study)
    assert parent.info.status == "FINISHED"
    assert set(parent.data.tags) >= TAGS
    assert [int(run.data.tags["pneumo.trial"]) for run in children] == list(range(trials))
    assert {"best_trial", "best_value", "trials_complete", "trials_pruned", "trials_failed"} <= set(parent.data.metrics)
    files = {file.path for file in client(folder).list_artifacts(parent.info.run_id)}
    assert {"study.html", "trials.csv", "experiment.yaml"} <= files
    assert list(client(folder).search_registered_models()) == []
    return children
