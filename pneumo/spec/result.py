"""The results of trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from pneumo.spec.candidate import Candidate

CLASSES = ("NORMAL", "PNEUMONIA")
"""Names of the classes with labels 0 and 1. A network's output is the probability of the second."""

Part = Literal["training", "validation"]
PARTS: tuple[Part, ...] = ("training", "validation")
"""The parts of the pictures that a search uses. The test pictures are sealed."""

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial.

    Attributes:
        number: Number of the trial.
        run_id: Id of the trial's MLflow run.
        state: How the trial ended.
        value: Value of the first objective at the best epoch; None if the trial failed.
        metrics: Final metrics by name.
        history: The value that was reported after each epoch, from the first.
        error: Reason of a failure in one line.
        started: Start of the trial in seconds since 1970.
        ended: End of the trial in seconds since 1970.
    """

    number: int
    run_id: str
    state: State
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: tuple[float, ...] = ()
    error: str | None = None
    started: float = 0.0
    ended: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrialResult:
        values = json.loads(text)
        return cls(**values | {"history": tuple(values["history"])})


@dataclass(frozen=True)
class Trial:
    """A finished trial: a candidate and its result."""

    candidate: Candidate
    result: TrialResult

    @property
    def number(self) -> int:
        return self.candidate.number
