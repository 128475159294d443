"""Recorded studies that were never trained: trials with made-up values, for tests of reports."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from typing import Any

from PIL import Image

from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.result import State, Trial, TrialResult
from pneumo.spec.run import RecordedRun
from pneumo.spec.study_record import RecordedFinding, StudyRecord

START = 1_767_268_800.0  # 1 January 2026, 12:00 UTC

SPACE: dict[str, Any] = {
    "layers": {"low": 1, "high": 4},
    "filters": [16, 32, 64],
    "image_size": [64, 96, 128],
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
    "dropout": {"low": 0.0, "high": 0.5},
    "batch_norm": [True, False],
    "optimizer": ["adam", "sgd"],
    "momentum": {"low": 0.0, "high": 0.99, "when": {"optimizer": "sgd"}},
    "epochs": 10,
}


def experiment(name: str = "article", **search: Any) -> Experiment:
    """Return an experiment of ten hyperparameters, nine of them searched."""
    return Experiment.model_validate({"name": name, "hyperparameters": SPACE, "search": {"trials": 200} | search})


def made_trial(
    number: int,
    value: float | None = 0.9,
    hyperparameters: Mapping[str, Value] | None = None,
    state: State = "complete",
    error: str | None = None,
    **metrics: float,
) -> Trial:
    """Return a trial that began `number` minutes after `START` and took 50 seconds."""
    started = START + 60 * number
    history = () if value is None else (value - 0.1, value)
    metrics = {"epochs_trained": float(len(history))} | metrics
    result = TrialResult(number, f"{number:032x}", state, value, metrics, history, error, started, started + 50)
    values = {"epochs": 10} | dict(hyperparameters or {})
    return Trial(Candidate(number, values, frozenset(SPACE) & set(values)), result)


def made_trials(count: int, seed: int = 0) -> list[Trial]:
    """Return trials as a search might leave them: the learning rate and the layers matter, a third is pruned, some fail."""
    rng = random.Random(seed)
    trials = []
    for number in range(count):
        sgd = rng.random() < 0.4
        values: dict[str, Value] = {
            "layers": rng.randint(1, 4) if number else 1,
            "filters": rng.choice([16, 32, 64]),
            "image_size": rng.choice([64, 96, 128]),
            "learning_rate": 10 ** rng.uniform(-4, -2),
            "weight_decay": 10 ** rng.uniform(-6, -2) if number else 0.0,
            "dropout": rng.uniform(0, 0.5),
            "batch_norm": rng.random() < 0.5,
            "optimizer": "sgd" if sgd else "adam",
        } | ({"momentum": rng.uniform(0, 0.99)} if sgd else {})
        quality = 0.9 + 0.02 * int(values["layers"]) - 0.05 * abs(float(values["learning_rate"]) - 0.001) / 0.01
        value = min(0.999, quality + rng.gauss(0, 0.006))
        state: State = "complete" if not number or rng.random() < 0.6 else "pruned" if rng.random() < 0.85 else "failed"
        epochs = 10 if state == "complete" else rng.randint(1, 5)
        history = tuple(value - 0.3 / epoch for epoch in range(1, epochs + 1))
        started = START + 31 * number
        stress = {"val_stress_auc": value - 0.04, "val_stress_accuracy": value - 0.1, "val_stress_worst": value - 0.2}
        result = TrialResult(
            number,
            f"{number:032x}",
            state,
            None if state == "failed" else value,
            {"epochs_trained": float(epochs), "parameters": 1e4 * 2 ** int(values["layers"])}
            | (stress | {"best_val_accuracy": value - 0.03} if state == "complete" else {}),
            history,
            f"ran out of memory after {epochs} epochs; a smaller batch_size needs less" if state == "failed" else None,
            started,
            started + 6.0 * epochs,
        )
        trials.append(Trial(Candidate(number, values | {"epochs": 10}, frozenset(SPACE) & set(values)), result))
    return trials


def made_record(trials: list[Trial], made: Experiment | None = None, **changes: Any) -> StudyRecord:
    """Return the record of a study with these trials; `changes` replace attributes of the record."""
    made = made or experiment()
    runs = {
        trial.number: RecordedRun(trial.result.run_id, "FINISHED", tags={"pneumo.device": "CPU"}) for trial in trials
    }
    attributes: dict[str, Any] = {
        "experiment": made,
        "run": RecordedRun("f" * 32, "FINISHED", tags={"pneumo.version": "0.1.0", "pneumo.ended": "all trials ended"}),
        "trials": trials,
        "runs": runs,
        "findings": [
            RecordedFinding("outlier", "warning", "train/NORMAL/a.png differs from all others", 1),
            RecordedFinding("shortcut-frame", "warning", "the frame alone tells the class with AUC 0.93", 0),
        ],
        "counts": {
            "training": {"num_rows": 4578, "patients": 2300, "NORMAL": 1180, "PNEUMONIA": 3398},
            "validation": {"num_rows": 654, "patients": 320, "NORMAL": 169, "PNEUMONIA": 485},
        },
        "page": "http://mlflow.example/#/experiments/1/runs/",
    }
    return StudyRecord(**attributes | changes)


def png(width: int, height: int) -> bytes:
    """Return a picture."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), "#dde3ea").save(out, "PNG")
    return out.getvalue()
