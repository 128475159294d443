"""The table of engines, and the operations that look an engine up in it.

To add an engine, write a module with a constant `KIND` of type `EngineKind`, add the module to `ENGINES`, and add the
engine's algorithms to `pneumo.spec.algorithms`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from pneumo.engines.protocol import Engine
from pneumo.engines.storage_url import parse_storage_url, storage_error
from pneumo.engines.stored import StoredStudy
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import Trial

if TYPE_CHECKING:
    from pneumo.engines.shared_study import Driver

ENGINES: Mapping[str, str] = {
    "optuna": "pneumo.engines.optuna_storage",
    "keras-tuner": "pneumo.engines.keras_tuner_storage",
}
"""Module of each engine, by the engine's name in an experiment. A module is imported when its engine is first used."""


@dataclass(frozen=True)
class EngineKind:
    """The functions that open and read the studies of one engine.

    `storage` is always a database URL, for example `sqlite:///mlruns/studies.db`. An engine that stores its studies in
    files derives the place of these files from the URL.

    Attributes:
        open: Called with (experiment, storage). Opens the study of this experiment, or creates it. Raises
            `RequestError` if the storage cannot be opened.
        read_id: Called with (name, storage). Returns the id of a study, or None if there is none of this name. Creates
            nothing. Raises `OSError` or the database's own error if the storage cannot be read.
        read_study: Called with (name, storage). Returns the stored study, or None if there is none of this name. Creates
            nothing. Does not import the engine's algorithms. Raises `RequestError` or one of `storage_errors()`.
        describe_storage: Called with (name, storage). Returns where the study is stored, without a password, for a
            message such as "Waiting for the study's database ...".
    """

    open: Callable[[Experiment, str], Engine]
    read_id: Callable[[str, str], str | None]
    read_study: Callable[[str, str], StoredStudy | None]
    describe_storage: Callable[[str, str], str]


def engine_kind(name: str) -> EngineKind:
    """Return the functions of the engine with this name."""
    kind: EngineKind = import_module(ENGINES[name]).KIND
    return kind


def open_engine(
    experiment: Experiment, storage: str, driver: Driver | None = None, *, reopened: bool = False
) -> Engine:
    """Return the experiment's engine with the study's stored state, or a new study.

    Args:
        experiment: The experiment. It names the engine and the study.
        storage: Database URL, for example `sqlite:///mlruns/studies.db`. Keras Tuner stores its files in a folder beside
            the database, here `mlruns/studies.keras-tuner`.
        driver: This search among several that share the study; None if it has the study for itself.
        reopened: Whether it had the study open before an outage of the storage.

    Raises:
        RequestError: The storage cannot be opened.
    """
    if driver is not None:
        from pneumo.engines.shared_engine import SharedOptunaEngine  # no other engine's studies can be shared

        return SharedOptunaEngine(experiment, storage, driver, reopened=reopened)
    return engine_kind(experiment.search.engine).open(experiment, storage)


def reopen_engine(experiment: Experiment, storage: str, study_id: str, driver: Driver | None = None) -> Engine:
    """Return the engine of a study that was open before, after its storage was unreachable. Create nothing.

    Raises:
        OSError: The study with this id is not in the storage.
        Exception: The database's own error if it is still unreachable (see `retrying.is_unreachable`).
    """
    if engine_kind(experiment.search.engine).read_id(experiment.name, storage) != study_id:
        raise FileNotFoundError(f"study {experiment.name} is not in it")
    return open_engine(experiment, storage, driver, reopened=True)


def describe_storage(experiment: Experiment, storage: str) -> str:
    """Return where the experiment's study is stored, as part of a sentence and without a password."""
    return engine_kind(experiment.search.engine).describe_storage(experiment.name, storage)


def stored_studies(name: str, storage: str) -> tuple[StoredStudy, ...]:
    """Return the stored studies of this name: none, or at most one for each engine. Create nothing.

    Raises:
        RequestError: The storage cannot be read.
    """
    url = parse_storage_url(storage)
    unreadable: tuple[type[Exception], ...] = (*storage_errors(), ImportError, RuntimeError)
    try:
        studies = [engine_kind(engine).read_study(name, storage) for engine in ENGINES]
    except unreadable as error:
        raise storage_error(url, error) from None
    return tuple(study for study in studies if study is not None)


def read_finished_trials(name: str, storage: str) -> tuple[Trial, ...]:
    """Return the finished trials of a study, whichever engine ran it; empty if there is no study of this name.

    Raises:
        RequestError: The storage cannot be read.
    """
    return next((study.trials for study in stored_studies(name, storage) if study.trials), ())


def storage_errors() -> tuple[type[Exception], ...]:
    """Return the exception types that an engine raises if its storage does not answer."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    return OptunaError, SQLAlchemyError, OSError
