"""The driver's side: one MLflow experiment a study, one parent run for it, a child run for each trial.

A study is opened in MLflow itself, which must be there then; all that is written later goes by the study's outbox.
Every call names its run; there is no active run. The names of tags, parameters and metrics are a contract with those
who read them (README, "What a study leaves in MLflow").
"""

from __future__ import annotations

import getpass
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from pneumo.spec.errors import RequestError
from pneumo.spec.hyperparameters import Value
from pneumo.spec.names import Artifacts, Params, Tags
from pneumo.spec.run import STATUS, End, RecordedRun, Role, Status, format_parameter
from pneumo.tracking.outbox import Outbox, fill, new_key, now, timed
from pneumo.tracking.store import Store, pages
from pneumo.tracking.views import view_tags

_LONGEST_TAG = 5000  # MLflow keeps 8,000 letters, its servers before 2.15 keep 5,000
_LONGEST_DIGEST = 36


@dataclass(frozen=True)
class StudyRun:
    """A study's run, under way. `outbox` takes what is written; `tags` are those that the run shares with its trials.

    `newest` is the time of the last of its metrics when it was taken up, in milliseconds since 1970.
    """

    store: Store
    outbox: Outbox
    experiment_id: str
    run_id: str
    resumed: bool
    tags: Mapping[str, str]
    newest: int = 0


@dataclass(frozen=True)
class RecordedStudy:
    """What a study's run says of how the study was started, and whether it was closed."""

    run_id: str
    experiment_yaml: str | None
    tags: Mapping[str, str]
    closed: bool


@dataclass(frozen=True)
class DatasetPart:
    """The pictures of one part of the split, as MLflow shows a dataset.

    `digest` covers pictures and split, at most 36 letters are kept. `source` is a path or an address, `counts` what
    there is of what (`{"num_rows": 4578, "NORMAL": 1180, ...}`).
    """

    part: Literal["training", "validation"]
    name: str
    digest: str
    source: str
    counts: Mapping[str, int]


def recorded(store: Store, name: str) -> RecordedStudy | None:
    """What MLflow holds of a study of this name; None where there is no such study.

    Raises `RequestError` where MLflow's experiment of this name has been deleted.
    """
    client = store.client
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return None
    check_active(store, experiment)
    run = _parent(client, experiment.experiment_id)
    if run is None:
        return None
    text = None
    # Without it, the study's first process died before it wrote the file.
    if any(file.path == Artifacts.EXPERIMENT for file in client.list_artifacts(run.info.run_id)):
        text = artifact(store, run.info.run_id, Artifacts.EXPERIMENT)
    return RecordedStudy(run.info.run_id, text, dict(run.data.tags), run.info.status in ("FINISHED", "FAILED"))


def artifact(store: Store, run_id: str, name: str) -> str:
    """A text file of a run. Raises `RequestError` where it is not there, or not to be had."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            return Path(store.client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"{run_id}: its artifact {name} cannot be had: {reason}") from None


def model_of(store: Store, run_id: str) -> str | None:
    """The id of the model that a run logged; None where it logged none."""
    outputs = store.client.get_run(run_id).outputs
    return str(outputs.model_outputs[0].model_id) if outputs and outputs.model_outputs else None


def experiment_id(store: Store, name: str) -> str:
    """The id of a recorded study's MLflow experiment."""
    experiment = store.client.get_experiment_by_name(name)
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
    experiment_yaml: str,
    description: str,
    extra_tags: Mapping[str, str] | None = None,
) -> StudyRun:
    """Starts a study's run, or takes up the one that is there.

    `searched` names the hyperparameters that vary, which become columns. `description` is Markdown. Raises
    `RequestError` where MLflow's experiment of this name has been deleted.
    """
    client = store.client
    in_experiment = _experiment(store, name)
    for key, value in view_tags(objectives, searched).items():
        client.set_experiment_tag(in_experiment, key, value)
    shared = {
        Tags.STUDY: name,
        Tags.ENGINE: engine,
        Tags.ALGORITHM: algorithm,
        Tags.VERSION: version,
        Tags.USER: user(),
        Tags.SOURCE_NAME: "pneumo.search",
        Tags.SOURCE_TYPE: "LOCAL",
    }
    own = {Tags.ROLE: "study", Tags.NOTE: description} | dict(extra_tags or {})
    run, newest = _parent(client, in_experiment), 0
    if run is None:
        run_id = client.create_run(in_experiment, tags=shared | own, run_name=name).info.run_id
    else:
        run_id = run.info.run_id
        client.update_run(run_id, status="RUNNING")
        client.log_batch(run_id, tags=_tags(shared | own))
        times = (m.timestamp for name in run.data.metrics for m in client.get_metric_history(run_id, name))
        newest = max(times, default=0)
    client.log_text(run_id, experiment_yaml, Artifacts.EXPERIMENT)
    return StudyRun(store, outbox, in_experiment, run_id, run is not None, shared, newest)


def start_trial(
    study: StudyRun,
    number: int,
    parameters: Mapping[str, Value],
    seed: int,
    pictures: Sequence[DatasetPart] = (),
    experiment_yaml: str | None = None,
    role: Role = "trial",
    extra_tags: Mapping[str, str] | None = None,
) -> str:
    """Starts a trial's run and says what it is about to do. Returns the key that the run goes by.

    With role `confirm` it is trial `number` once more, with another seed.
    """
    outbox, key = study.outbox, new_key()
    own = {Tags.ROLE: role, Tags.TRIAL: str(number), Tags.PARENT: study.run_id}
    name = f"trial-{number:04d}" if role == "trial" else f"confirm-{number:04d}-seed-{seed}"
    tags = {**study.tags, **own, **(extra_tags or {})}
    outbox.append(key, "create_run", experiment_id=study.experiment_id, name=name, start_time=now(), tags=tags)
    params = {name: format_parameter(value) for name, value in parameters.items()}
    outbox.append(key, "log_batch", params=params | {Params.SEED: str(seed)})
    if pictures:
        outbox.append(key, "log_inputs", datasets=[_input(one) for one in pictures])
    if experiment_yaml:
        outbox.append_files(key, {Artifacts.EXPERIMENT: experiment_yaml})
    return key


