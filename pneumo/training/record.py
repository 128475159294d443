"""Log the result of a training in the trial's MLflow run: model, plots, tables and metrics.

This module imports Matplotlib and scikit-learn; import it after the training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pneumo.cnn.build import prediction_network
from pneumo.evidence.plots import trial_plots
from pneumo.evidence.stress import StressFigures, StressPredictions, judge
from pneumo.evidence.stress_plot import stress_plot
from pneumo.evidence.tables import history_csv, predictions_csv
from pneumo.spec.hyperparameters import Hyperparameters
from pneumo.spec.names import Artifacts, Metrics, Tags
from pneumo.tracking.trial_log import TrialLog
from pneumo.training.task import TrainingResult, TrialTask


def record_training(
    task: TrialTask, values: Hyperparameters, model: Any, training: TrainingResult, log: TrialLog
) -> dict[str, float]:
    """Log the artifacts and final metrics of a training, and the model unless the training was pruned.

    Args:
        task: The trial.
        values: The candidate's hyperparameters with the precision resolved.
        model: The trained network (`keras.Model`).
        training: The result of the training.
        log: The log of the trial's run.

    Returns:
        The metrics of the training, with `model_bytes` if the model was logged.

    Raises:
        OSError: The disk is full.
    """
    metrics = dict(training.metrics)
    if not training.pruned:
        metrics[Metrics.MODEL_BYTES] = float(
            log.model(prediction_network(model, values), _example_picture(task, values))
        )
    log.artifacts(_artifacts(task, training))
    if training.stress:
        figures = judge(training.stress)
        log.artifacts(_stress_artifacts(task, training.stress, figures))
        # The tag says that the artifacts are there, so it follows them.
        worst = {Tags.STRESS_WORST: figures.worst.change} if figures.worst else {}
        log.tag({Tags.STRESS: training.stress.suite, **worst})
    log.finish(metrics, of_model=not training.pruned)
    return metrics


def _example_picture(task: TrialTask, values: Hyperparameters) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the first validation picture as the network takes it, uint8 (1, side, side, channels)."""
    pixels = task.data.pixels(values.image_size)
    return np.repeat(pixels[task.data.validation[:1], :, :, None], values.channels, axis=-1)


def _artifacts(task: TrialTask, training: TrainingResult) -> dict[str, str | bytes]:
    """Return the plots and tables of a training by their path in the run."""
    data = task.data
    names = [data.names[row] for row in data.validation]
    patients = [data.patients[row] for row in data.validation]
    labels = data.labels[data.validation]
    plots = trial_plots(
        title=f"{task.study} trial {task.candidate.number}",
        history=training.history,
        best_epoch=int(training.metrics[Metrics.BEST_EPOCH]),
        labels=labels,
        probabilities=training.probabilities,
        names=names,
        pixels=data.pixels(task.candidate.values.image_size)[data.validation],
        threshold=training.metrics[Metrics.THRESHOLD],
        phantom=data.kind == "phantom",
        classes=data.classes,
    )
    return {
        **{Artifacts.plot(name): png for name, png in plots.items()},
        Artifacts.HISTORY: history_csv(training.history),
        Artifacts.PREDICTIONS: predictions_csv(names, patients, labels, training.probabilities, data.classes),
    }


def _stress_artifacts(
    task: TrialTask, predictions: StressPredictions, figures: StressFigures
) -> dict[str, str | bytes]:
    """Return the plot, the table and the predictions under the changes of the stress suite by their path in the run."""
    title, phantom = f"{task.study} trial {task.candidate.number}", task.data.kind == "phantom"
    return {
        Artifacts.plot("stress.png"): stress_plot(title, figures, phantom=phantom),
        Artifacts.STRESS: figures.to_csv(),
        Artifacts.STRESS_PREDICTIONS: predictions.to_bytes(),
    }
