"""The driver's runs: one MLflow experiment for a study, one run for the study in it, and a child run for each trial.

`open_study` writes into MLflow directly, so MLflow must answer then. Everything later goes through the study's outbox. Every
function names the run that it writes to; MLflow's active run is not used.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from pneumo.spec.hyperparameters import Value
from pneumo.spec.names import Artifacts, Params, Tags
from pneumo.spec.run import STATUS, End, RecordedRun, Role, Status, format_parameter
from pneumo.tracking.find import find_experiment, study_run
from pneumo.tracking.operations import (
    CloseEarlier,
    CreateRun,
    DiscardModel,
    LogBatch,
    LogInputs,
    Operation,
    SetTerminated,
    UsedDataset,
    metric_points,
    now,
)
from pneumo.tracking.outbox import Outbox, new_key
from pneumo.tracking.runs import has_artifact, read_artifact, recorded_run, runs_of, user_name
from pneumo.tracking.store import Store
from pneumo.tracking.views import describe_experiment, view_tags

_LONGEST_TAG = 5000
"""Largest number of letters of a tag. MLflow stores 8,000, its servers before 2.15 store 5,000."""

_LONGEST_DIGEST = 36
"""Largest number of letters of a dataset's digest in MLflow."""


@dataclass(frozen=True)
class StudyRun:
    """The open run of a study.

    Attributes:
        store: The MLflow that has the run.
        outbox: Where writes are appended.
        experiment_id: Id of the study's MLflow experiment.
        run_id: Id of the run.
        resumed: Whether the run existed before.
        tags: The tags that every run of the study has.
        newest: Time of the run's latest metric when it was opened, in milliseconds since 1970; 0 if it had none.
        best_run: Id of the best trial's run when the last search ended; None if there was none.
    """

    store: Store
    outbox: Outbox
    experiment_id: str
    run_id: str
    resumed: bool
    tags: Mapping[str, str]
    newest: int = 0
    best_run: str | None = None


@dataclass(frozen=True)
class RecordedStudy:
    """What a study's run says about the study.

    Attributes:
        run_id: Id of the study's run.
        experiment_yaml: The experiment; None if the study was killed before it was written.
        tags: Tags of the run.
        closed: Whether the search came to its end.
    """

    run_id: str
    experiment_yaml: str | None
    tags: Mapping[str, str]
    closed: bool


@dataclass(frozen=True)
class DatasetPart:
    """The pictures of one part of the split, as MLflow shows a dataset.

    Attributes:
        part: The part.
        name: Name of the dataset.
        digest: Digest of pictures and split; MLflow stores the first 36 letters.
        source: Path or address of the pictures.
        counts: Numbers, such as `{"num_rows": 4578, "NORMAL": 1180, ...}`.
    """

    part: Literal["training", "validation"]
    name: str
    digest: str
    source: str
    counts: Mapping[str, int]


def read_study(store: Store, name: str, study_id: str | None = None) -> RecordedStudy | None:
    """Return what MLflow has about a study; None if there is no such study.

    Args:
        store: MLflow.
        name: The study's name.
        study_id: The study's id if it is known. If MLflow has no study with this id, another one of this name is returned.

    Raises:
        RequestError: The MLflow experiment of this name was deleted.
    """
    client = store.client
    if (experiment := find_experiment(store, name, study_id)) is None:
        return None
    run = study_run(client, experiment.experiment_id)
    if run is None:
        return None
    experiment_yaml = None
    # The file is missing if the study's first process died before writing it.
    if has_artifact(store, run.info.run_id, Artifacts.EXPERIMENT):
        experiment_yaml = read_artifact(store, run.info.run_id, Artifacts.EXPERIMENT)
    closed = run.info.status in ("FINISHED", "FAILED")
    return RecordedStudy(run.info.run_id, experiment_yaml, dict(run.data.tags), closed)


def experiment_id(store: Store, name: str) -> str:
    """Return the id of a recorded study's MLflow experiment."""
    experiment = find_experiment(store, name)
    assert experiment is not None, name
    return str(experiment.experiment_id)


