"""A study's run in MLflow, for tests that need one and train nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pneumo.tracking.outbox import Outbox, open_outbox
from pneumo.tracking.store import Store
from pneumo.tracking.study import StudyRun, open_study


def begun(
    store: Store,
    name: str,
    outbox: Outbox | None = None,
    *,
    experiment_yaml: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> StudyRun:
    """Start a study. By default, its experiment has nothing but a name, and its outbox is in the current folder."""
    return open_study(
        store,
        outbox or open_outbox(Path("outbox", name)),
        name=name,
        engine="optuna",
        algorithm="tpe",
        version="0.1.0",
        objectives=["val_auc"],
        searched=[],
        experiment_yaml=experiment_yaml or f"name: {name}\n",
        description="",
        extra_tags=dict(tags or {}),
    )
