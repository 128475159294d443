"""What is checked before a study starts or is resumed: leaks, the same experiment, the same pictures, the disk."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pneumo.compute import disk
from pneumo.compute.footprint import SizeEstimate, pictures_bytes, trials_bytes
from pneumo.console.command import program_path
from pneumo.spec.compute import ComputeSpec
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import setting_changes
from pneumo.spec.masking import mask_passwords
from pneumo.spec.names import Tags
from pneumo.spec.objective import objective_metric, objective_values
from pneumo.spec.result import PARTS, Trial, TrialResult
from pneumo.spec.search import SearchSpec
from pneumo.spec.sources import source_of_path
from pneumo.spec.wording import count_of

if TYPE_CHECKING:
    from pneumo.data.audit import Finding
    from pneumo.data.pictures import Source
    from pneumo.data.prepare import Prepared
    from pneumo.engines.protocol import Engine
    from pneumo.tracking.store import Store
    from pneumo.tracking.study import RecordedStudy

MOST_LEAKS = 10
"""Leaks that the refusal of a study names."""

MOST_CHANGES = 2
"""Changed settings that the refusal of a study names."""


def check_databases(storage: str) -> None:
    """Check that MLflow and the studies each have a database of their own, which outlives the process.

    Nothing is opened. A database that is known to MLflow and to the studies by different names is refused when it is opened.

    Args:
        storage: URL of the database of the studies.

    Raises:
        RequestError: They share one, or one of them is in memory.
    """
    from pneumo.engines.storage_url import parse_storage_url
    from pneumo.spec.databases import is_same_database
    from pneumo.tracking.store import store_database

    studies, runs = parse_storage_url(storage), store_database()
    if runs is not None and is_same_database(studies, runs):
        raise RequestError(
            f"--storage: {mask_passwords(storage)} is MLflow's database too (MLFLOW_TRACKING_URI), and each needs one of "
            "its own; change one of the two, or leave it out"
        )


def check_shared(search: SearchSpec, storage: str) -> None:
    """Check that searches which share their study have one database and one MLflow.

    Raises:
        RequestError: The studies' database is not PostgreSQL, or MLflow is not a server.
    """
    from pneumo.engines.shared_study import check_can_be_shared
    from pneumo.tracking.store import store_database

    if not search.shared:
        return
    check_can_be_shared(storage)
    if store_database() is not None:
        raise RequestError(
            "MLFLOW_TRACKING_URI: searches that share a study (search.shared) record it on one MLflow server, and this is "
            "none; set MLFLOW_TRACKING_URI=http://HOST:PORT, or leave search.shared out"
        )


def check_common_folder(compute: ComputeSpec) -> None:
    """Check that `compute.shared` is a folder, or can become one, in which this user may write. Nothing is created.

    Raises:
        RequestError: It is no folder, or this user may not write there.
    """
    if compute.shared is None:
        return
    folder = Path(compute.shared).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    reason = None
    if not there.is_dir():
        reason = f"{there} is no folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        reason = "this user may not write there"
    if reason:
        raise RequestError(
            f"compute.shared: {compute.shared} cannot be written: {reason}; give a folder that all machines see under this "
            "path, or leave compute.shared out"
        )


def check_leaks(source: Source, experiment: Experiment) -> tuple[Finding, ...]:
    """Return what is known to be wrong with the pictures, before one of them is decoded.

    The findings are those of the last full audit of the same pictures, or else what file names and content digests tell.

    Raises:
        RequestError: Training pictures are in the sealed test set too, and `data.allow_leaks` does not say why the study
            may start.
    """
    from pneumo.data.audit import last_audit, leaks, quick_findings

    audit = last_audit(source)
    findings = audit.findings if audit else quick_findings(source)
    leaking = leaks(findings)
    if leaking and experiment.data.allow_leaks is None:
        messages = "; ".join(finding.message for finding in leaking[:MOST_LEAKS])
        more = f"; and {len(leaking) - MOST_LEAKS} more" if len(leaking) > MOST_LEAKS else ""
        raise RequestError(
            f"{source.description}: training and test pictures leak into each other, so a test figure would mean "
            f"nothing: {messages}{more}; remove them ({audit_command(experiment)} lists them all), or say in the "
            f"experiment why the study may start: data: {{allow_leaks: REASON}}"
        )
    return findings


def audit_command(experiment: Experiment) -> str:
    """Return the command that audits the experiment's pictures."""
    command = [program_path("python"), "-m", "pneumo.data", "audit", experiment.data.path or ""]
    if experiment.data.source != source_of_path(experiment.data.path or ""):
        command += ["--source", experiment.data.source]
    if experiment.data.classes:
        command += ["--classes", ",".join(experiment.data.classes)]
    return shlex.join(command)


