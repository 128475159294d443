"""Log the result of a training in the trial's MLflow run: model, tables, metrics, and the values of its plots.

The driver draws the plots while the next trial trains (`drawing`), or the worker does if the driver is behind. This module
imports scikit-learn; import it after the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pneumo.cnn.build import prediction_network
from pneumo.data.causes import cause_by_name
from pneumo.evidence.causes import causes_csv, figures_by_cause
from pneumo.evidence.stress import judge
from pneumo.evidence.tables import history_csv, predictions_csv
from pneumo.evidence.trial_values import TrialValues, shown_pictures
from pneumo.spec.hyperparameters import Hyperparameters
from pneumo.spec.names import Artifacts, Metrics, Tags
from pneumo.tracking.trial_log import TrialLog
from pneumo.training.drawing import draw_plots
from pneumo.training.task import TrainingResult, TrialTask


def record_training(
    task: TrialTask, values: Hyperparameters, model: Any, training: TrainingResult, log: TrialLog
) -> dict[str, float]:
    """Log the tables, final metrics and plots of a training, and the model unless the training was pruned.

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
    log.artifacts(_tables(task, training))
    log.finish(metrics, of_model=not training.pruned)
    values_of_plots = _plot_values(task, training)
    _log_plots(task, values_of_plots.to_bytes(), log)
    # These tags say that the artifacts are there, so they follow them.
    log.tag({Tags.PLOTS: ", ".join(values_of_plots.plots), **_tags(training)})
    return metrics


def _log_plots(task: TrialTask, values: bytes, log: TrialLog) -> None:
    """Log the plots of a trial, or the values that the driver draws them from."""
    if task.draws:
        try:
            plots = draw_plots(values)
        except Exception:  # A plot is not worth a trial. The driver tries it too, and says what is wrong.
            log.plots(values)
        else:
            log.artifacts(plots)
    else:
        log.plots(values)


def _tags(training: TrainingResult) -> dict[str, str]:
    """Return the tags of what the trained network was judged on besides its validation pictures."""
    tags = {}
    if training.heat_maps and training.heat_maps.missing:
        tags[Tags.GRADCAM] = f"left out: {training.heat_maps.missing}"
    if training.stress:
        worst = judge(training.stress).worst
        tags |= {Tags.STRESS: training.stress.suite, **({Tags.STRESS_WORST: worst.change} if worst else {})}
    return tags


def _example_picture(task: TrialTask, values: Hyperparameters) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the first validation picture as the network takes it, uint8 (1, side, side, channels)."""
    pixels = task.data.pixels(values.image_size)
    return np.repeat(pixels[task.data.validation[:1], :, :, None], values.channels, axis=-1)


def _tables(task: TrialTask, training: TrainingResult) -> dict[str, str | bytes]:
    """Return the tables of a training by their path in the run."""
    data = task.data
    names, patients = _names_and_patients(task)
    labels = data.labels[data.validation]
    tables: dict[str, str | bytes] = {
        Artifacts.HISTORY: history_csv(training.history),
        Artifacts.PREDICTIONS: predictions_csv(names, patients, labels, training.probabilities, data.classes),
    }
    causes = _causes(names)
    if any(causes):
        threshold = training.metrics[Metrics.THRESHOLD]
        figures = figures_by_cause(labels, training.probabilities, threshold, causes, patients)
        tables[Artifacts.CAUSES] = causes_csv(figures, data.classes)
    if training.stress:
        tables[Artifacts.STRESS] = judge(training.stress).to_csv()
        tables[Artifacts.STRESS_PREDICTIONS] = training.stress.to_bytes()
    return tables


def _plot_values(task: TrialTask, training: TrainingResult) -> TrialValues:
    """Return what the driver draws the plots of a training from."""
    data = task.data
    names, patients = _names_and_patients(task)
    labels, threshold = data.labels[data.validation], training.metrics[Metrics.THRESHOLD]
    shown = shown_pictures(labels, training.probabilities, threshold, training.heat_maps)
    return TrialValues(
        title=f"{task.study} trial {task.candidate.number}",
        phantom=data.kind == "phantom",
        classes=data.classes,
        history=training.history,
        best_epoch=int(training.metrics[Metrics.BEST_EPOCH]),
        threshold=threshold,
        names=names,
        patients=patients,
        causes=_causes(names),
        labels=labels,
        probabilities=training.probabilities,
        shown=shown,
        pixels=data.pixels(task.candidate.values.image_size)[data.validation[shown]],
        stress=training.stress,
        heat_maps=training.heat_maps,
    )


def _names_and_patients(task: TrialTask) -> tuple[list[str], list[str]]:
    """Return the names and the patients of the validation pictures."""
    data = task.data
    return [data.names[row] for row in data.validation], [data.patients[row] for row in data.validation]


def _causes(names: Sequence[str]) -> list[str]:
    """Return the causes that names tell; empty if a name tells none."""
    return [cause_by_name(name) or "" for name in names]
