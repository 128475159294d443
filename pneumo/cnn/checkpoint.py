"""What a training leaves behind so that another goes on from there: one file, all of it or nothing.

The file is a zip of NumPy arrays, as `numpy.load` reads them, without pickle:

    about          text, JSON: the recipe, the history, the best epoch and its score, what was spent
    state/<k>      the model's variables, then its optimizer's, after the last epoch
    probabilities  float32 (n,), of the validation pictures at the best epoch
    best/<k>       the best epoch's weights; left out where that is the last epoch, whose weights `state` has
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

from pneumo.spec.errors import TrialError

MOST_TIME = 0.03
"""Share of a training's time that writing may take. Handing 63 MB to the system, a file of the tutorial's network, takes
0.1 s; a busy disk then takes a second or more."""


@dataclass(frozen=True, eq=False)
class Best:
    """The best epoch so far, counted from 1.

    `score` is the caller's, more is better; NaN where no epoch had one. `probabilities`: float32 (n,), of the validation
    pictures. `weights`: as `model.get_weights` gives them.
    """

    epoch: int
    score: float
    probabilities: npt.NDArray[np.float32]
    weights: list[npt.NDArray[Any]]


@dataclass(frozen=True)
class Spent:
    """What the epochs of one trial have cost so far, in however many processes they were trained.

    `epochs`, how many; `seconds` of training and predicting, without the caller's part of it; `predict_ms`, milliseconds a
    validation picture, after the epoch where it was quickest, as the least disturbed.
    """

    epochs: int = 0
    seconds: float = 0.0
    predict_ms: float = math.inf


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """How far a training has come, beside what its model and optimizer hold.

    `history` has what the caller keeps of each epoch, from the first: as many are trained. `spent` is of those that the
    trial itself has trained, not of one that it continues.
    """

    best: Best
    history: Sequence[Mapping[str, float]]
    spent: Spent = Spent()


class CheckpointError(TrialError):
    """Nothing can go on from this file; the message says why, in one line."""


class Pace:
    """When a checkpoint is due: so often that writing takes at most `MOST_TIME` of the time.

    So what is lost with a process is 33 times what one writing takes, and the epoch under way.
    """

    def __init__(self) -> None:
        self._since, self._took = time.perf_counter(), 0.0

    @property
    def due(self) -> bool:
        return self._took <= MOST_TIME * (time.perf_counter() - self._since)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measures what one writing takes."""
        begun = time.perf_counter()
        yield
        self._since = time.perf_counter()
        self._took = self._since - begun


class Writer:
    """Saves the checkpoints of one training at `path`; a context, at whose end the last one is on the disk.

    What a file still needs to be there, the disk does beside the next epoch.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._pace = path, Pace()
        self._disk = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._disk.shutdown()
        if self._last and error is None:
            self._last.result()

    @property
    def due(self) -> bool:
        return self._pace.due

    def save(self, model: keras.Model, checkpoint: Checkpoint, recipe: Mapping[str, object]) -> None:
        """As the function `save`; also raises the `OSError` of the one before."""
        with self._pace.writing():
            if self._last:
                self._last.result()
            written = _written(self._path, model, checkpoint, recipe)
            self._last = self._disk.submit(_settle, written, self._path)


def save_checkpoint(path: Path, model: keras.Model, checkpoint: Checkpoint, recipe: Mapping[str, object]) -> None:
    """Write the state of a compiled model and its optimizer after the last epoch of `checkpoint.history`.

    `recipe` is all that the training follows from except how many epochs it has, as JSON values: only who has the same
    can go on from the file. An earlier file at `path` is replaced, when the new one is whole and on the disk. Raises
    `OSError`.
    """
    _settle(_written(path, model, checkpoint, recipe), path)


def load_checkpoint(path: Path, model: keras.Model, recipe: Mapping[str, object], epochs: int) -> Checkpoint:
    """Fill a compiled model and its optimizer with what `save` wrote.

    Raises `CheckpointError`, with the model untouched, where the file is missing or damaged, is of another recipe, has
    variables of other shapes or dtypes, or was trained beyond epoch `epochs`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            history: list[dict[str, float]] = about["history"]
            _check(about["recipe"], recipe, len(history), epochs)
            spent = Spent(**about["spent"])
            probabilities = file["probabilities"]
            last_is_best = about["best_epoch"] == len(history)
            weights = [] if last_is_best else list(_read(file, "best", model.weights))
            for _ in _read(file, "state", _variables(model)):
                pass  # all of it is sound and fits, before the first variable is changed
    except Exception as error:  # damaged bytes raise whatever their reader stumbles over
        reason = error if isinstance(error, CheckpointError) else f"cannot be read: {type(error).__name__}: {error}"
        raise CheckpointError(" ".join(f"checkpoint {path.name}: {reason}".split())) from error
    with np.load(path, allow_pickle=False) as file:
        for variable, array in zip(_variables(model), _read(file, "state", _variables(model)), strict=True):
            variable.assign(array)
    best = Best(about["best_epoch"], about["best_score"], probabilities, weights or model.get_weights())
    return Checkpoint(best, history, spent)


def _written(path: Path, model: keras.Model, checkpoint: Checkpoint, recipe: Mapping[str, object]) -> Path:
    """The whole file, beside `path`, as far as this process and the system's memory go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            # `numpy.savez` would want all arrays at once, a second copy of the whole state.
            for name, array in _arrays(model, checkpoint, recipe):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _settle(written: Path, path: Path) -> None:
    """Puts a written file in its place, once it is on the disk: a power failure could else leave a name and no bytes."""
    try:
        with written.open("rb+") as file:
            os.fsync(file.fileno())
        written.replace(path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def _variables(model: keras.Model) -> list[keras.Variable]:
    """All that training changes: weights, statistics of batch normalization, random states, the optimizer's own."""
    return [*model.variables, *model.optimizer.variables]


def _arrays(
    model: keras.Model, checkpoint: Checkpoint, recipe: Mapping[str, object]
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    best, history = checkpoint.best, checkpoint.history
    about = {
        "recipe": dict(recipe),
        "history": [dict(epoch) for epoch in history],
        "best_epoch": best.epoch,
        "best_score": best.score,
        "spent": asdict(checkpoint.spent),
    }
    yield "about", np.array(json.dumps(about))
    yield "probabilities", best.probabilities
    for k, variable in enumerate(_variables(model)):
        yield f"state/{k}", variable.numpy()
    if best.epoch < len(history):
        for k, weight in enumerate(best.weights):
            yield f"best/{k}", weight


def _check(found: Mapping[str, object], wanted: Mapping[str, object], trained: int, epochs: int) -> None:
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise CheckpointError(f"is of another training: its {name} is {found.get(name)}, not {wanted.get(name)}")
    if trained > epochs:
        raise CheckpointError(f"has {trained} epochs, more than the {epochs} to train")


def _read(file: Any, folder: str, variables: Sequence[keras.Variable]) -> Iterator[npt.NDArray[Any]]:
    """The arrays of one folder of the file, one for each variable. Reading one checks its CRC."""
    held = sum(name.startswith(f"{folder}/") for name in file.files)
    if held != len(variables):
        raise CheckpointError(f"holds {held} arrays of {folder}, not {len(variables)}")
    for k, variable in enumerate(variables):
        array = file[f"{folder}/{k}"]
        found, wanted = (array.shape, str(array.dtype)), (tuple(variable.shape), variable.dtype)
        if found != wanted:
            raise CheckpointError(f"its {folder}/{k} is {found}, not {wanted} as {variable.path}")
        yield array
