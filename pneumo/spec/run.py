"""A trial's run as MLflow holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrialRun:
    """A trial's run as MLflow holds it. A metric has its last value; `state` is None where the trial has not ended."""

    run_id: str
    number: int
    status: str
    state: str | None
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
