"""One trial: the only code that a worker process enters. Handed data, cnn, evidence and tracking; gives a result."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumo.compute.place import Channel
from pneumo.spec.candidate import Candidate
from pneumo.spec.errors import TrialError
from pneumo.spec.objective import EPOCH_OBJECTIVES, OBJECTIVES, epoch_objective, objective_metric
from pneumo.spec.result import TrialResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pneumo.cnn.checkpoint import Best, Checkpoint
    from pneumo.cnn.fit import Fitted
    from pneumo.data.prepare import Prepared
    from pneumo.spec.hyperparameters import Hyperparameters
    from pneumo.tracking.trial import TrialLog

LONGEST_ERROR = 500
"""Letters of a failed trial's one line; the whole stack trace is an artifact."""


@dataclass(frozen=True)
class TrialTask:
    """All that a worker needs for one trial.

    `store` is MLflow's address. `objectives`: the first is the trial's value. `seed` is the trial's own, or that of the
    first trial of those it continues. `resume` is the checkpoint to go on from, `keep` where to leave one, both paths.
    """

    study: str
    candidate: Candidate
    run_id: str
    store: str
    objectives: tuple[str, ...]
    seed: int
    data: Prepared
    resume: str | None = None
    keep: str | None = None


def warm_up() -> None:
    """What a worker imports once, while the driver reads the pictures; the rest beside the first trial's training."""
    from pneumo.cnn import device

    device.warm_up()
    from pneumo.tracking import trial  # noqa: F401

    threading.Thread(target=_warm_up_ends, daemon=True).start()


def _warm_up_ends() -> None:
    """What only the end of a trial needs: plots, and MLflow's list of installed packages."""
    from pneumo.evidence import plots
    from pneumo.tracking import trial

    plots.warm_up()
    trial.warm_up()


@contextmanager
def run(task: TrialTask, channel: Channel) -> Iterator[TrialResult]:
    """Train the candidate, record all of it in its MLflow run, and say how it ended, also where training failed.

    A trial that failed leaves no checkpoint. On leaving, what TensorFlow keeps of the trial is given back.
    """
    from pneumo.cnn.build import build
    from pneumo.cnn.device import device, release, resolved
    from pneumo.tracking.store import masked
    from pneumo.tracking.trial import TrialLog

    log, number = TrialLog(task.store, task.run_id), task.candidate.number
    machine = device()
    values = resolved(task.candidate.values, machine)
    log.tag({"pneumo.device": machine.name, "pneumo.precision": values.precision})
    model = None
    try:
        with log.system_metrics():
            model = build(values, seed=task.seed)
            metrics, value, pruned = _train(task, values, model, channel, log)
        result = TrialResult(number, task.run_id, "pruned" if pruned else "complete", value, metrics)
    except (ConnectionError, EOFError):
        raise  # the driver is gone
    except Exception as error:
        if task.keep:
            Path(task.keep).unlink(missing_ok=True)
        log.artifacts({"error.txt": masked(traceback.format_exc())})
        result = TrialResult(number, task.run_id, "failed", error=masked(_one_line(error)))
    yield result
    if model is not None:
        release(model)


