"""What came of a candidate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from pneumo.spec.candidate import Candidate

CLASSES = ("NORMAL", "PNEUMONIA")
"""Their labels are 0 and 1; a network's probability is that of the second."""

Part = Literal["training", "validation"]
PARTS: tuple[Part, ...] = ("training", "validation")
"""What a search sees of the pictures; the test pictures are sealed."""

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    `value` is the (first) objective's, at the best epoch; None where the trial failed. `history` has what was reported after
    each epoch, from the first. `error` is one line. `started` and `ended` are seconds since 1970.
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
    """A candidate and how it ended."""

    candidate: Candidate
    result: TrialResult

    @property
    def number(self) -> int:
        return self.candidate.number
