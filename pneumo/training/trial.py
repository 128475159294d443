"""One trial: the only code that a worker process enters. Handed data, cnn, evidence and tracking; gives a result."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pneumo.compute import disk
from pneumo.compute.place import Channel
from pneumo.spec.candidate import Candidate
from pneumo.spec.errors import LESS_MEMORY, FullDiskError, TrialError
from pneumo.spec.masking import mask_passwords
from pneumo.spec.objective import EPOCH_OBJECTIVES, OBJECTIVES, epoch_objective, objective_metric
from pneumo.spec.result import TrialResult
from pneumo.training import provenance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pneumo.cnn.checkpoint import Best, Checkpoint, Spent
    from pneumo.data.prepare import Prepared
    from pneumo.spec.hyperparameters import Hyperparameters
    from pneumo.tracking.outbox import Outbox
    from pneumo.tracking.trial_log import TrialLog

LONGEST_ERROR = 500
"""Letters of a failed trial's one line; the whole stack trace is an artifact."""


@dataclass(frozen=True)
class TrialTask:
    """All that a worker needs for one trial.

    `outbox` takes what goes to MLflow; None where nothing does. `objectives`: the first is the trial's value. `seed` is the
    trial's own, or that of the first trial of those it continues. `keep` is where the trial leaves its checkpoints, and goes
    on from the one that it left before it was killed; `resume` is the checkpoint of the trial that it continues. Both are
    paths.
    """

    study: str
    candidate: Candidate
    run_id: str
    outbox: Outbox | None
    objectives: tuple[str, ...]
    seed: int
    data: Prepared
    resume: str | None = None
    keep: str | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training came to; plain values, so that who receives it needs no TensorFlow.

    `history` has the metrics of each epoch from the first, `metrics` what is known once, at the end; `probabilities`:
    float32 (n,), of the validation pictures at the best epoch. `pruned`: it was told to stop.
    """

    history: Sequence[Mapping[str, float]]
    metrics: Mapping[str, float]
    probabilities: NDArray[np.float32]
    pruned: bool


class EpochLog(Protocol):
    """What a training tells while it lasts (see `tracking.trial.TrialLog`)."""

    def tag(self, tags: Mapping[str, str]) -> None: ...

    def epoch(self, metrics: Mapping[str, float], epoch: int) -> None: ...


def warm_up() -> None:
    """What a worker imports once, while the driver reads the pictures; the rest beside the first trial's training."""
    from pneumo.cnn import device

    device.warm_up()
    from pneumo.tracking import trial_log  # noqa: F401

    threading.Thread(target=_warm_up_ends, daemon=True).start()


def _warm_up_ends() -> None:
    """What only the end of a trial needs: plots, and MLflow's list of installed packages."""
    from pneumo.evidence import plots
    from pneumo.tracking import trial_log

    plots.warm_up()
    trial_log.warm_up()


@contextmanager
def run_trial(task: TrialTask, channel: Channel) -> Iterator[TrialResult | FullDiskError]:
    """Train the candidate, record all of it in its MLflow run, and say how it ended, also where training failed.

    Where memory ran out, this process takes no further trial; a full disk is no failure of the trial. On leaving, what
    TensorFlow keeps of the trial is given back.
    """
    from pneumo.cnn.build import build
    from pneumo.cnn.device import device, release, resolved
    from pneumo.tracking.trial_log import TrialLog

    assert task.outbox is not None
    log, number = TrialLog(task.outbox, task.run_id), task.candidate.number
    machine = device()
    values = resolved(task.candidate.values, machine)
    model = None
    result: TrialResult | FullDiskError
    try:
        log.tag({"pneumo.device": machine.name, "pneumo.precision": values.precision, **provenance.tags()})
        with log.system_metrics():
            model = build(values, seed=task.seed)
            trained = _train(task, values, model, channel, log)
            metrics = _record(task, values, model, trained, log)
        value = metrics[objective_metric(task.objectives[0])]
        result = TrialResult(number, task.run_id, "pruned" if trained.pruned else "complete", value, metrics)
    except (ConnectionError, EOFError):
        raise  # the driver is gone
    except Exception as error:
        result = _failed(task, channel, log, error)
    yield result
    if model is not None:
        release(model)


