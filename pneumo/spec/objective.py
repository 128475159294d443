"""The objectives of a study, and the direction in which each is optimized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from pneumo.spec.result import TrialResult

Direction = Literal["maximize", "minimize"]

PLAIN_OBJECTIVES: dict[str, Direction] = {
    "val_auc": "maximize",
    "val_accuracy": "maximize",
    "val_loss": "minimize",
}
"""Objectives that every epoch has. A trial's value is that of its best epoch."""

STRESS_OBJECTIVES: dict[str, Direction] = {
    "val_stress_auc": "maximize",
    "val_stress_accuracy": "maximize",
    "val_stress_worst": "maximize",
}
"""Objectives on pictures under the changes of the stress suite.

If one of them is the first that is known after every epoch, it is computed after each on a part of the pictures. A trial's
value is computed on all of them, with the weights of the best epoch.
"""

EPOCH_OBJECTIVES: dict[str, Direction] = PLAIN_OBJECTIVES | STRESS_OBJECTIVES
"""Objectives that are known after every epoch, so that a pruner can use them."""

OBJECTIVES: dict[str, Direction] = EPOCH_OBJECTIVES | {
    "val_sensitivity": "maximize",
    "val_specificity": "maximize",
    "val_f1": "maximize",
    "parameters": "minimize",
    "predict_ms": "minimize",
    "model_bytes": "minimize",
    "train_seconds": "minimize",
}
"""All objectives with their directions."""

ObjectiveName = Annotated[str, Field(json_schema_extra={"enum": list(OBJECTIVES)})]
"""Name of an objective in an experiment. The enum is for the JSON schema; `SearchSpec` and `Rule` check the name."""


def epoch_objective(objectives: Sequence[str]) -> str:
    """Return the metric that chooses a trial's best epoch: the first objective known after every epoch, or `val_auc`."""
    return next((objective for objective in objectives if objective in EPOCH_OBJECTIVES), "val_auc")


def epoch_metric(objective: str) -> str:
    """Return the name of the MLflow metric that has an objective after each epoch.

    A stress objective's own name is that of the value on all pictures, so its values after the epochs have another.
    """
    return f"epoch_{objective}" if objective in STRESS_OBJECTIVES else objective


def objective_metric(objective: str) -> str:
    """Return the name of the MLflow metric that has a trial's objective, for example `best_val_auc` for `val_auc`."""
    return f"best_{objective}" if objective in PLAIN_OBJECTIVES else objective


def objective_values(result: TrialResult, objectives: Sequence[str]) -> tuple[float, ...] | None:
    """Return a result's values of the objectives, of which the first is its `value`; None if one is unknown."""
    others = objectives[1:]
    values = [result.value, *(result.metrics.get(objective_metric(objective)) for objective in others)]
    return None if None in values else tuple(float(value or 0.0) for value in values)
