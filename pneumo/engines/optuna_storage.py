"""A study in Optuna's storage: opened, or only read."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from sqlalchemy.exc import SQLAlchemyError

from pneumo.engines.samplers import pruner
from pneumo.engines.study_lock import storage_url, unusable
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.result import Trial, TrialResult

HYPERPARAMETERS, STOPPED, RESULT = "pneumo.hyperparameters", "pneumo.stopped", "pneumo.result"
"""User attributes of an Optuna trial: all its active hyperparameters, the epoch at which it was pruned, its result."""

LEARNED = "pneumo.learned"
"""User attribute of an Optuna trial that an earlier study ran: it has no number of ours."""

ID, EXPERIMENT = "pneumo.id", "pneumo.experiment"
"""User attributes of an Optuna study: a random id that MLflow's record of it carries too, the resolved experiment."""


def open_optuna_study(experiment: Experiment, storage: str) -> optuna.Study:
    """The study of this name, or a new one; one in which nothing was told yet is made anew if the experiment changed.

    Raises `RequestError` where the storage cannot be opened.
    """
    with _database(storage) as database:
        resolved = experiment.to_yaml()
        identity = uuid.uuid4().hex
        if experiment.name in optuna.get_all_study_names(database):
            study = optuna.load_study(study_name=experiment.name, storage=database, pruner=pruner(experiment))
            told = any(RESULT in trial.user_attrs for trial in study.get_trials(deepcopy=False))
            if told or study.user_attrs.get(EXPERIMENT) == resolved:
                return study
            identity = study.user_attrs.get(ID, identity)
            optuna.delete_study(study_name=experiment.name, storage=database)
        study = optuna.create_study(
            study_name=experiment.name,
            storage=database,
            directions=[OBJECTIVES[objective] for objective in experiment.search.objectives],
            pruner=pruner(experiment),
        )
        study.set_user_attr(ID, identity)
        study.set_user_attr(EXPERIMENT, resolved)
    return study


def read_optuna_trials(name: str, storage: str) -> tuple[Trial, ...]:
    """The told trials of a study; none where there is no study of this name. Raises `RequestError` as `open_study` does."""
    with _database(storage) as database:
        if name not in optuna.get_all_study_names(database):
            return ()
        return finished_optuna_trials(optuna.load_study(study_name=name, storage=database), frozenset())


def read_id(name: str, storage: str) -> str | None:
    """The id of a study; None where there is none of this name. Raises what the database raises, and makes nothing."""
    url = storage_url(storage)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        raise FileNotFoundError(errno.ENOENT, "the file is not there", url.database)
    database = optuna.storages.RDBStorage(storage, skip_compatibility_check=True, skip_table_creation=True)
    try:
        if name not in optuna.get_all_study_names(database):
            return None
        identity = optuna.load_study(study_name=name, storage=database).user_attrs.get(ID)
    finally:
        database.engine.dispose()
    return None if identity is None else str(identity)


def finished_optuna_trials(study: optuna.Study, searched: frozenset[str]) -> tuple[Trial, ...]:
    """The trials of a study that have a result, by number. `searched` are the names of what it searches."""
    trials = study.get_trials(deepcopy=False)
    learned = sum(LEARNED in trial.user_attrs for trial in trials)
    found = []
    for frozen in trials[learned:]:
        if frozen.state.is_finished() and RESULT in frozen.user_attrs:
            values = frozen.user_attrs[HYPERPARAMETERS]
            candidate = Candidate(frozen.number - learned, values, searched & set(values))
            found.append(Trial(candidate, TrialResult.from_json(frozen.user_attrs[RESULT])))
    return tuple(sorted(found, key=lambda trial: trial.number))


@contextmanager
def _database(storage: str) -> Iterator[optuna.storages.RDBStorage]:
    """The storage at an address, and `RequestError` for what it raises while it is opened and read."""
    url = storage_url(storage)
    try:
        if url.get_backend_name() == "sqlite" and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        yield optuna.storages.RDBStorage(storage)
    except (SQLAlchemyError, optuna.exceptions.OptunaError, OSError, ImportError, RuntimeError) as error:
        raise unusable(url, error) from None
