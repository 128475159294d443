"""Save and load the state of a training, so that another process can resume it.

A checkpoint is one file, replaced as a whole: a zip of NumPy arrays that `numpy.load` reads, without pickle.

    about          text, JSON: recipe, history, number and score of the best epoch, cost so far
    state/<k>      the variables of the model, then those of its optimizer, after the last epoch
    probabilities  float32 (n,), of the validation pictures at the best epoch
    best/<k>       the weights of the best epoch; left out if `state` has them: it is the last epoch, and its weights are not
                   averaged ones
"""

from __future__ import annotations

import json
import math
import os
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt

from pneumo.cnn.optimizer import averages_weights
from pneumo.spec.errors import TrialError
from pneumo.spec.hyperparameters import TUTORIAL

MAX_WRITE_SHARE = 0.03
"""Largest share of a training's time that writing checkpoints may take. Handing 63 MB, a file of the tutorial's network, to
the system takes 0.1 s; on a busy disk it takes a second or more."""


@dataclass(frozen=True, eq=False)
class BestEpoch:
    """The best epoch of a training so far.

    Attributes:
        epoch: Its number, from 1.
        score: The caller's score of it, larger is better; NaN if no epoch had a score.
        probabilities: float32 (n,), of the validation pictures.
        weights: As `model.get_weights` returns them.
    """

    epoch: int
    score: float
    probabilities: npt.NDArray[np.float32]
    weights: list[npt.NDArray[Any]]


@dataclass(frozen=True)
class TrainingCost:
    """The time that the epochs of one trial have taken so far, summed over all processes that trained them.

    Attributes:
        epochs: Number of epochs.
        seconds: Training and predicting, without the time in the caller's functions.
        predict_ms: Milliseconds per validation picture, in the epoch whose prediction was fastest (the least disturbed
            measurement).
    """

    epochs: int = 0
    seconds: float = 0.0
    predict_ms: float = math.inf


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The progress of a training, apart from the variables of its model and optimizer.

    Attributes:
        best: The best epoch so far.
        history: The caller's record of each epoch from the first. Its length is the number of trained epochs.
        cost: The cost of the epochs that the trial trained itself, without those of a trial that it continues.
    """

    best: BestEpoch
    history: Sequence[Mapping[str, float]]
    cost: TrainingCost = TrainingCost()


class CheckpointError(TrialError):
    """A training cannot resume from this file; the message is the reason, in one line."""


class WritePace:
    """Limits how often checkpoints are written, so that writing takes at most `MAX_WRITE_SHARE` of the time.

    A process that dies therefore loses at most 33 times the duration of one write, and the epoch that it was training.
    """

    def __init__(self) -> None:
        self._last_write, self._duration = time.perf_counter(), 0.0

    @property
    def is_due(self) -> bool:
        return self._duration <= MAX_WRITE_SHARE * (time.perf_counter() - self._last_write)

    @contextmanager
    def measure_write(self) -> Iterator[None]:
        """Measure the duration of one write."""
        start = time.perf_counter()
        yield
        self._last_write = time.perf_counter()
        self._duration = self._last_write - start


class CheckpointWriter:
    """Writes the checkpoints of one training to `path`.

    A thread waits for the disk while the next epoch is trained. On leaving the context, the last checkpoint is on the disk.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._pace = path, WritePace()
        self._disk = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._disk.shutdown()
        if self._last and error is None:
            self._last.result()

    @property
    def is_due(self) -> bool:
        """Whether a checkpoint may be written now, see `WritePace`."""
        return self._pace.is_due

    def save(self, model: keras.Model, checkpoint: Checkpoint, recipe: Mapping[str, object]) -> None:
        """Write a checkpoint as `save_checkpoint` does, and return before the disk has it.

        Raises:
            OSError: This checkpoint or the one before could not be written.
        """
        with self._pace.measure_write():
            if self._last:
                self._last.result()
            temporary = _write_temporary(self._path, model, checkpoint, recipe)
            self._last = self._disk.submit(_sync_and_rename, temporary, self._path)


def save_checkpoint(path: Path, model: keras.Model, checkpoint: Checkpoint, recipe: Mapping[str, object]) -> None:
    """Write the state of a model and its optimizer after the last epoch of `checkpoint.history`.

    An earlier file at `path` is replaced once the new one is complete and on the disk.

    Args:
        path: The file to write; missing folders are created.
        model: A compiled model.
        checkpoint: The progress of the training.
        recipe: Everything that the results of the training depend on, except its number of epochs, as JSON values. Only
            a training with an equal recipe can resume from the file.

    Raises:
        OSError: The file could not be written.
    """
    _sync_and_rename(_write_temporary(path, model, checkpoint, recipe), path)


