"""A trial as its run tells it: all that is needed to train it again and to compare."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pneumo.spec.errors import RequestError
from pneumo.spec.result import PARTS, Part
from pneumo.tracking.store import Store

EPOCH_METRICS = ("loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc", "epoch_seconds")


@dataclass(frozen=True)
class Digest:
    """What a run says of the pictures of one part: their digest, and how many they are where it says that."""

    digest: str
    pictures: int | None


@dataclass(frozen=True)
class RecordedTrial:
    """A trial that was trained, or a training that repeats one.

    `parameters` are texts, as MLflow keeps them, `seed` among them. `metrics` has those that are known once, `epochs` those
    of each epoch from the first. `experiment_yaml` and `predictions_csv` are artifacts.
    """

    run_id: str
    store: str
    tags: Mapping[str, str]
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    epochs: tuple[Mapping[str, float], ...]
    pictures: Mapping[Part, Digest]
    experiment_yaml: str
    predictions_csv: str

    @property
    def study(self) -> str:
        return self.tags["pneumo.study"]

    @property
    def number(self) -> int:
        return int(self.tags["pneumo.trial"])

    @property
    def role(self) -> str:
        """`trial`, or `confirm` for one that repeats a trial with another seed."""
        return self.tags["pneumo.role"]

    @property
    def state(self) -> str:
        """`complete` or `pruned`."""
        return self.tags["pneumo.state"]


def recorded_trial(store: Store, run_id: str) -> RecordedTrial:
    """The trial of a run. Raises `RequestError` where it is not one that was trained, or where its record has holes."""
    client = store.client
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise RequestError(
            f"{run_id}: there is no such run in {store.shown}; a trial's run id is on its page and in its study's trials.csv"
        ) from None
    _check(run)
    lasting = {name: value for name, value in run.data.metrics.items() if not name.startswith("system/")}
    files = {name: _text(client, run_id, name) for name in ("experiment.yaml", "predictions.csv")}
    return RecordedTrial(
        run_id=run_id,
        store=store.shown,
        tags=dict(run.data.tags),
        parameters=dict(run.data.params),
        metrics={name: value for name, value in lasting.items() if name not in EPOCH_METRICS},
        epochs=_epochs(client, run_id),
        pictures=_pictures(run),
        experiment_yaml=files["experiment.yaml"],
        predictions_csv=files["predictions.csv"],
    )


def _check(run: Run) -> None:
    tags, status = run.data.tags, run.info.status
    role, state, where = tags.get("pneumo.role"), tags.get("pneumo.state"), run.info.run_id
    if role == "study":
        raise RequestError(
            f"{where}: is the run of the study {tags.get('pneumo.study')}; give the run of one of its trials"
        )
    if role not in ("trial", "confirm"):
        raise RequestError(f"{where}: is no run of a trial (it has no tag pneumo.role that says so); give one that is")
    if status == "RUNNING":
        raise RequestError(f"{where}: is still running, or was left so; give a trial that is complete or pruned")
    if state == "failed":
        why = " ".join(tags.get("pneumo.error", "").split())
        raise RequestError(
            f"{where}: the trial failed{f' ({why})' if why else ''}, so there is nothing to compare with; "
            "give one that is complete or pruned"
        )
    if state not in ("complete", "pruned"):
        raise RequestError(f"{where}: was ended before its end ({status}); give a trial that is complete or pruned")


def _text(client: MlflowClient, run_id: str, name: str) -> str:
    try:
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")
    except (MlflowException, OSError) as error:
        raise RequestError(
            f"{run_id}: its artifact {name} cannot be had: {' '.join(str(error).split())[:200]}"
        ) from None


def _epochs(client: MlflowClient, run_id: str) -> tuple[Mapping[str, float], ...]:
    epochs: dict[int, dict[str, float]] = {}
    for name in EPOCH_METRICS:
        for metric in client.get_metric_history(run_id, name):
            epochs.setdefault(metric.step, {})[name] = metric.value
    if not epochs or sorted(epochs) != list(range(1, len(epochs) + 1)):
        raise RequestError(f"{run_id}: its record has no metrics of every epoch from the first, got {sorted(epochs)}")
    return tuple(epochs[epoch] for epoch in sorted(epochs))


def _pictures(run: Run) -> dict[Part, Digest]:
    found: dict[str, Digest] = {}
    for one in run.inputs.dataset_inputs if run.inputs else []:
        context = next((tag.value for tag in one.tags if tag.key == "mlflow.data.context"), "")
        count = json.loads(one.dataset.profile or "{}").get("num_rows")
        found[context] = Digest(one.dataset.digest, count if isinstance(count, int) else None)
    return {part: found[part] for part in PARTS if part in found}
