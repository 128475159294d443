"""The proposals of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from pneumo.spec.hyperparameters import Hyperparameters, Value
from pneumo.spec.network import training_key

SkipReason = Literal["repeat", "unbuildable"]
"""Why a proposal of an algorithm is not trained: it repeats an earlier candidate, or its network cannot be built."""

SKIP_REASONS: tuple[SkipReason, ...] = get_args(SkipReason)


@dataclass(frozen=True)
class Candidate:
    """A candidate: the hyperparameters that a trial is to train.

    Attributes:
        number: Number of the trial.
        hyperparameters: All active hyperparameters, fixed or searched.
        searched: Names of the searched ones among them.
        first_epoch: Number of epochs that the trial `resume_from` has trained; 0 if training starts from scratch.
        resume_from: Number of the trial that this one continues; None if training starts from scratch.
        full_epochs: If the candidate is a rung of a longer training, the epochs of that whole training, over which the
            learning rate's schedule and its warmup run. Otherwise None.
    """

    number: int
    hyperparameters: Mapping[str, Value]
    searched: frozenset[str] = field(default_factory=frozenset)
    first_epoch: int = 0
    resume_from: int | None = None
    full_epochs: int | None = None

    @property
    def values(self) -> Hyperparameters:
        """All hyperparameters. Inactive ones have the tutorial's value."""
        return Hyperparameters(**dict(self.hyperparameters))  # type: ignore[arg-type]

    @property
    def epochs(self) -> int:
        """The epoch to train to, counted from the start of the first trial that this one continues."""
        return int(self.hyperparameters["epochs"])

    @property
    def key(self) -> tuple[object, ...]:
        """What is trained. Two candidates with the same key would differ by the seed of their training only."""
        # A later rung trains the rest, so what has an effect only there counts too.
        whole = self.values.model_copy(update={"epochs": self.full_epochs or self.epochs})
        return (training_key(whole), self.epochs, self.first_epoch, self.resume_from)

    @property
    def can_continue(self) -> bool:
        """Whether a later trial may continue this one."""
        return self.full_epochs is not None and self.epochs < self.full_epochs


@dataclass(frozen=True)
class Wait:
    """The engine has no candidate until a trial that is under way has finished."""


@dataclass(frozen=True)
class Done:
    """The engine has no more candidates, for the given reason.

    `exhausted` is False if it would have more with a larger budget.
    """

    reason: str
    exhausted: bool = True
