"""What an engine is, and the one that an experiment names."""

from __future__ import annotations

from typing import Protocol

from pneumo.spec.candidate import Candidate, Done, Wait
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

    return OptunaError, SQLAlchemyError


def open_engine(experiment: Experiment, storage: str) -> Engine:
    """The experiment's engine with the state that `storage` holds for this study, or a new one.

    `storage`: a database URL, as `sqlite:///mlruns/studies.db`. Raises `RequestError` where it cannot be opened.
    """
    from pneumo.engines.optuna_engine import OptunaEngine

    return OptunaEngine(experiment, storage)