def open_study(
    store: Store,
    outbox: Outbox,
    *,
    name: str,
    engine: str,
    algorithm: str,
    version: str,
    objectives: Sequence[str],
    searched: Sequence[str],
    conditional: Collection[str] = (),
    experiment_yaml: str,
    description: str,
    extra_tags: Mapping[str, str] | None = None,
) -> StudyRun:
    """Start the run of a study, or open the run that it has.

    Args:
        store: MLflow.
        outbox: The study's outbox.
        name: The study's name, which its MLflow experiment has too.
        engine: The engine that proposes.
        algorithm: The engine's algorithm.
        version: Version of pneumo.
        objectives: The objectives, shown as columns and charts.
        searched: The hyperparameters that are searched, shown as columns.
        conditional: Those of them that some trials do not have.
        experiment_yaml: The experiment, written as an artifact.
        description: Markdown at the top of the run's page.
        extra_tags: Further tags of the study's run.

    Raises:
        RequestError: The MLflow experiment of this name was deleted.
    """
    client = store.client
    mlflow_experiment = _open_experiment(store, name, (extra_tags or {}).get(Tags.STUDY_ID))
    for key, value in view_tags(objectives, searched, conditional).items():
        client.set_experiment_tag(mlflow_experiment, key, value)
    if Tags.NOTE not in client.get_experiment(mlflow_experiment).tags:  # else it is the user's own
        client.set_experiment_tag(mlflow_experiment, Tags.NOTE, describe_experiment(mlflow_experiment, name))
    shared_tags = {
        Tags.STUDY: name,
        Tags.ENGINE: engine,
        Tags.ALGORITHM: algorithm,
        Tags.VERSION: version,
        Tags.USER: user_name(),
        Tags.SOURCE_NAME: "pneumo.search",
        Tags.SOURCE_TYPE: "LOCAL",
    }
    tags = shared_tags | {Tags.ROLE: "study", Tags.NOTE: description} | dict(extra_tags or {})
    run, newest, best_run = study_run(client, mlflow_experiment), 0, None
    if run is None:
        run_id = client.create_run(mlflow_experiment, tags=tags, run_name=name).info.run_id
    else:
        run_id, best_run = run.info.run_id, run.data.tags.get(Tags.BEST_RUN)
        client.update_run(run_id, status="RUNNING")
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        times = (point.timestamp for metric in run.data.metrics for point in client.get_metric_history(run_id, metric))
        newest = max(times, default=0)
    client.log_text(run_id, experiment_yaml, Artifacts.EXPERIMENT)
    return StudyRun(store, outbox, mlflow_experiment, run_id, run is not None, shared_tags, newest, best_run)


def start_trial(
    study: StudyRun,
    number: int,
    parameters: Mapping[str, Value],
    seed: int,
    pictures: Sequence[DatasetPart] = (),
    experiment_yaml: str | None = None,
    role: Role = "trial",
    extra_tags: Mapping[str, str] | None = None,
    *,
    close_earlier: bool = False,
) -> str:
    """Append the start of a trial's run, and return the run's key.

    Args:
        study: The study.
        number: Number of the trial, also for a confirmation of it.
        parameters: The trial's hyperparameters.
        seed: The seed that it is trained with.
        pictures: The pictures that it is trained on.
        experiment_yaml: The experiment, written as an artifact.
        role: `confirm` if the trial is trained again with another seed.
        extra_tags: Further tags of the run.
        close_earlier: Whether runs of this trial that another search left RUNNING are closed as killed.
    """
    outbox, key = study.outbox, new_key()
    name = f"trial-{number:04d}" if role == "trial" else f"confirm-{number:04d}-seed-{seed}"
    tags = {
        **study.tags,
        Tags.ROLE: role,
        Tags.TRIAL: str(number),
        Tags.PARENT: study.run_id,
        **(extra_tags or {}),
    }
    params = {parameter: format_parameter(value) for parameter, value in parameters.items()}
    operations: list[Operation] = [
        CreateRun(study.experiment_id, name, now(), tags),
        *([CloseEarlier()] if close_earlier else []),
        LogBatch(params=params | {Params.SEED: str(seed)}),
    ]
    if pictures:
        operations.append(LogInputs([_used_dataset(part) for part in pictures]))
    outbox.append(key, *operations)
    if experiment_yaml:
        outbox.append_files(key, {Artifacts.EXPERIMENT: experiment_yaml})
    return key


