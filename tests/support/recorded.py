"""A study's run in MLflow, for tests that need one and train nothing."""

from __future__ import annotations

from pathlib import Path

from pneumo.tracking.outbox import Outbox, open_outbox
from pneumo.tracking.store import Store
from pneumo.tracking.study import StudyRun, open_study


def begun(store: Store, name: str, outbox: Outbox | None = None, study_id: str | None = None) -> StudyRun:
    """Start a study whose experiment has nothing but a name. By default, its outbox is in the current folder."""
    return open_study(
        store,
        outbox or open_outbox(Path("outbox", name)),
        name=name,
        engine="optuna",
        algorithm="tpe",
        version="0.1.0",
        objectives=["val_auc"],
        searched=[],
        experiment_yaml=f"name: {name}\n",
        description="",
        extra_tags={"pneumo.id": study_id} if study_id else {},
    )