def _failed(task: TrialTask, channel: Channel, log: TrialLog, error: Exception) -> TrialResult | FullDiskError:
    """The result of a trial that an error ended, whose stack trace is logged."""
    from pneumo.cnn.device import device, out_of_memory

    if disk.is_full_disk(error):
        return FullDiskError(disk.describe_full_disk(error))
    text, said = "".join(traceback.format_exception(error)), _one_line(error)
    if where := out_of_memory(error, device()):
        channel.retire()
        said = f"out of memory on the {where}; {LESS_MEMORY}"
        # What the frames hold is needed to write this down.
        traceback.clear_frames(error.__traceback__)
    try:
        log.artifacts({"error.txt": mask_passwords(text)})
    except Exception as second:
        if not disk.is_full_disk(second):
            raise
        return FullDiskError(disk.describe_full_disk(second))
    return TrialResult(task.candidate.number, task.run_id, "failed", error=mask_passwords(said))


def warm_up_deterministic() -> None:
    """`warm_up` for `replay`."""
    from pneumo.cnn import device

    device.warm_up(deterministic=True)


@contextmanager
def replay_trial(task: TrialTask | None, channel: Channel) -> Iterator[Trained | TrialError | str]:
    """Train the candidate and record nothing; of a training that fails its error, in one line.

    Without a task: the name of the device that it would train on. For a process of its own, which takes one training.
    """
    from pneumo.cnn.build import build
    from pneumo.cnn.device import device, resolved

    machine = device()
    if task is None:
        yield machine.name
        return
    values = resolved(task.candidate.values, machine)
    ended: Trained | TrialError
    try:
        ended = _train(task, values, build(values, seed=task.seed), channel, _Unrecorded())
    except (ConnectionError, EOFError):
        raise  # who asked is gone
    except Exception as error:
        ended = TrialError(_one_line(error))
    yield ended


class _Unrecorded:
    """An `EpochLog` that keeps nothing."""

    def tag(self, tags: Mapping[str, str]) -> None:
        pass

    def epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        pass


def _train(task: TrialTask, values: Hyperparameters, model: Any, channel: Channel, log: EpochLog) -> Trained:
    """Trains the model, which then has the weights of the best epoch."""
    from pneumo.cnn import fit
    from pneumo.cnn.build import compile_model, network_parameters
    from pneumo.cnn.checkpoint import Checkpoint, Writer
    from pneumo.evidence.metrics import epoch_metrics, validation_metrics

    chosen_by = epoch_objective(task.objectives)
    sign = 1.0 if OBJECTIVES[chosen_by] == "maximize" else -1.0
    data = task.data
    pixels = data.pixels(values.image_size)
    truth = data.labels[data.validation].astype("int64")
    training = fit.Examples(pixels, data.training, data.labels[data.training].astype("int64"))
    full_epochs = task.candidate.full_epochs or values.epochs
    compile_model(model, values, fit.steps_per_epoch(training, values) * full_epochs)
    recipe = _recipe(task, values)
    earlier = _earlier(task, model, recipe, log)
    history = [dict(epoch) for epoch in earlier.history] if earlier else []
    pruned = False
    # Of its own epochs the study hears again: so it judges the trial, and draws its curve, as if it were unbroken.
    for epoch in history[len(history) - earlier.spent.epochs :] if earlier else []:
        metrics = {name: value for name, value in epoch.items() if name != "epoch"}
        pruned = not channel.report(int(epoch["epoch"]), metrics[chosen_by], metrics)
    if pruned:
        values = values.model_copy(update={"epochs": len(history)})

    def after_epoch(epoch: int, trained: Mapping[str, float], probabilities: NDArray[np.float32]) -> fit.EpochOutcome:
        nonlocal pruned
        metrics = {**trained, **epoch_metrics(truth, probabilities)}
        history.append({"epoch": epoch, **metrics})
        log.epoch(metrics, epoch)
        pruned = not channel.report(epoch, metrics[chosen_by], metrics)
        return fit.EpochOutcome(sign * metrics[chosen_by], not pruned)

    def keep(best: Best, spent: Spent) -> None:
        last = pruned or len(history) == values.epochs
        if writer and (writer.due or (last and task.candidate.can_continue)):
            writer.save(model, Checkpoint(best, history, spent), recipe)

    with Writer(Path(task.keep)) if task.keep else nullcontext() as writer:
        fitted = fit.fit(
            model,
            values,
            training,
            fit.Examples(pixels, data.validation, truth),
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
        "parameters": network_parameters(model),
        "predict_ms": fitted.spent.predict_ms,
        "epochs_trained": fitted.spent.epochs,
        "train_seconds": fitted.spent.seconds,
        "images_per_second": fitted.images_per_second,
    }
    known = {name: float(metric) for name, metric in metrics.items()}
    return Trained(history, known, fitted.probabilities, pruned)