def check_same_study(store: Store, recorded: RecordedStudy | None, name: str, engine: Engine, finished: int) -> None:
    """Check that MLflow's record and the engine's state are of one study.

    Args:
        store: MLflow.
        recorded: What MLflow holds of the study; None if it holds nothing.
        name: The study's name.
        engine: The study's engine.
        finished: How many finished trials the engine has.

    Raises:
        RequestError: They are not, or the study's run was deleted.
    """
    from pneumo.tracking.find import explain_missing

    if finished and (recorded is None or recorded.tags.get(Tags.STUDY_ID) != engine.id):
        explain_missing(store, name, engine.id)
    if recorded is None and finished:
        raise RequestError(
            f"study {name}: its {count_of(finished, 'trial')} {'is' if finished == 1 else 'are'} in the study's database but "
            "not in this MLflow store; "
            f"set MLFLOW_TRACKING_URI to the store that has them, or choose another --name"
        )
    if recorded is not None and recorded.tags.get(Tags.STUDY_ID) != engine.id:
        raise RequestError(
            f"study {name}: MLflow has a study of this name whose trials are in another database; "
            f"give the --storage that has them, or choose another --name"
        )


def check_same_experiment(recorded: RecordedStudy | None, experiment: Experiment, finished: int) -> None:
    """Check that a study with finished trials is resumed with the experiment that it began with.

    Raises:
        RequestError: Settings differ; the message names the first ones.
    """
    if not finished or recorded is None or recorded.experiment_yaml is None:
        return
    before, now = yaml.safe_load(recorded.experiment_yaml), yaml.safe_load(experiment.to_yaml())
    if changes := setting_changes(before, now):
        more = f", and {len(changes) - MOST_CHANGES} more" if len(changes) > MOST_CHANGES else ""
        # A study can learn from one with other validation pictures by no means.
        same_validation = not any(change.startswith(("data.", "search.seed ")) for change in changes)
        advice = (
            f"; with --set search.from={experiment.name} the new study learns from the trials of this one that lie in its "
            "space"
        )
        raise RequestError(
            f"study {experiment.name}: it began with another experiment: {'; '.join(changes[:MOST_CHANGES])}{more}; "
            f"change it back, or choose another --name{advice if same_validation else ''}"
        )


def check_same_data(recorded: RecordedStudy | None, data: Prepared, name: str, finished: int) -> None:
    """Check that a study with finished trials is resumed on the pictures that it began with.

    Raises:
        RequestError: The pictures of a part differ.
    """
    for part in PARTS:
        before = recorded.tags.get(Tags.data(part)) if recorded else None
        known_before = recorded.tags.get(Tags.DATA_PATIENTS, "not recorded") if recorded else ""
        if finished and before not in (None, data.digest(part)):
            raise RequestError(
                f"study {name}: its {part} pictures are not the ones that it began with (the digest was {before}, now it "
                f"is {data.digest(part)}: a picture was added, removed or changed, or the patients are known in another way: "
                f"before {known_before}, now {data.patients_known}); give the same --data, or choose another --name"
            )


def check_earlier_study(name: str, recorded: RecordedStudy | None, trials: Sequence[Trial], data: Prepared) -> None:
    """Check that the study can learn from the study `name`.

    Args:
        name: The earlier study, from `search.from`.
        recorded: What MLflow holds of it.
        trials: Its finished trials.
        data: The pictures of the new study.

    Raises:
        RequestError: There is no such study, or it was validated on other pictures.
    """
    if not trials:
        raise RequestError(f"search.from: there is no study {name!r} with finished trials in this storage")
    before = recorded.tags.get(Tags.data("validation")) if recorded else None
    if before != data.digest("validation"):
        raise RequestError(
            f"search.from: study {name} has other validation pictures (digest {before}, here "
            f"{data.digest('validation')}), so its values cannot be compared; give the same data, validation and seed"
        )


def usable_trials(trials: Sequence[Trial], experiment: Experiment) -> list[Trial]:
    """Return the complete trials of an earlier study that have all values and lie in this study's space.

    Their values are those of this study's first objective, also if the earlier study had another.
    """
    objectives, space = experiment.search.objectives, experiment.space
    compared = [
        replace(trial, result=_with_value(trial.result, objectives[0]))
        for trial in trials
        if trial.result.state == "complete" and space.contains(trial.candidate.hyperparameters)
    ]
    return [trial for trial in compared if objective_values(trial.result, objectives) is not None]


def _with_value(result: TrialResult, objective: str) -> TrialResult:
    """Return a complete trial's result with its value of an objective, and without what it reported of another."""
    value = result.metrics.get(objective_metric(objective))
    return result if value == result.value else replace(result, value=value, history=())


def check_disk(experiment: Experiment, source: Source, finished: int) -> None:
    """Warn on standard error if the study may not fit on the disk.

    Raises:
        RequestError: It cannot fit.
    """
    for line in disk.check_space(disk_needs(experiment, source, finished)):
        print(line, file=sys.stderr)


def disk_needs(experiment: Experiment, source: Source, finished: int = 0) -> list[disk.SpaceNeed]:
    """Return what the study will write, and where. `finished` is its number of finished trials."""
    from pneumo.data.cache import cache_root
    from pneumo.data.prepare import sizes_to_decode

    decoded = pictures_bytes(len(source.pictures), sizes_to_decode(source, experiment.image_sizes))
    needs = [disk.SpaceNeed(cache_root(), SizeEstimate("decoded pictures", decoded, decoded))]
    models, *others = trials_bytes(experiment, finished)
    # An MLflow server stores models where it likes. Only those that wait for it lie here.
    is_server = os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http")
    return needs + [disk.SpaceNeed(Path("mlruns"), size) for size in ([] if is_server else [models]) + others]
