"""A study's run in MLflow, for tests that need one and train nothing."""

from __future__ import annotations

from pneumo.tracking.store import Store
from pneumo.tracking.study import StudyRun, open_study


def begun(store: Store, name: str) -> StudyRun:
    """A study of this name, just begun: its experiment says nothing but the name."""
    return open_study(
        store,
        name=name,
        engine="optuna",
        algorithm="tpe",
        version="0.1.0",
        objectives=["val_auc"],
        searched=[],
        experiment_yaml=f"name: {name}\n",
        description="",
    )
