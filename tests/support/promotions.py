"""Promote the study that `tests/promote/conftest.py` makes, and read what the promotions left in MLflow."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from mlflow.entities import Run

from tests.support.program import called, client, runs

STUDY = "small"


def promote(folder: Path, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = called("promote", *arguments, folder=folder)
    assert done.returncode == status, (done.stdout, done.stderr)
    return done


def aliases(folder: Path, model: str = STUDY) -> dict[str, int]:
    return {alias: int(number) for alias, number in client(folder).get_registered_model(model).aliases.items()}


def promotion_runs(folder: Path, study: str = STUDY) -> list[Run]:
    store = client(folder)
    experiment = store.get_experiment_by_name(study)
    assert experiment is not None
    promotions = store.search_runs([experiment.experiment_id], "tags.`pneumo.role` = 'promotion'")
    return sorted(promotions, key=lambda run: run.info.start_time)


def openings(folder: Path, study: str = STUDY) -> list[dict[str, str]]:
    parent, _ = runs(folder, study)
    recorded = [json.loads(value) for key, value in sorted(parent.data.tags.items()) if "test_opening." in key]
    assert parent.data.metrics.get("test_openings", 0) == len(recorded)
    return recorded
