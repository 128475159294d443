"""What a trial's run says about its training: enough to repeat it and to compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pneumo.spec.errors import RequestError
from pneumo.spec.names import Artifacts, Metrics, Tags
from pneumo.spec.result import PARTS, Part
from pneumo.spec.run import RecordedRun
from pneumo.tracking.runs import read_artifact, recorded_run
from pneumo.tracking.store import Store


@dataclass(frozen=True)
class Digest:
    """The pictures of one part of the split, as a run records them.

    Attributes:
        digest: The first letters of the digest of pictures and split.
        pictures: The number of pictures; None if the run does not record it.
    """

    digest: str
    pictures: int | None


@dataclass(frozen=True)
class RecordedTraining:
    """A trial's run with all that is needed to repeat its training.

    Attributes:
        run: The run of a trial, complete or pruned, or of a confirmation.
        store_uri: The address of MLflow, without a password.
        epochs: The metrics of each epoch, from the first.
        pictures: The pictures of each part.
        experiment_yaml: Text of the artifact `experiment.yaml`.
        predictions_csv: Text of the artifact `predictions.csv`.
    """

    run: RecordedRun
    store_uri: str
    epochs: tuple[Mapping[str, float], ...]
    pictures: Mapping[Part, Digest]
    experiment_yaml: str
    predictions_csv: str


def read_training(store: Store, run_id: str) -> RecordedTraining:
    """Return what the run of a trial says about its training.

    Raises:
        RequestError: There is no such run, it is not a trial that was trained, or its record is incomplete.
    """
    client = store.client
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise RequestError(
            f"{run_id}: there is no such run in {store.display_uri}; a trial's run id is on its page and in its study's "
            "trials.csv"
        ) from None
    recorded = recorded_run(run)
    _check_trained(recorded)
    experiment_yaml = read_artifact(store, run_id, Artifacts.EXPERIMENT)
    predictions_csv = read_artifact(store, run_id, Artifacts.PREDICTIONS)
    return RecordedTraining(
        run=recorded,
        store_uri=store.display_uri,
        epochs=_epochs(client, run_id),
        pictures=_pictures(run),
        experiment_yaml=experiment_yaml,
        predictions_csv=predictions_csv,
    )


def read_classes(store: Store, run_id: str) -> tuple[str, str] | None:
    """Return the names of the classes 0 and 1 of the pictures that a trial was trained on; None if they are not recorded."""
    run = store.client.get_run(run_id)
    for dataset_input in run.inputs.dataset_inputs if run.inputs else []:
        counts = json.loads(dataset_input.dataset.profile or "{}")
        names = [name for name in counts if name not in ("num_rows", "patients")]
        if len(names) == 2:
            return names[0], names[1]
    return None


def _check_trained(run: RecordedRun) -> None:
    if run.role == "study":
        raise RequestError(
            f"{run.run_id}: this is the run of the study {run.tags.get('pneumo.study')}; give the run of one of its trials"
        )
    if run.role not in ("trial", "confirm"):
        raise RequestError(f"{run.run_id}: is not the run of a trial (it has no tag pneumo.role that says so)")
    if run.status == "RUNNING":
        raise RequestError(f"{run.run_id}: is still running, or was left so; give a trial that is complete or pruned")
    if run.state == "failed":
        error = " ".join(run.tags.get(Tags.ERROR, "").split())
        raise RequestError(
            f"{run.run_id}: the trial failed{f' ({error})' if error else ''}, so there is nothing to compare with; "
            "give one that is complete or pruned"
        )
    if run.state not in ("complete", "pruned"):
        raise RequestError(
            f"{run.run_id}: was ended before its end ({run.status}); give a trial that is complete or pruned"
        )


def _epochs(client: MlflowClient, run_id: str) -> tuple[Mapping[str, float], ...]:
    epochs: dict[int, dict[str, float]] = {}
    for name in Metrics.OF_EPOCH:
        for metric in client.get_metric_history(run_id, name):
            epochs.setdefault(metric.step, {})[name] = metric.value
    if not epochs or sorted(epochs) != list(range(1, len(epochs) + 1)):
        raise RequestError(
            f"{run_id}: its record does not have the metrics of every epoch from the first on; "
            f"it has epochs {sorted(epochs)}"
        )
    return tuple(epochs[epoch] for epoch in sorted(epochs))


def _pictures(run: Run) -> dict[Part, Digest]:
    digests: dict[str, Digest] = {}
    for dataset_input in run.inputs.dataset_inputs if run.inputs else []:
        part = next((tag.value for tag in dataset_input.tags if tag.key == Tags.DATASET_CONTEXT), "")
        count = json.loads(dataset_input.dataset.profile or "{}").get("num_rows")
        digests[part] = Digest(dataset_input.dataset.digest, count if isinstance(count, int) else None)
    return {part: digests[part] for part in PARTS if part in digests}