def load_checkpoint(path: Path, model: keras.Model, recipe: Mapping[str, object], epochs: int) -> Checkpoint:
    """Load a checkpoint into a compiled model and its optimizer.

    Args:
        path: A file that `save_checkpoint` wrote.
        model: The model whose variables are set. It is left as it was if the file is refused.
        recipe: The recipe of the training that resumes.
        epochs: Number of epochs of the training that resumes.

    Returns:
        The progress of the training that wrote the file.

    Raises:
        CheckpointError: The file is missing or damaged, its recipe is another, its variables have other shapes or dtypes,
            or it has more epochs than `epochs`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            history: list[dict[str, float]] = about["history"]
            _check_recipe(about["recipe"], recipe, len(history), epochs)
            cost = TrainingCost(**about["spent"])
            probabilities = file["probabilities"]
            best_in_state = _best_in_state(model, about["best_epoch"], len(history))
            weights = [] if best_in_state else list(_read_arrays(file, "best", model.weights))
            for _ in _read_arrays(file, "state", _variables(model)):
                pass  # check all arrays before the first variable is changed
    except Exception as error:  # damaged bytes raise exceptions of many types
        reason = error if isinstance(error, CheckpointError) else f"cannot be read: {type(error).__name__}: {error}"
        raise CheckpointError(" ".join(f"checkpoint {path.name}: {reason}".split())) from error
    with np.load(path, allow_pickle=False) as file:
        for variable, array in zip(_variables(model), _read_arrays(file, "state", _variables(model)), strict=True):
            variable.assign(array)
    best = BestEpoch(about["best_epoch"], about["best_score"], probabilities, weights or model.get_weights())
    return Checkpoint(best, history, cost)


def _write_temporary(path: Path, model: keras.Model, checkpoint: Checkpoint, recipe: Mapping[str, object]) -> Path:
    """Write the complete file beside `path` and return its path. The system may not have it on the disk yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            # `numpy.savez` takes all arrays at once, which would be a second copy of the whole state in memory.
            for name, array in _named_arrays(model, checkpoint, recipe):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_and_rename(temporary: Path, path: Path) -> None:
    """Rename a written file once it is on the disk; otherwise a power failure could leave an empty file at `path`."""
    try:
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Return all that training changes: weights, batch normalization's statistics, random states, the optimizer's own."""
    return [*model.variables, *model.optimizer.variables]


def _named_arrays(
    model: keras.Model, checkpoint: Checkpoint, recipe: Mapping[str, object]
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield the arrays of a file with their names, in the order in which they are written."""
    best, history = checkpoint.best, checkpoint.history
    about = {
        "recipe": dict(recipe),
        "history": [dict(epoch) for epoch in history],
        "best_epoch": best.epoch,
        "best_score": best.score,
        "spent": asdict(checkpoint.cost),
    }
    yield "about", np.array(json.dumps(about))
    yield "probabilities", best.probabilities
    for k, variable in enumerate(_variables(model)):
        yield f"state/{k}", variable.numpy()
    if not _best_in_state(model, best.epoch, len(history)):
        for k, weight in enumerate(best.weights):
            yield f"best/{k}", weight


def _best_in_state(model: keras.Model, best_epoch: int, trained: int) -> bool:
    """Return whether the model's own weights after `trained` epochs are those of the best epoch."""
    return best_epoch == trained and not averages_weights(model)


def _check_recipe(stored: Mapping[str, object], expected: Mapping[str, object], trained: int, epochs: int) -> None:
    """Raise `CheckpointError` if the recipes differ or `trained` epochs are more than `epochs`.

    A recipe of an earlier version lacks the hyperparameters that are new since; it was trained with their defaults.
    """
    for name in sorted({*stored, *expected}):
        default = getattr(TUTORIAL, name, None)
        before, now = stored.get(name, default), expected.get(name, default)
        if before != now:
            raise CheckpointError(f"is of another training: its {name} is {before}, not {now}")
    if trained > epochs:
        raise CheckpointError(f"has {trained} epochs, more than the {epochs} to train")


def _read_arrays(file: Any, folder: str, variables: Sequence[keras.Variable]) -> Iterator[npt.NDArray[Any]]:
    """Yield the arrays of one folder of the file, one for each variable. NumPy checks the CRC of each."""
    count = sum(name.startswith(f"{folder}/") for name in file.files)
    if count != len(variables):
        raise CheckpointError(f"holds {count} arrays of {folder}, not {len(variables)}")
    for k, variable in enumerate(variables):
        array = file[f"{folder}/{k}"]
        stored, expected = (array.shape, str(array.dtype)), (tuple(variable.shape), variable.dtype)
        if stored != expected:
            raise CheckpointError(f"its {folder}/{k} is {stored}, not {expected} as {variable.path}")
        yield array