def end_trial(study: StudyRun, run: str, end: End, error: str | None = None) -> None:
    """Append the end of a trial's run, given by its id or key.

    The run's status follows from `end`. The model of a killed trial is deleted.
    """
    tags: dict[str, str] = {} if end == "killed" else {Tags.STATE: end}
    if error:
        tags[Tags.ERROR] = error[:_LONGEST_TAG]
    operations: list[Operation] = [LogBatch(tags=tags)] if tags else []
    if end == "killed":
        operations.append(DiscardModel())
    study.outbox.append(run, *operations, SetTerminated(STATUS[end], now()))


def close_left_over(study: StudyRun, finished: Mapping[str, tuple[End, str | None]]) -> list[str]:
    """Close the trials' runs that are still RUNNING because their process died, and return their ids.

    Call it only while no other process works on the study: every run that is RUNNING is taken for left over.

    Args:
        study: The study.
        finished: End and error of the finished trials, by the id of their run; or by its key if MLflow created the run after
            the trial had started. Runs of other trials are closed as killed.
    """
    running = list(_children(study.store.client, study.experiment_id, study.run_id, "attributes.status = 'RUNNING'"))
    for run in running:
        names = (run.info.run_id, run.data.tags.get(Tags.KEY, ""))
        end, error = next((finished[name] for name in names if name in finished), ("killed", None))
        end_trial(study, run.info.run_id, end, error)
    return [run.info.run_id for run in running]


def trial_runs(store: Store, name: str, role: Role = "trial") -> list[RecordedRun]:
    """Return the child runs of a recorded study that have a role, by number and start."""
    mlflow_experiment = experiment_id(store, name)
    study = study_run(store.client, mlflow_experiment)
    assert study is not None, name
    children = _children(store.client, mlflow_experiment, study.info.run_id, f"tags.`{Tags.ROLE}` = '{role}'")
    return sorted(map(recorded_run, children), key=lambda run: run.number)


def confirmations(store: Store, name: str) -> list[RecordedRun]:
    """Return the runs of a recorded study's complete confirmations."""
    return [run for run in trial_runs(store, name, "confirm") if run.state == "complete"]


def end_study(
    study: StudyRun,
    status: Status,
    *,
    metrics: Mapping[str, float],
    artifacts: Mapping[str, str | bytes],
    description: str | None = None,
    best_run_id: str | None = None,
    reason: str | None = None,
) -> None:
    """Append the end of a study's run.

    Args:
        study: The study.
        status: MLflow's status.
        metrics: Metrics of the study.
        artifacts: Plots and tables, by path in the run.
        description: Markdown at the top of the run's page; None to leave it as it is.
        best_run_id: Run of the best trial.
        reason: Why the search ended.
    """
    outbox = study.outbox
    tags = {Tags.NOTE: description, Tags.BEST_RUN: best_run_id, Tags.ENDED: reason}
    points = metric_points(metrics, 0, after=study.newest)
    outbox.append(study.run_id, LogBatch(points, tags={key: value for key, value in tags.items() if value}))
    outbox.append_files(study.run_id, artifacts)
    outbox.append(study.run_id, SetTerminated(status, now()))


def _open_experiment(store: Store, name: str, study_id: str | None) -> str:
    """Return the id of the study's MLflow experiment, which is created if it is missing."""
    experiment = find_experiment(store, name, study_id)
    if experiment is None:
        try:
            return str(store.client.create_experiment(name))
        except MlflowException:
            # Another process may have created it in the meantime.
            experiment = find_experiment(store, name)
            if experiment is None:
                raise
    return str(experiment.experiment_id)


def _children(client: MlflowClient, experiment_id: str, run_id: str, condition: str) -> Iterator[Run]:
    return runs_of(client, experiment_id, f"tags.`{Tags.PARENT}` = '{run_id}' and {condition}")


def _used_dataset(pictures: DatasetPart) -> UsedDataset:
    dataset = {
        "name": pictures.name,
        "digest": pictures.digest[:_LONGEST_DIGEST],
        "source_type": "local",
        "source": json.dumps({"uri": pictures.source}),
        "profile": json.dumps(dict(pictures.counts)),
    }
    return UsedDataset(pictures.part, dataset)