def _train(
    task: TrialTask, values: Hyperparameters, model: Any, channel: Channel, log: TrialLog
) -> tuple[dict[str, float], float, bool]:
    """Trains the model and records it. The metrics, the objective's value, and whether the trial was pruned."""
    import numpy as np

    from pneumo.cnn import fit
    from pneumo.cnn.build import compile_model, parameters
    from pneumo.cnn.checkpoint import Checkpoint, save
    from pneumo.cnn.save import saved
    from pneumo.evidence.metrics import epoch_metrics, validation_metrics

    chosen_by = epoch_objective(task.objectives)
    sign = 1.0 if OBJECTIVES[chosen_by] == "maximize" else -1.0
    data = task.data
    pixels = data.pixels(values.image_size)
    truth = data.labels[data.validation].astype("int64")
    training = fit.Pictures(pixels, data.training, data.labels[data.training].astype("int64"))
    full_epochs = task.candidate.full_epochs or values.epochs
    compile_model(model, values, fit.steps_per_epoch(training, values) * full_epochs)
    recipe = _recipe(task, values)
    earlier = _earlier(task, model, recipe, log)
    history = [dict(epoch) for epoch in earlier.history] if earlier else []
    pruned = False

    def after_epoch(epoch: int, trained: Mapping[str, float], probabilities: NDArray[np.float32]) -> fit.Verdict:
        nonlocal pruned
        metrics = {**trained, **epoch_metrics(truth, probabilities)}
        history.append({"epoch": epoch, **metrics})
        log.epoch(metrics, epoch)
        pruned = not channel.report(epoch, metrics[chosen_by], metrics)
        return fit.Verdict(sign * metrics[chosen_by], not pruned)

    def keep(best: Best) -> None:
        if task.keep:
            save(Path(task.keep), model, Checkpoint(best, history), recipe)

    fitted = fit.fit(
        model,
        values,
        training,
        fit.Pictures(pixels, data.validation, truth),
        seed=task.seed,
        after_epoch=after_epoch,
        after_step=channel.progress,
        earlier=earlier,
        keep=keep,
    )
    best = history[fitted.best_epoch - 1]
    metrics = {
        "best_epoch": fitted.best_epoch,
        **{f"best_{name}": best[name] for name in EPOCH_OBJECTIVES},
        **validation_metrics(truth, fitted.probabilities),
        "parameters": parameters(model),
        "predict_ms": fitted.predict_ms,
        "epochs_trained": fitted.epochs,
        "train_seconds": fitted.seconds,
        "images_per_second": fitted.images_per_second,
    }
    logged = None
    if not pruned:
        picture = np.repeat(pixels[data.validation[:1], :, :, None], values.channels, axis=-1)
        logged = log.model(saved(model), picture)
        metrics["model_bytes"] = logged.size
    log.artifacts(_artifacts(task, history, fitted, metrics["threshold"]))
    log.finish(metrics, logged)
    value = float(metrics[objective_metric(task.objectives[0])])
    return {name: float(metric) for name, metric in metrics.items()}, value, pruned


def _recipe(task: TrialTask, values: Hyperparameters) -> dict[str, object]:
    """All that the epochs of a training follow from, and the choice of the best of them, except how many they are."""
    return {
        **values.model_dump(exclude={"epochs"}),
        # Nothing but a schedule looks ahead to the last epoch.
        "full_epochs": None if values.schedule == "constant" else task.candidate.full_epochs or values.epochs,
        "seed": task.seed,
        "best_by": epoch_objective(task.objectives),
        "training": task.data.digest("training"),
        "validation": task.data.digest("validation"),
    }


def _earlier(task: TrialTask, model: Any, recipe: Mapping[str, object], log: TrialLog) -> Checkpoint | None:
    """Fills the model from the checkpoint to go on from, and logs its epochs. None: the trial begins at the first."""
    from pneumo.cnn.checkpoint import CheckpointError, load

    if not task.resume:
        return None
    try:
        earlier = load(Path(task.resume), model, recipe, task.candidate.epochs)
    except CheckpointError as error:
        log.tag({"pneumo.restarted": _one_line(error)})
        return None
    for epoch in earlier.history:
        log.epoch({name: value for name, value in epoch.items() if name != "epoch"}, int(epoch["epoch"]))
    return earlier


def _artifacts(
    task: TrialTask, history: Sequence[Mapping[str, float]], fitted: Fitted, threshold: float
) -> dict[str, str | bytes]:
    from pneumo.evidence.plots import trial_plots
    from pneumo.evidence.tables import history_csv, predictions_csv

    data = task.data
    names = [data.names[row] for row in data.validation]
    patients = [data.patients[row] for row in data.validation]
    truth = data.labels[data.validation]
    plots = trial_plots(
        title=f"{task.study} trial {task.candidate.number}",
        history=history,
        best_epoch=fitted.best_epoch,
        labels=truth,
        probabilities=fitted.probabilities,
        names=names,
        pixels=data.pixels(task.candidate.values.image_size)[data.validation],
        threshold=threshold,
        phantom=data.kind == "phantom",
        classes=data.classes,
    )
    return {
        **{f"plots/{name}": picture for name, picture in plots.items()},
        "history.csv": history_csv(history),
        "predictions.csv": predictions_csv(names, patients, truth, fitted.probabilities, data.classes),
    }


def _one_line(error: Exception) -> str:
    """What went wrong, as a person would say it; the name of the error only where the text does not tell."""
    text = " ".join(str(error).split())
    said = text if isinstance(error, TrialError) else f"{type(error).__name__}: {text}"
    return said[:LONGEST_ERROR]
