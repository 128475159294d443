"""A study in Optuna's database: opened for a search, or only read."""

from __future__ import annotations

import errno
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import optuna
import sqlalchemy
import yaml
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from pneumo.engines.engine_table import EngineKind
from pneumo.engines.protocol import Engine
from pneumo.engines.samplers import build_pruner
from pneumo.engines.sole_storage import SoleStorage
from pneumo.engines.storage_url import parse_storage_url, storage_error
from pneumo.engines.stored import StoredStudy
from pneumo.spec.candidate import Candidate
from pneumo.spec.databases import sqlite_file
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import is_same_experiment, setting_changes
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.result import Trial, TrialResult

HYPERPARAMETERS, STOPPED, RESULT = "pneumo.hyperparameters", "pneumo.stopped", "pneumo.result"
"""User attributes of an Optuna trial: all its active hyperparameters, the epoch at which it was pruned, its result."""

LEARNED = "pneumo.learned"
"""User attribute of an Optuna trial that was copied from an earlier study. Such a trial has no number in our study."""

SKIPPED = "pneumo.skipped"
"""User attribute of an Optuna trial that was not trained, see `SkipReason`. Such a trial has no number in our study."""

ID, EXPERIMENT = "pneumo.id", "pneumo.experiment"
"""User attributes of an Optuna study: its random id, and the resolved experiment as YAML text."""


OWNER, SESSION = "pneumo.owner", "pneumo.session"
"""What searches that share a study store: of a trial, the search that has it under way (its id, and the seconds after which
others take over its trials); of the study, when the first of these searches began, in seconds since 1970."""


def open_optuna_study(
    experiment: Experiment, storage: str, *, sole: bool = False, joining: bool = False
) -> optuna.Study:
    """Open the study of this experiment, or create it.

    A study without finished trials is created again, with the same id, if its experiment has changed.

    Args:
        experiment: The experiment.
        storage: Database URL.
        sole: Whether no other process changes the study while it is open. Then it is read faster.
        joining: Whether other searches are at work on the study, so that it must stay as it is.

    Raises:
        RequestError: The storage cannot be opened, or other searches work on the study with another experiment.
    """
    with _open_database(storage) as opened:
        database = SoleStorage(opened) if sole else opened
        experiment_yaml = experiment.to_yaml()
        study_id = uuid.uuid4().hex
        if experiment.name in optuna.get_all_study_names(database):
            study = optuna.load_study(study_name=experiment.name, storage=database, pruner=build_pruner(experiment))
            if joining:
                _check_joined_experiment(study.user_attrs.get(EXPERIMENT), experiment)
                return study
            has_results = any(RESULT in trial.user_attrs for trial in study.get_trials(deepcopy=False))
            if has_results or is_same_experiment(study.user_attrs.get(EXPERIMENT), experiment_yaml):
                if not study.metric_names:  # an earlier version created it
                    _name_objectives(study, experiment)
                return study
            study_id = study.user_attrs.get(ID, study_id)
            optuna.delete_study(study_name=experiment.name, storage=database)
        study = optuna.create_study(
            study_name=experiment.name,
            storage=database,
            directions=[OBJECTIVES[objective] for objective in experiment.search.objectives],
            pruner=build_pruner(experiment),
        )
        _name_objectives(study, experiment)
        study.set_user_attr(ID, study_id)
        study.set_user_attr(EXPERIMENT, experiment_yaml)
    return study


def _check_joined_experiment(stored: str | None, experiment: Experiment) -> None:
    """Raise `RequestError` if the searches that share a study would not have the same experiment."""
    before, now = yaml.safe_load(stored or "{}"), yaml.safe_load(experiment.to_yaml())
    if changes := setting_changes(before, now):
        more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
        raise RequestError(
            f"study {experiment.name}: the searches at work on it have another experiment: {changes[0]}{more}; change it "
            "back, or choose another --name"
        )


