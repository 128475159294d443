"""What a study can aim at, and which way is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pneumo.spec.result import TrialResult

Direction = Literal["maximize", "minimize"]

EPOCH_OBJECTIVES: dict[str, Direction] = {
    "val_auc": "maximize",
    "val_accuracy": "maximize",
    "val_loss": "minimize",
}
"""Known after every epoch, so a pruner can act on them."""

OBJECTIVES: dict[str, Direction] = EPOCH_OBJECTIVES | {
    "val_sensitivity": "maximize",
    "val_specificity": "maximize",
    "val_f1": "maximize",
    "parameters": "minimize",
    "predict_ms": "minimize",
    "model_bytes": "minimize",
    "train_seconds": "minimize",
}
"""Every objective, with the direction that follows from its name."""


def epoch_objective(objectives: Sequence[str]) -> str:
    """The metric of each epoch that chooses a trial's best epoch: the first objective that has one, or `val_auc`."""
    return next((objective for objective in objectives if objective in EPOCH_OBJECTIVES), "val_auc")


def objective_metric(objective: str) -> str:
    """The metric, logged once a trial, that holds a trial's objective: `best_val_auc` for `val_auc`."""
    return f"best_{objective}" if objective in EPOCH_OBJECTIVES else objective


def values_of(result: TrialResult, objectives: Sequence[str]) -> tuple[float, ...] | None:
    """A result's values of the objectives, the first of which is its `value`; None where one is not known."""
    others = objectives[1:]
    known = [result.value, *(result.metrics.get(objective_metric(objective)) for objective in others)]
    return None if None in known else tuple(float(value or 0.0) for value in known)
