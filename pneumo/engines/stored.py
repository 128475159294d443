"""A study as its engine has stored it."""

from __future__ import annotations

from dataclasses import dataclass

from pneumo.spec.result import Trial


@dataclass(frozen=True)
class StoredStudy:
    """A study as its engine has stored it.

    Attributes:
        id: Random id of the study.
        experiment: The resolved experiment as YAML text.
        numbers: Numbers of all proposed trials in stored order, finished or not. A damaged storage may repeat a number.
        trials: The finished trials, ordered by number.
        lost: Numbers of trials that the engine's library marks as finished, but whose result is missing.
    """

    id: str
    experiment: str
    numbers: tuple[int, ...]
    trials: tuple[Trial, ...]
    lost: tuple[int, ...] = ()