def _record(task: TrialTask, values: Hyperparameters, model: Any, trained: Trained, log: TrialLog) -> dict[str, float]:
    """Logs all that a training left, of one that was not pruned the model too. Its metrics with those of the model."""
    import numpy as np

    from pneumo.cnn.save import saved

    data, metrics = task.data, dict(trained.metrics)
    if not trained.pruned:
        pixels = data.pixels(values.image_size)
        picture = np.repeat(pixels[data.validation[:1], :, :, None], values.channels, axis=-1)
        metrics["model_bytes"] = float(log.model(saved(model), picture))
    log.artifacts(_artifacts(task, trained))
    log.finish(metrics, of_model=not trained.pruned)
    return metrics


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


def _earlier(task: TrialTask, model: Any, recipe: Mapping[str, object], log: EpochLog) -> Checkpoint | None:
    """Fills the model from the checkpoint to go on from, and logs its epochs. None: the trial begins at the first.

    That is the trial's own, which it left before it was killed, else that of the trial that it continues.
    """
    from pneumo.cnn.checkpoint import CheckpointError, Spent, load_checkpoint

    own = task.keep if task.keep and Path(task.keep).exists() else None
    earlier, errors = None, []
    for path in filter(None, (own, task.resume)):
        try:
            earlier = load_checkpoint(Path(path), model, recipe, task.candidate.epochs)
        except CheckpointError as error:
            errors.append(_one_line(error))
            continue
        if path == own:
            log.tag({"pneumo.continued": f"after epoch {len(earlier.history)}"})
        else:
            earlier = replace(earlier, spent=Spent())  # by another trial
        break
    if errors:
        log.tag({"pneumo.restarted": "; ".join(errors)})
    for epoch in earlier.history if earlier else []:
        log.epoch({name: value for name, value in epoch.items() if name != "epoch"}, int(epoch["epoch"]))
    return earlier


def _artifacts(task: TrialTask, trained: Trained) -> dict[str, str | bytes]:
    from pneumo.evidence.plots import trial_plots
    from pneumo.evidence.tables import history_csv, predictions_csv

    data = task.data
    names = [data.names[row] for row in data.validation]
    patients = [data.patients[row] for row in data.validation]
    truth = data.labels[data.validation]
    plots = trial_plots(
        title=f"{task.study} trial {task.candidate.number}",
        history=trained.history,
        best_epoch=int(trained.metrics["best_epoch"]),
        labels=truth,
        probabilities=trained.probabilities,
        names=names,
        pixels=data.pixels(task.candidate.values.image_size)[data.validation],
        threshold=trained.metrics["threshold"],
        phantom=data.kind == "phantom",
        classes=data.classes,
    )
    return {
        **{f"plots/{name}": picture for name, picture in plots.items()},
        "history.csv": history_csv(trained.history),
        "predictions.csv": predictions_csv(names, patients, truth, trained.probabilities, data.classes),
    }


def _one_line(error: Exception) -> str:
    """What went wrong, as a person would say it; the name of the error only where the text does not tell."""
    text = " ".join(str(error).split())
    said = text if isinstance(error, TrialError) else f"{type(error).__name__}: {text}"
    return said[:LONGEST_ERROR]
