"""What an engine is, and the one that an experiment names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import Trial, TrialResult


class Engine(Protocol):
    """Proposes candidates and learns from their results. Its state is kept: opened again, it goes on where it was.

    Numbers count from 0 without holes. A candidate that was asked and never told, since the process was interrupted or
    killed, is proposed again first when the study is taken up, under its own number. The candidate of a number follows
    from the experiment's seed and the results told before it, so a study that was interrupted goes on as if it had not
    been.
    """

    id: str
    """Of this study's state, drawn when it was made: what is recorded elsewhere of the study carries it too."""

    def learn(self, trials: Sequence[Trial]) -> None:
        """Takes over what an earlier study found, as far as the algorithm can learn from it, before the first `ask`.

        `trials`: complete ones with a value of every objective, whose hyperparameters this study's space holds. They get
        no numbers. On a study that was begun it does nothing.
        """
        ...

    def ask(self) -> Candidate | Wait | Done:
        """The next candidate."""
        ...

    def report(self, number: int, epoch: int, value: float) -> bool:
        """The objective after an epoch (from 1). False: stop this trial now, it is pruned."""
        ...

    def tell(self, result: TrialResult) -> None:
        """How a trial ended. After it the trial is never proposed again."""
        ...

    def trials(self) -> tuple[Trial, ...]:
        """Every trial told so far, by number."""
        ...


def storage_errors() -> tuple[type[Exception], ...]:
    """What an engine raises where its storage no longer answers."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    return OptunaError, SQLAlchemyError, OSError


def open_engine(experiment: Experiment, storage: str) -> Engine:
    """The experiment's engine with the state that `storage` holds for this study, or a new one.

    `storage`: a database URL, as `sqlite:///mlruns/studies.db`; Keras Tuner keeps its files in a folder beside it, here
    `mlruns/studies.keras-tuner`. Raises `RequestError` where it cannot be opened.
    """
    if experiment.search.engine == "keras-tuner":
        from pneumo.engines.keras_tuner_engine import KerasTunerEngine

        return KerasTunerEngine(experiment, _folder(storage) / experiment.name)
    from pneumo.engines.optuna_engine import OptunaEngine

    return OptunaEngine(experiment, storage)


def open_again(experiment: Experiment, storage: str, identity: str) -> Engine:
    """As `open_engine`, for a study that was open before and has this id: makes nothing that is not there.

    Raises `OSError` or what a database raises (see `retrying.away`) where the study is not there.
    """
    from pneumo.engines.journal import read_journal
    from pneumo.engines.optuna_storage import read_id

    if experiment.search.engine == "keras-tuner":
        journal = read_journal(_folder(storage) / experiment.name)
        found = journal.id if journal else None
    else:
        found = read_id(experiment.name, storage)
    if found != identity:
        raise FileNotFoundError(f"study {experiment.name} is not in it")
    return open_engine(experiment, storage)


def describe_storage(experiment: Experiment, storage: str) -> str:
    """Where the experiment's study lies, for a line; without a password."""
    from sqlalchemy.engine import make_url

    if experiment.search.engine == "keras-tuner":
        return f"the study's folder {_folder(storage) / experiment.name}"
    return f"the study's database {make_url(storage).render_as_string(hide_password=True)}"


def earlier_trials(name: str, storage: str) -> tuple[Trial, ...]:
    """The told trials of a study, whichever engine ran it; none where there is no study of this name.

    Raises `RequestError` where the storage cannot be read.
    """
    from pneumo.engines.journal import read_journal_trials as read_journal
    from pneumo.engines.optuna_storage import read_optuna_trials

    found = read_optuna_trials(name, storage)
    if not found and storage.startswith("sqlite:"):
        found = read_journal(_folder(storage) / name)
    return found


def _folder(storage: str) -> Path:
    """Where Keras Tuner's studies lie: beside the database that holds Optuna's."""
    from pneumo.engines.study_lock import storage_url

    url = storage_url(storage)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise RequestError(
            "--storage: engine keras-tuner keeps its studies in files beside an SQLite database; leave --storage out, or "
            "take engine optuna"
        )
    return Path(url.database).with_suffix(".keras-tuner")
