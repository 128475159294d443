"""What a storage holds of a study, whichever engine ran it, read without writing anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import sqlalchemy
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from pneumo.engines.journal import finished_journal_trials as told_in_journal
from pneumo.engines.journal import read_journal
from pneumo.engines.optuna_storage import EXPERIMENT, ID, LEARNED, RESULT, finished_optuna_trials
from pneumo.engines.study_lock import storage_url, unusable
from pneumo.spec.result import Trial


@dataclass(frozen=True)
class StoredStudy:
    """A study as its engine keeps it.

    `experiment` is resolved YAML. `numbers` are of all that was proposed, told or not, as they stand there; `trials` those
    that were told; `lost` the numbers of trials that the engine holds for finished and of which it has no result.
    """

    id: str
    experiment: str
    numbers: tuple[int, ...]
    trials: tuple[Trial, ...]
    lost: tuple[int, ...] = ()


def stored_studies(name: str, storage: str) -> tuple[StoredStudy, ...]:
    """The studies of this name: none, one, or one of each engine. Creates nothing.

    Raises `RequestError` where the storage cannot be read.
    """
    url = storage_url(storage)
    try:
        return (*_of_optuna(name, url), *_of_keras_tuner(name, url))
    except (SQLAlchemyError, optuna.exceptions.OptunaError, OSError, ImportError, RuntimeError) as error:
        raise unusable(url, error) from None


def _of_optuna(name: str, url: URL) -> Iterator[StoredStudy]:
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return
    database = sqlalchemy.create_engine(url)
    there = sqlalchemy.inspect(database).has_table("studies")
    database.dispose()
    if not there:
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url.render_as_string(hide_password=False), skip_table_creation=True)
    if name not in optuna.get_all_study_names(storage):
        return
    study = optuna.load_study(study_name=name, storage=storage)
    trials = study.get_trials(deepcopy=False)
    learned = sum(LEARNED in trial.user_attrs for trial in trials)
    own = [trial for trial in trials if LEARNED not in trial.user_attrs]
    yield StoredStudy(
        study.user_attrs.get(ID, ""),
        study.user_attrs.get(EXPERIMENT, ""),
        tuple(trial.number - learned for trial in own),
        finished_optuna_trials(study, frozenset()),
        tuple(t.number - learned for t in own if t.state.is_finished() and RESULT not in t.user_attrs),
    )


def _of_keras_tuner(name: str, url: URL) -> Iterator[StoredStudy]:
    if url.get_backend_name() != "sqlite" or not url.database:
        return
    if journal := read_journal(Path(url.database).with_suffix(".keras-tuner") / name):
        numbers = tuple(proposal.candidate.number for proposal in journal.proposals)
        yield StoredStudy(journal.id, journal.experiment, numbers, told_in_journal(journal.proposals))