def end_trial(study: StudyRun, run: str, end: End, error: str | None = None) -> None:
    """Closes a trial's run, by its id or its key, with the status that follows from how it ended.

    What a killed one has left of a model is removed.
    """
    tags: dict[str, str] = {} if end == "killed" else {Tags.STATE: end}
    if error:
        tags[Tags.ERROR] = error[:_LONGEST_TAG]
    if tags:
        study.outbox.append(run, "log_batch", tags=tags)
    if end == "killed":
        study.outbox.append(run, "discard_model")
    study.outbox.append(run, "set_terminated", status=STATUS[end], end_time=now())


def close_left_over(study: StudyRun, known: Mapping[str, tuple[End, str | None]]) -> list[str]:
    """Closes the trials' runs that a process left RUNNING when it died: as `known` says, end and error, else as killed.

    `known` has a run's id, or its key where it was made later than the trial began. For whoever takes the study up alone:
    every run that is RUNNING counts as left over. Returns their ids.
    """
    running = "attributes.status = 'RUNNING'"
    left = list(_children(study.store.client, study.experiment_id, study.run_id, running))
    for run in left:
        named = (run.info.run_id, run.data.tags.get(Tags.KEY, ""))
        end_trial(study, run.info.run_id, *next((known[name] for name in named if name in known), ("killed", None)))
    return [run.info.run_id for run in left]


def trial_runs(store: Store, name: str, role: Role = "trial") -> list[RecordedRun]:
    """A recorded study's child runs of a role, in the order of their numbers and starts."""
    in_experiment = experiment_id(store, name)
    study = _parent(store.client, in_experiment)
    assert study is not None, name
    children = _children(store.client, in_experiment, study.info.run_id, f"tags.`{Tags.ROLE}` = '{role}'")
    return sorted((recorded_run(run) for run in children), key=lambda run: run.number)


def confirmations(store: Store, name: str) -> list[RecordedRun]:
    """The finished runs that trained a trial of a recorded study again."""
    return [run for run in trial_runs(store, name, "confirm") if run.state == "complete"]


def end_study(
    study: StudyRun,
    status: Status,
    *,
    metrics: Mapping[str, float],
    artifacts: Mapping[str, str | bytes],
    description: str | None = None,
    best_run_id: str | None = None,
) -> None:
    """Closes a study's run: `best_trial`, `best_value` and the counts as metrics, plots and tables as artifacts."""
    outbox, tags = study.outbox, {Tags.NOTE: description, Tags.BEST_RUN: best_run_id}
    said = {key: value for key, value in tags.items() if value}
    outbox.append(study.run_id, "log_batch", metrics=timed(metrics, 0, after=study.newest), tags=said)
    outbox.append_files(study.run_id, artifacts)
    outbox.append(study.run_id, "set_terminated", status=status, end_time=now())


def log_files(client: MlflowClient, run_id: str, files: Mapping[str, str | bytes]) -> None:
    """Writes artifacts, named by their path in the run (`plots/roc.png`), in one go.

    Raises `ValueError` where a name leads out of the run.
    """
    if not files:
        return
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), files)
        client.log_artifacts(run_id, folder)


def close_run(client: MlflowClient, run_id: str, status: Status) -> None:
    """Ends a run, not before its beginning, whatever the clock says."""
    began = client.get_run(run_id).info.start_time
    client.set_terminated(run_id, status, max(now(), began))


def runs_of(client: MlflowClient, experiment_id: str, condition: str = "") -> Iterator[Run]:
    """The runs of an MLflow experiment that were not deleted, by their start."""
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


def user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def check_active(store: Store, experiment: Experiment) -> None:
    """Raises `RequestError` where MLflow's experiment has been deleted."""
    if experiment.lifecycle_stage == "deleted":
        raise RequestError(
            f"study {experiment.name}: its MLflow experiment is deleted in {store.shown}; bring it back with "
            f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`, or take another name with --name"
        )


def _experiment(store: Store, name: str) -> str:
    experiment = store.client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(store.client.create_experiment(name))
        except MlflowException:
            experiment = store.client.get_experiment_by_name(name)  # another process was faster
            if experiment is None:
                raise
    check_active(store, experiment)
    return str(experiment.experiment_id)


def _parent(client: MlflowClient, experiment_id: str) -> Run | None:
    found = client.search_runs(
        [experiment_id], f"tags.`{Tags.ROLE}` = 'study'", max_results=1, order_by=["attributes.start_time ASC"]
    )
    return found[0] if found else None


def _children(client: MlflowClient, experiment_id: str, run_id: str, condition: str = "") -> Iterator[Run]:
    of_study = f"tags.`{Tags.PARENT}` = '{run_id}'"
    return runs_of(client, experiment_id, f"{of_study} and {condition}" if condition else of_study)


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


def _input(pictures: DatasetPart) -> tuple[str, dict[str, str]]:
    dataset = {
        "name": pictures.name,
        "digest": pictures.digest[:_LONGEST_DIGEST],
        "source_type": "local",
        "source": json.dumps({"uri": pictures.source}),
        "profile": json.dumps(dict(pictures.counts)),
    }
    return pictures.part, dataset


def _tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(key, value) for key, value in tags.items()]
