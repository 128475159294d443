"""A run as MLflow stores it, in plain values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pneumo.spec.hyperparameters import TUTORIAL, Value, value_type
from pneumo.spec.names import Tags

Role = Literal["trial", "confirm"]
"""What a child run of a study is: a trial of the search, or a confirmation (the trial trained again with another seed)."""

End = Literal["complete", "pruned", "failed", "killed"]
"""How a trial ended. A killed trial has no state and can be run again."""

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""MLflow's status of a run that has ended."""

STATUS: Mapping[End, Status] = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
"""The status of a trial's run, by how the trial ended."""

_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class RecordedRun:
    """A run as MLflow stores it: of a study, a trial, a confirmation or a promotion.

    Attributes:
        run_id: The run's id in MLflow.
        status: MLflow's status: RUNNING, FINISHED, FAILED or KILLED.
        parameters: Parameters, as text.
        metrics: The last value of each metric.
        tags: Tags, those of MLflow included.
        started: Milliseconds since 1970.
        ended: Milliseconds since 1970; None while the run is RUNNING.
    """

    run_id: str
    status: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    started: int = 0
    ended: int | None = None

    @property
    def role(self) -> str:
        """`study`, `trial`, `confirm` or `promotion`; empty for a run of another program."""
        return self.tags.get(Tags.ROLE, "")

    @property
    def study(self) -> str:
        """The name of the study."""
        return self.tags[Tags.STUDY]

    @property
    def number(self) -> int:
        """The number of the trial. Raises `KeyError` for a run that is not of a trial."""
        return int(self.tags[Tags.TRIAL])

    @property
    def state(self) -> str | None:
        """`complete`, `pruned` or `failed`; None if the trial has not ended."""
        return self.tags.get(Tags.STATE)

    def hyperparameter(self, name: str) -> Value:
        """Return the value that the run was trained with.

        An inactive hyperparameter is no parameter of the run. Then the network has the tutorial's value.

        Raises:
            ValueError: The parameter is not a value of the hyperparameter's type.
        """
        text = self.parameters.get(name)
        return getattr(TUTORIAL, name) if text is None else parse_parameter(name, text)


def format_parameter(value: Value) -> str:
    """Return a hyperparameter as MLflow's parameter: `parse_parameter` returns the same value, to the last bit."""
    return value if isinstance(value, str) else json.dumps(value)


def parse_parameter(name: str, text: str) -> Value:
    """Return the value of the hyperparameter `name` from the text that `format_parameter` wrote.

    Raises:
        ValueError: The text is not a value of the hyperparameter's type; the message says so.
    """
    expected = value_type(name)
    parse: Mapping[type, Callable[[str], Value]] = {bool: _BOOLEANS.__getitem__, int: int, float: float, str: str}
    try:
        return parse[expected](text)
    except (KeyError, ValueError):
        raise ValueError(f"{name} is {text!r}; expected a value of type {expected.__name__}") from None
