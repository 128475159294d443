"""Recorded studies that were never trained: trials with made-up values, for tests of reports."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pneumo.evidence.tables import predictions_csv
from pneumo.evidence.trial_plots import trial_plots
from pneumo.evidence.trial_values import TrialValues, shown_pictures
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.result import State, Trial, TrialResult
from pneumo.spec.run import RecordedRun
from pneumo.spec.study_record import RecordedFinding, StudyRecord
from pneumo.tracking.outbox import open_outbox
from pneumo.tracking.store import Store, connect
from pneumo.tracking.study import DatasetPart, end_study, end_trial, start_trial
from pneumo.tracking.trial_log import TrialLog
from tests.support.new_stores import new_store
from tests.support.outboxes import send
from tests.support.recorded import begun

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


def write_trials(folder: Path, made: Experiment, trials: list[Trial], *, plotted: Collection[int] = ()) -> Store:
    """Write a study with these trials into the MLflow of a folder, the current one, as a search writes it.

    Args:
        folder: The folder.
        made: The experiment.
        trials: The trials.
        plotted: Numbers of the complete trials that have real plots, which take a second. Others have an empty picture.
    """
    store = connect(f"sqlite:///{folder}/mlflow.db") if (folder / "mlflow.db").exists() else new_store(folder)
    outbox = open_outbox(Path("mlruns", "outbox", made.name))
    tags = {"pneumo.data.patients": "told by the generator", "pneumo.data.validation": "0123"}
    study = begun(store, made.name, outbox, experiment_yaml=made.to_yaml(), tags=tags)
    findings = [
        {"kind": "outlier", "severity": "warning", "message": "a.png differs from all others", "pictures": ["a.png"]}
    ]
    outbox.append_files(study.run_id, {"audit.json": json.dumps({"findings": findings})})
    counts = {"num_rows": 60, "patients": 30, "NORMAL": 25, "PNEUMONIA": 35}
    parts = [DatasetPart("validation", "phantoms", "ab" * 16, "phantom:seed=0", counts)]
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    pixels = rng.integers(0, 255, (60, 64, 64), np.uint8)
    names, patients = [f"{n}.png" for n in range(60)], [f"p{n // 2}" for n in range(60)]
    for trial in trials:
        result = trial.result
        key = start_trial(study, trial.number, trial.candidate.hyperparameters, 7, parts)
        log = TrialLog(outbox, key)
        for epoch, value in enumerate(result.history, start=1):
            log.epoch({"val_auc": value, "loss": 1 / epoch}, epoch)
        best = {} if result.value is None else {"best_val_auc": result.value}
        log.finish({**result.metrics, **best, "epochs_trained": float(len(result.history))})
        if result.state == "complete":
            guesses = 1 / (1 + np.exp(-6 * (labels - 0.5) * (result.value or 0) - rng.normal(size=60)))
            stress = "".join(f"change_{k},geometry,0.9,0.8,0.7,0.6\n" for k in range(16))
            drawn = {"roc.png": png(640, 480)}
            if trial.number in plotted:
                mistakes = shown_pictures(labels, guesses, 0.5, None)
                drawn = trial_plots(
                    TrialValues(
                        title=f"{made.name} trial {trial.number}",
                        phantom=False,
                        classes=("NORMAL", "PNEUMONIA"),
                        history=[{"epoch": k, "val_auc": v} for k, v in enumerate(result.history, start=1)],
                        best_epoch=1,
                        threshold=0.5,
                        names=names,
                        patients=patients,
                        causes=["virus" if n % 2 else "bacteria" for n in range(60)],
                        labels=labels,
                        probabilities=guesses.astype(np.float32),
                        shown=mistakes,
                        pixels=pixels[mistakes],
                    )
                )
            log.artifacts(
                {
                    **{f"plots/{name}": content for name, content in drawn.items()},
                    "predictions.csv": predictions_csv(names, patients, labels, guesses),
                    "causes.csv": "class,cause,pictures,patients,wrong,error_rate,error_rate_low,error_rate_high\n"
                    "PNEUMONIA,virus,30,20,3,0.1,0.03,0.26\n",
                    "stress.csv": "change,kind,auc,accuracy,sensitivity,specificity\n" + stress,
                }
            )
        end_trial(study, key, result.state, result.error)
    end_study(study, "FINISHED", metrics={}, artifacts={}, reason="all trials ended")
    send(outbox, store)
    return store
