"""Read a whole study from MLflow, for its report."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from mlflow import MlflowClient
from mlflow.entities import Run

from pneumo.spec.candidate import Candidate
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import parse_experiment
from pneumo.spec.hyperparameters import NAMES
from pneumo.spec.names import Artifacts, Tags
from pneumo.spec.objective import epoch_metric, epoch_objective, objective_metric
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.run import RecordedRun, parse_parameter
from pneumo.spec.study_record import RecordedFinding, StudyRecord
from pneumo.tracking.find import explain_missing, find_experiment, study_run
from pneumo.tracking.runs import has_artifact, read_artifact, recorded_run, runs_of
from pneumo.tracking.store import Store

_STATES = ("complete", "pruned", "failed")

_LARGEST_FILE = 4_000_000
"""Largest size in bytes of an artifact that is read."""


def read_study_record(store: Store, name: str, trials: Sequence[Trial] | None = None) -> StudyRecord:
    """Return all that MLflow has about a study.

    Args:
        store: MLflow.
        name: The study's name.
        trials: The finished trials with the ids of their runs, if they are known; otherwise they are read from MLflow.

    Raises:
        RequestError: There is no such study, or it was killed before its experiment was written.
        MlflowException: MLflow does not answer.
    """
    client = store.client
    mlflow_experiment = find_experiment(store, name)
    study = study_run(client, mlflow_experiment.experiment_id) if mlflow_experiment else None
    if mlflow_experiment is None or study is None:
        explain_missing(store, name)
        raise RequestError(f"{name}: there is no such study in {store.display_uri}; give the name of a study")
    run_id, experiment_id = study.info.run_id, str(mlflow_experiment.experiment_id)
    if not has_artifact(store, run_id, Artifacts.EXPERIMENT):
        raise RequestError(
            f"study {name}: its run has no experiment.yaml; the search was killed before its first trial"
        )
    experiment = parse_experiment(read_artifact(store, run_id, Artifacts.EXPERIMENT), f"study {name}")
    children = [r for r in runs_of(client, experiment_id) if r.data.tags.get(Tags.PARENT) == run_id]
    recorded = [recorded_run(run) for run in children]
    ended = {run.number: run for run in recorded if run.role == "trial" and run.state in _STATES}
    if trials is None:
        trials = [_trial(client, run, experiment) for _, run in sorted(ended.items())]
    trainings = [run for run in recorded if run.role in ("trial", "confirm")]
    record = StudyRecord(
        experiment=experiment,
        run=recorded_run(study),
        trials=tuple(sorted(trials, key=lambda trial: trial.number)),
        runs=ended,
        confirmation_runs=[run for run in trainings if run.role == "confirm" and run.state == "complete"],
        interrupted=sum(run.status == "KILLED" for run in trainings),
        findings=_findings(store, run_id),
        counts=next((counts for run in children if (counts := _counts(run))), {}),
        page=_run_pages(store, experiment_id),
    )
    shown = {trial.number: trial for trial in (record.best, record.baseline) if trial}
    files = {
        number: contents
        for number, trial in shown.items()
        if (contents := _files(client, trial.result.run_id, plots=trial is record.best))
    }
    return replace(record, files=files)


def _trial(client: MlflowClient, run: RecordedRun, experiment: Experiment) -> Trial:
    objectives = experiment.search.objectives
    hyperparameters = {name: parse_parameter(name, run.parameters[name]) for name in NAMES if name in run.parameters}
    searched = frozenset(dimension.name for dimension in experiment.space.searched) & set(hyperparameters)
    points = client.get_metric_history(run.run_id, epoch_metric(epoch_objective(objectives)))
    history = {point.step: point.value for point in points}
    continues = run.tags.get(Tags.RESUMED_FROM)
    value = run.metrics.get(objective_metric(objectives[0]))
    result = TrialResult(
        run.number,
        run.run_id,
        run.state or "failed",  # type: ignore[arg-type]
        None if value is None or run.state == "failed" or not math.isfinite(value) else value,
        run.metrics,
        tuple(history[step] for step in sorted(history)),
        run.tags.get(Tags.ERROR),
        run.started / 1000,
        (run.ended or run.started) / 1000,
    )
    candidate = Candidate(
        run.number,
        hyperparameters,
        searched,
        first_epoch=min(history, default=1) - 1 if continues else 0,
        resume_from=int(continues) if continues else None,
    )
    return Trial(candidate, result)


def _findings(store: Store, run_id: str) -> list[RecordedFinding]:
    if not has_artifact(store, run_id, Artifacts.AUDIT):
        return []
    findings = json.loads(read_artifact(store, run_id, Artifacts.AUDIT)).get("findings", [])
    return [
        RecordedFinding(row["kind"], row["severity"], row["message"], len(row.get("pictures", ()))) for row in findings
    ]


def _counts(run: Run) -> dict[str, Mapping[str, int]]:
    counts: dict[str, Mapping[str, int]] = {}
    for dataset_input in run.inputs.dataset_inputs if run.inputs else []:
        part = next((tag.value for tag in dataset_input.tags if tag.key == Tags.DATASET_CONTEXT), "")
        counts[part] = json.loads(dataset_input.dataset.profile or "{}")
    return counts


def _files(client: MlflowClient, run_id: str, *, plots: bool) -> dict[str, bytes]:
    """Return the artifacts of a run by their path: those at its top, and the plots if they are asked for."""
    listed = list(client.list_artifacts(run_id))
    if plots:
        listed += [file for folder in listed if folder.is_dir for file in client.list_artifacts(run_id, folder.path)]
    contents = {}
    with tempfile.TemporaryDirectory() as folder:
        for file in listed:
            if not file.is_dir and (file.file_size or 0) <= _LARGEST_FILE:
                contents[file.path] = Path(client.download_artifacts(run_id, file.path, folder)).read_bytes()
    return contents


def _run_pages(store: Store, experiment_id: str) -> str | None:
    """Return the address to which a run's id is appended, without a password; None if MLflow is not a server."""
    parts = urlsplit(store.uri)
    if parts.scheme not in ("http", "https"):
        return None
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", "")) + f"/#/experiments/{experiment_id}/runs/"