def _name_objectives(study: optuna.Study, experiment: Experiment) -> None:
    """Name the objectives for Optuna's dashboard, which calls them "Objective 0" and so on otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(experiment.search.objectives))


class FinishedTrials:
    """The trials of a study that have a result. Each result is read once, since it does not change.

    Args:
        searched: Names of the hyperparameters that the study searches.
    """

    def __init__(self, searched: frozenset[str]) -> None:
        self._searched = searched
        self._settled = 0  # so many of Optuna's trials, the first ones, are finished
        self._unnumbered = 0  # so many of these were learned or skipped
        self._trials: list[Trial] = []  # the others of these
        self._read: dict[int, Trial] = {}  # finished trials after the first ones, by Optuna's number

    def read(self, optuna_trials: list[FrozenTrial]) -> tuple[Trial, ...]:
        """Return the trials of our study that have a result, ordered by number, given all of Optuna's trials."""
        later, unnumbered, are_settled = list[Trial](), self._unnumbered, True
        for optuna_trial in islice(optuna_trials, self._settled, None):
            attributes, is_finished, trial = optuna_trial.user_attrs, optuna_trial.state.is_finished(), None
            if LEARNED in attributes or SKIPPED in attributes:
                unnumbered += 1
            elif is_finished and RESULT in attributes:
                trial = self._finished(optuna_trial, optuna_trial.number - unnumbered)
            if are_settled and is_finished:
                self._settled, self._unnumbered = self._settled + 1, unnumbered
                self._read.pop(optuna_trial.number, None)
                self._trials += [trial] if trial else []
            else:
                are_settled = False
                later += [trial] if trial else []
        return (*self._trials, *later)

    def number_of(self, optuna_trial: FrozenTrial | optuna.Trial, optuna_trials: list[FrozenTrial]) -> int:
        """Return our number of an Optuna trial that is not finished, given all of Optuna's trials."""
        earlier = islice(optuna_trials, self._settled, optuna_trial.number)
        unnumbered = sum(LEARNED in trial.user_attrs or SKIPPED in trial.user_attrs for trial in earlier)
        return optuna_trial.number - self._unnumbered - unnumbered

    def _finished(self, optuna_trial: FrozenTrial, number: int) -> Trial:
        trial = self._read.get(optuna_trial.number)
        if trial is None or trial.number != number:
            values = optuna_trial.user_attrs[HYPERPARAMETERS]
            candidate = Candidate(number, values, self._searched & set(values))
            trial = Trial(candidate, TrialResult.from_json(optuna_trial.user_attrs[RESULT]))
            self._read[optuna_trial.number] = trial
        return trial


def count_learned(optuna_trials: list[FrozenTrial]) -> int:
    """Return how many trials were copied from an earlier study. They come first, so our numbers start after them."""
    return sum(LEARNED in optuna_trial.user_attrs for optuna_trial in optuna_trials)


def numbered_trials(optuna_trials: list[FrozenTrial]) -> list[tuple[int, FrozenTrial]]:
    """Return the trials of our study with our numbers: Optuna's trials without those that were learned or skipped."""
    numbered, others = [], 0
    for trial in optuna_trials:
        if LEARNED in trial.user_attrs or SKIPPED in trial.user_attrs:
            others += 1
        else:
            numbered.append((trial.number - others, trial))
    return numbered


@contextmanager
def _open_database(storage: str) -> Iterator[optuna.storages.RDBStorage]:
    """Yield the database of a URL, created if missing. Turn the errors of the `with` block into `RequestError`."""
    url = parse_storage_url(storage)
    try:
        if file := sqlite_file(url):
            file.parent.mkdir(parents=True, exist_ok=True)
        if _has_table(url, "experiments"):
            raise RequestError(
                "--storage: this is a database of MLflow, and studies need one of their own, such as "
                "sqlite:///mlruns/studies.db"
            )
        yield optuna.storages.RDBStorage(storage)
    except (SQLAlchemyError, optuna.exceptions.OptunaError, OSError, ImportError, RuntimeError) as error:
        raise storage_error(url, error) from None


def _open(experiment: Experiment, storage: str) -> Engine:
    from pneumo.engines.optuna_engine import OptunaEngine  # imports this module

    return OptunaEngine(experiment, storage)


def _read_id(name: str, storage: str) -> str | None:
    url = parse_storage_url(storage)
    if _is_missing_file(url):
        raise FileNotFoundError(errno.ENOENT, "the file is not there", url.database)
    database = optuna.storages.RDBStorage(storage, skip_compatibility_check=True, skip_table_creation=True)
    try:
        if name not in optuna.get_all_study_names(database):
            return None
        study_id = optuna.load_study(study_name=name, storage=database).user_attrs.get(ID)
    finally:
        database.engine.dispose()
    return None if study_id is None else str(study_id)


def _read_study(name: str, storage: str) -> StoredStudy | None:
    url = parse_storage_url(storage)
    if _is_missing_file(url) or not _has_table(url, "studies"):
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    database = optuna.storages.RDBStorage(storage, skip_table_creation=True)
    if name not in optuna.get_all_study_names(database):
        return None
    study = optuna.load_study(study_name=name, storage=database)
    optuna_trials = study.get_trials(deepcopy=False)
    numbered = numbered_trials(optuna_trials)
    return StoredStudy(
        id=study.user_attrs.get(ID, ""),
        experiment=study.user_attrs.get(EXPERIMENT, ""),
        numbers=tuple(number for number, _ in numbered),
        trials=FinishedTrials(frozenset()).read(optuna_trials),
        lost=tuple(number for number, t in numbered if t.state.is_finished() and RESULT not in t.user_attrs),
    )


def _is_missing_file(url: URL) -> bool:
    file = sqlite_file(url)
    return file is not None and not file.is_file()


def _has_table(url: URL, name: str) -> bool:
    database = sqlalchemy.create_engine(url)
    try:
        return sqlalchemy.inspect(database).has_table(name)
    finally:
        database.dispose()


def _describe_storage(name: str, storage: str) -> str:
    return f"the study's database {parse_storage_url(storage).render_as_string(hide_password=True)}"


KIND = EngineKind(_open, _read_id, _read_study, _describe_storage)
