"""Keras Tuner's studies on disk, opened and read without importing Keras Tuner itself."""

from __future__ import annotations

from pathlib import Path

from pneumo.engines.engine_table import EngineKind
from pneumo.engines.journal import finished_journal_trials, read_journal
from pneumo.engines.protocol import Engine
from pneumo.engines.storage_url import parse_storage_url
from pneumo.engines.stored import StoredStudy
from pneumo.spec.databases import sqlite_file
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment


def study_folder(name: str, storage: str) -> Path:
    """Return the folder of a study, which lies beside the SQLite database that `storage` names.

    Raises:
        RequestError: `storage` is not an SQLite database in a file.
    """
    if (database := sqlite_file(parse_storage_url(storage))) is None:
        raise RequestError(
            "--storage: engine keras-tuner stores its studies in files beside an SQLite database; leave --storage out, or "
            "use engine optuna"
        )
    return database.with_suffix(".keras-tuner") / name


def _open(experiment: Experiment, storage: str) -> Engine:
    folder = study_folder(experiment.name, storage)

    from pneumo.engines.keras_tuner_engine import KerasTunerEngine  # imports TensorFlow, which takes seconds

    return KerasTunerEngine(experiment, folder)


def _read_id(name: str, storage: str) -> str | None:
    journal = read_journal(study_folder(name, storage))
    return journal.id if journal else None


def _read_study(name: str, storage: str) -> StoredStudy | None:
    if sqlite_file(parse_storage_url(storage)) is None:
        return None
    journal = read_journal(study_folder(name, storage))
    if journal is None:
        return None
    numbers = tuple(proposal.candidate.number for proposal in journal.proposals)
    return StoredStudy(journal.id, journal.experiment, numbers, finished_journal_trials(journal.proposals))


def _describe_storage(name: str, storage: str) -> str:
    return f"the study's folder {study_folder(name, storage)}"


KIND = EngineKind(_open, _read_id, _read_study, _describe_storage)
