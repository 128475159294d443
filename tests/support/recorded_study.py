"""A whole study as a search records it, with made-up predictions in place of networks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.data.prepare import Prepared, prepare
from pneumo.data.sources import open_source
from pneumo.engines.engine_table import open_engine
from pneumo.evidence.metrics import epoch_metrics, validation_metrics
from pneumo.evidence.plots import learning_curves, picture_plots
from pneumo.evidence.tables import history_csv, predictions_csv
from pneumo.search.loop import Ending, Training
from pneumo.search.recorder import StudyRecorder
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.names import Artifacts, Tags
from pneumo.spec.result import TrialResult
from pneumo.tracking.outbox import OUTBOXES, Outbox, open_outbox
from pneumo.tracking.registry import create
from pneumo.tracking.runs import model_of
from pneumo.tracking.sender import Sender
from pneumo.tracking.store import connect
from pneumo.tracking.trial_log import TrialLog
from tests.support.outboxes import saved_model

SPACE = {
    "layers": {"low": 1, "high": 4},
    "filters": [8, 16, 32],
    "learning_rate": {"low": 0.0005, "high": 0.01, "log": True},
}
EPOCHS = 4

INTERRUPTED = 5
"""Number of the trial that was interrupted once and ran again."""

Pictures = NDArray[Any]


def record_study(folder: Path, name: str, trials: int) -> None:
    """Record a study in a folder, whose best trial is registered as version 1 of the model with the study's name."""
    with chdir(folder):
        document = {
            "name": name,
            "data": {"source": "phantom", "phantom": {"patients": 80, "size": 64}, "validation": 0.3},
            "hyperparameters": SPACE | {"epochs": EPOCHS, "image_size": 32},
            "search": {"trials": trials, "algorithm": "random"},
        }
        experiment = build_experiment(document, "the test")
        block = experiment.data
        data = prepare(open_source(block), experiment.image_sizes, block.validation, experiment.search.seed)
        engine = open_engine(experiment, "sqlite:///mlruns/studies.db")
        store, outbox = connect(), open_outbox(OUTBOXES / name)
        lines: list[str] = []
        with Sender(outbox, store, say=lines.append, complain=lines.append) as sender:
            recorder = StudyRecorder(store, outbox, sender, experiment, data, engine, ())
            for _ in range(trials):
                candidate = engine.ask()
                assert isinstance(candidate, Candidate)
                if candidate.number == INTERRUPTED:
                    recorder.end(recorder.begin(Training(candidate)), "killed")
                training = Training(candidate)
                run = recorder.begin(training)
                result = _train(candidate, run, outbox, data)
                engine.tell(result)
                recorder.end(run, "complete")
            assert sender.flush(0), lines
            finished = engine.trials()
            recorder.close(finished, Ending(f"all {trials} trials are done"), (), {})
            assert sender.flush(0), lines
        best = max(finished, key=lambda trial: trial.result.value or 0)
        run_id = outbox.run_id(best.result.run_id) or best.result.run_id
        model_id = model_of(store, run_id)
        assert model_id is not None
        create(store, name, model_id=model_id, run_id=run_id, tags={Tags.DATA: "phantom"}, card="Made-up figures.")


def _train(candidate: Candidate, run: str, outbox: Outbox, data: Prepared) -> TrialResult:
    """Record a training of a network whose predictions are the better, the nearer its learning rate is to 0.003."""
    labels = data.labels[data.validation].astype(np.int64)
    noise = np.random.default_rng(candidate.number).normal(size=len(labels))
    skill = 0.9 - 0.3 * abs(np.log(candidate.values.learning_rate / 0.003))
    log, history = TrialLog(outbox, run, first="val_auc"), list[Mapping[str, float]]()
    probabilities = np.zeros(len(labels), np.float32)
    for epoch in range(1, EPOCHS + 1):
        logits = (2 * labels - 1) * skill * epoch / EPOCHS + noise
        probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
        metrics = {"loss": 1 / epoch, "accuracy": 0.8, "auc": 0.8, "epoch_seconds": 0.1}
        metrics |= epoch_metrics(labels, probabilities)
        history.append({"epoch": epoch, **metrics})
        log.epoch(metrics, epoch)
    saved_model(outbox, run)
    final = {f"best_{name}": history[-1][name] for name in ("val_auc", "val_accuracy", "val_loss")}
    final |= {"best_epoch": EPOCHS, "parameters": 1000.0, **validation_metrics(labels, probabilities)}
    names = [data.names[row] for row in data.validation]
    patients = [data.patients[row] for row in data.validation]
    files: dict[str, str | bytes] = {
        Artifacts.HISTORY: history_csv(history),
        Artifacts.PREDICTIONS: predictions_csv(names, patients, labels, probabilities, data.classes),
    }
    if candidate.number == 0:  # Drawing the plots takes a second.
        plots = picture_plots(
            title="trial 0",
            labels=labels,
            probabilities=probabilities,
            names=names,
            pixels=data.pixels(32)[data.validation],
            threshold=final["threshold"],
            phantom=True,
            classes=data.classes,
        )
        plots["learning_curves.png"] = learning_curves("trial 0", history, EPOCHS)
        files |= {Artifacts.plot(name): png for name, png in plots.items()}
    log.artifacts(files)
    log.finish(final, of_model=True)
    return TrialResult(candidate.number, run, "complete", final["best_val_auc"], final, started=1.0, ended=2.0)
