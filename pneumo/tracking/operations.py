"""The operations that an outbox can hold, and how its database stores them.

A database row names the operation (`call`) and has its arguments as JSON. Both are a storage format: an outbox that an
earlier version left behind is still delivered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pneumo.spec.run import Status


class MetricPoint(NamedTuple):
    """One value of a metric; `time` in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int


class UsedDataset(NamedTuple):
    """A dataset that a run used: the part of the split, and the fields of MLflow's `Dataset`."""

    part: str
    dataset: Mapping[str, str]


@dataclass(frozen=True)
class CreateRun:
    """Create the run that goes by a key, in MLflow's experiment; `start_time` in milliseconds since 1970."""

    experiment_id: str
    name: str
    start_time: int
    tags: Mapping[str, str]


@dataclass(frozen=True)
class LogBatch:
    """Log metrics, parameters and tags; `of_model`: log the metrics for the run's model too."""

    metrics: Sequence[MetricPoint] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    of_model: bool = False


@dataclass(frozen=True)
class LogInputs:
    """Log the datasets that the run used."""

    datasets: Sequence[UsedDataset]


@dataclass(frozen=True)
class SetTerminated:
    """Close the run; `end_time` in milliseconds since 1970."""

    status: Status
    end_time: int


@dataclass(frozen=True)
class CloseEarlier:
    """Close the runs of the same trial that a search has left RUNNING, of which this search has taken over the trial."""


@dataclass(frozen=True)
class LogArtifacts:
    """Upload the operation's files as artifacts."""


@dataclass(frozen=True)
class DrawPlots:
    """Draw plots from the values in the operation's file `PLOT_VALUES`, then upload them as artifacts."""


@dataclass(frozen=True)
class LogModel:
    """Upload the operation's files, a saved Keras model, as the run's model."""


@dataclass(frozen=True)
class DiscardModel:
    """Delete what a killed trial has uploaded of a model."""


@dataclass(frozen=True)
class RemoveModel:
    """Delete the run's model unless it is registered; `why` becomes a tag of the run."""

    why: str


@dataclass(frozen=True)
class UnknownOperation:
    """A row that this version cannot read; `reason` says why."""

    call: str
    reason: str


Operation = (
    CreateRun
    | LogBatch
    | LogInputs
    | SetTerminated
    | CloseEarlier
    | LogArtifacts
    | DrawPlots
    | LogModel
    | DiscardModel
    | RemoveModel
)
"""What can be appended to an outbox."""

PLOT_VALUES = "values.npz"
"""Name of the file from which plots are drawn."""

CALLS: Mapping[str, type[Operation]] = {
    "create_run": CreateRun,
    "log_batch": LogBatch,
    "log_inputs": LogInputs,
    "set_terminated": SetTerminated,
    "close_earlier": CloseEarlier,
    "log_artifacts": LogArtifacts,
    "draw_plots": DrawPlots,
    "log_model": LogModel,
    "discard_model": DiscardModel,
    "remove_model": RemoveModel,
}
"""The operations by the name that the database stores."""

_CALL_NAMES = {operation: call for call, operation in CALLS.items()}


def call_name(operation: Operation | UnknownOperation) -> str:
    """Return the name of an operation in the database."""
    return operation.call if isinstance(operation, UnknownOperation) else _CALL_NAMES[type(operation)]


def dump_arguments(operation: Operation) -> str:
    """Return an operation's arguments as JSON."""
    return json.dumps(vars(operation))


def load_operation(call: str, arguments: str) -> Operation | UnknownOperation:
    """Return the operation of a database row."""
    try:
        values: dict[str, Any] = json.loads(arguments)
        if "metrics" in values:
            values["metrics"] = [MetricPoint(*point) for point in values["metrics"]]
        if "datasets" in values:
            values["datasets"] = [UsedDataset(*dataset) for dataset in values["datasets"]]
        return CALLS[call](**values)
    except (KeyError, TypeError, ValueError) as error:
        return UnknownOperation(call, f"{type(error).__name__}: {error}")


def now() -> int:
    """Return milliseconds since 1970, MLflow's unit."""
    return int(time.time() * 1000)


def metric_points(metrics: Mapping[str, float], step: int, after: int = 0) -> list[MetricPoint]:
    """Return metrics as points of one step, with the present time.

    Args:
        metrics: Values by name.
        step: The epoch, or 0 for a metric that is logged once.
        after: A time that the points must be later than, in milliseconds since 1970. MLflow shows the latest of several
            values of a step; without it, a clock that was set back would let an older value win.
    """
    at = max(now(), after + 1)
    return [MetricPoint(name, float(value), at, step) for name, value in metrics.items()]
