"""What a study can aim at, which way is better, and which trial is best."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pneumo.spec.result import Trial

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
    "model_bytes": "minimize",
    "train_seconds": "minimize",
}
"""Every objective, with the direction that follows from its name."""


def epoch_objective(objective: str) -> str:
    """The metric of each epoch that chooses a trial's best epoch: the objective itself, or `val_auc`."""
    return objective if objective in EPOCH_OBJECTIVES else "val_auc"


def ranked(trials: Iterable[Trial], objective: str) -> list[Trial]:
    """The complete trials, best first; equal values in the order of their numbers."""
    complete = [t for t in trials if t.result.state == "complete" and t.result.value is not None]
    sign = -1.0 if OBJECTIVES[objective] == "maximize" else 1.0
    return sorted(complete, key=lambda t: (sign * float(t.result.value or 0.0), t.number))
