"""What an engine proposes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pneumo.spec.hyperparameters import Hyperparameters, Value


@dataclass(frozen=True)
class Candidate:
    """One proposal.

    `hyperparameters` holds every *active* hyperparameter, fixed or searched. `first_epoch` is the number of epochs that
    the trial `resume_from` has already trained (0 and None: from scratch). `full_epochs` is set where the candidate is a
    rung of a longer training: how many epochs that has in all, which a learning rate's schedule counts by.
    """

    number: int
    hyperparameters: Mapping[str, Value]
    searched: frozenset[str] = field(default_factory=frozenset)
    first_epoch: int = 0
    resume_from: int | None = None
    full_epochs: int | None = None

    @property
    def values(self) -> Hyperparameters:
        """All hyperparameters; inactive ones at the tutorial's value."""
        return Hyperparameters(**dict(self.hyperparameters))  # type: ignore[arg-type]

    @property
    def epochs(self) -> int:
        """The epoch to train to, counted from the start of the first trial it continues."""
        return int(self.hyperparameters["epochs"])

    @property
    def can_go_on(self) -> bool:
        """Whether a later trial may continue this one."""
        return self.full_epochs is not None and self.epochs < self.full_epochs


@dataclass(frozen=True)
class Wait:
    """Nothing to propose until a trial that is under way has been told."""


@dataclass(frozen=True)
class Done:
    """Nothing more to propose, and why."""

    reason: str
