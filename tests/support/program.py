"""Run the real program in a child process, and check what it wrote into MLflow."""

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
"""The data of an experiment that trains in seconds. No test looks at how good its networks are."""

# Names in MLflow that users rely on. They are written out here, so that a renaming in the code fails the tests.
TAGS = {"pneumo.role", "pneumo.study", "pneumo.engine", "pneumo.algorithm", "pneumo.version"}
EPOCH = {"loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc", "epoch_seconds"}
ONCE = {"best_epoch", "best_val_auc", "best_val_accuracy", "val_sensitivity", "val_specificity", "val_f1", "threshold"}
ONCE |= {"parameters", "predict_ms", "epochs_trained", "train_seconds", "images_per_second"}
STRESS = {"val_stress_auc", "val_photometry_auc", "val_frame_auc", "val_stress_accuracy", "val_stress_worst"}
STRESS |= {"stress_threshold"}
PLOTS = {"learning_curves", "confusion_matrix", "roc", "precision_recall", "calibration", "mistakes"}
PLOTS |= {"scores", "threshold"}

SAME = "Data, code, libraries, device and threads are the same as in the record."
EQUAL = "Every metric is equal to the last bit."
"""Lines that `python -m pneumo.replay` prints before and after the training, if nothing differs from the record."""

LONGEST = 600
"""Seconds after which a program that hangs is killed."""


def write(folder: Path, **document: object) -> Path:
    """Write an experiment on a few phantoms, a trial of which takes seconds, and return the file's path.

    `document` replaces whole blocks of the experiment. Its `hyperparameters` are added to those of the small network.
    """
    hyperparameters: dict[str, object] = {"epochs": 1, "image_size": 32, "dense_units": 8}
    own = document.pop("hyperparameters", {})
    assert isinstance(own, Mapping)
    hyperparameters.update(own)
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({"name": "small", "data": PHANTOMS, "hyperparameters": hyperparameters} | document))
    return path


def command(*arguments: object, verb: str = "search") -> list[str]:
    """Return the command line of a verb."""
    return [sys.executable, "-m", f"pneumo.{verb}", *map(str, arguments)]


def search(*arguments: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m pneumo.search` with these arguments in a folder."""
    return called("search", *arguments, folder=folder, **environment)


def called(verb: str, *arguments: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m pneumo.VERB` with these arguments in a folder."""
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
    """Return a client of the store that `mlflow ui` shows in a folder."""
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def runs(folder: Path, study: str) -> tuple[Run, list[Run]]:
    """Return a study's run and the runs of its trials by number and start, without confirmations and promotions."""
    store = client(folder)
    experiment = store.get_experiment_by_name(study)
    assert experiment is not None
    recorded = list(store.search_runs([experiment.experiment_id], max_results=1000))
    (parent,) = [run for run in recorded if run.data.tags["pneumo.role"] == "study"]
    trials = [run for run in recorded if run.data.tags["pneumo.role"] == "trial"]
    children = [run for run in recorded if run.data.tags["pneumo.role"] != "study"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} <= {parent.info.run_id}
    assert {run.data.tags["pneumo.role"] for run in children} <= {"trial", "confirm", "promotion"}
    return parent, sorted(trials, key=lambda run: (int(run.data.tags["pneumo.trial"]), run.info.start_time))


def check_trial(folder: Path, run: Run) -> None:
    """Check that a trial's run has every tag, parameter, metric, data set and artifact that it should have."""
    store, tags, state = client(folder), run.data.tags, run.data.tags["pneumo.state"]
    assert set(tags) >= TAGS
    assert tags["mlflow.runName"] == f"trial-{int(tags['pneumo.trial']):04d}"
    assert tags["pneumo.device"]
    assert run.info.status == "FINISHED"
    assert state in ("complete", "pruned")
    assert {"layers", "learning_rate", "optimizer", "epochs", "seed"} <= set(run.data.params)
    assert "momentum" not in run.data.params  # adam does not use it
    assert set(run.data.metrics) >= EPOCH | ONCE
    epochs = int(run.data.params["epochs"]) if state == "complete" else int(run.data.metrics["best_epoch"])
    history = store.get_metric_history(run.info.run_id, "val_auc")
    assert [metric.step for metric in history][:epochs] == list(range(1, epochs + 1))
    assert run.inputs is not None
    assert {(part.tags[0].value, len(part.dataset.digest)) for part in run.inputs.dataset_inputs} == {
        ("training", 32),
        ("validation", 32),
    }
    files = {file.path for file in store.list_artifacts(run.info.run_id)}
    assert {"history.csv", "predictions.csv", "experiment.yaml"} <= files
    is_judged = state == "complete"
    assert (STRESS & set(run.data.metrics)) == (STRESS if is_judged else set())
    assert tags.get("pneumo.stress") == ("stress-1" if is_judged else None)
    assert ({"stress.csv", "stress_predictions.npz"} & files != set()) == is_judged
    plots = {file.path for file in store.list_artifacts(run.info.run_id, "plots")}
    expected = PLOTS | ({"stress", "gradcam"} if is_judged else set())
    expected |= {"causes"} if "causes.csv" in files else set()  # the names of the pictures tell the causes
    assert plots == {f"plots/{name}.png" for name in expected}
    assert tags["pneumo.plots"] == ", ".join(sorted(expected))
    assert is_judged or "val_attention_inside" not in run.data.metrics
    models = run.outputs.model_outputs if run.outputs else []
    assert len(models) == (1 if state == "complete" else 0)
    assert ("model_bytes" in run.data.metrics) == (state == "complete")


def check_study(folder: Path, study: str, trials: int) -> list[Run]:
    """Check that a study's record is complete and nothing is registered. Return the runs of its trials."""
    parent, children = runs(folder, study)
    assert parent.info.status == "FINISHED"
    assert set(parent.data.tags) >= TAGS
    assert [int(run.data.tags["pneumo.trial"]) for run in children] == list(range(trials))
    assert {"best_trial", "best_value", "trials_complete", "trials_pruned", "trials_failed"} <= set(parent.data.metrics)
    files = {file.path for file in client(folder).list_artifacts(parent.info.run_id)}
    assert {"report.html", "trials.csv", "experiment.yaml"} <= files
    assert list(client(folder).search_registered_models()) == []
    return children
