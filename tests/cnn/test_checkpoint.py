"""A training that goes on from a checkpoint comes to what an unbroken one does, or begins anew."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from pneumo.cnn.build import build, compile_model
from pneumo.cnn.checkpoint import (
    MOST_TIME,
    Best,
    Checkpoint,
    CheckpointError,
    Pace,
    Spent,
    load_checkpoint,
    save_checkpoint,
)
from pneumo.cnn.device import release
from pneumo.cnn.fit import EpochOutcome, Fitted, fit, steps_per_epoch
from pneumo.spec.hyperparameters import Hyperparameters
from tests.support.training_pictures import TINY, TRAINING, VALIDATION, equal

FULL = 4
"""Epochs of the whole training."""

NAN = float("nan")

RECIPE: Mapping[str, object] = {"learning_rate": 0.001, "seed": 3}


def built(values: Mapping[str, Any], epochs: int = FULL) -> tuple[keras.Model, Hyperparameters]:
    asked = Hyperparameters(**{**TINY, **values, "epochs": epochs})
    model = build(asked, seed=3)
    compile_model(model, asked, steps_per_epoch(TRAINING, asked) * FULL)
    return model, asked


def state(model: keras.Model) -> list[npt.NDArray[Any]]:
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


@dataclass
class Part:
    """What one call of `fit` left: the last epoch's variables, the best's weights, the checkpoint's part of it."""

    fitted: Fitted
    last: list[npt.NDArray[Any]]
    best: list[npt.NDArray[Any]]
    history: list[dict[str, float]]


def trained(
    values: Mapping[str, Any],
    epochs: int,
    scores: Sequence[float] = (1, 2, 3, 4),
    resume: Path | None = None,
    keep: Path | None = None,
) -> Part:
    model, asked = built(values, epochs)
    earlier = load_checkpoint(resume, model, RECIPE, epochs) if resume else None
    history = [dict(epoch) for epoch in earlier.history] if earlier else []
    last: list[npt.NDArray[Any]] = []

    def after_epoch(epoch: int, metrics: dict[str, float], _: npt.NDArray[np.float32]) -> EpochOutcome:
        history.append({"epoch": epoch, **metrics})
        return EpochOutcome(scores[epoch - 1], True)

    def left(best: Best, spent: Spent) -> None:
        last[:] = state(model)
        if keep:
            save_checkpoint(keep, model, Checkpoint(best, history, spent), RECIPE)

    fitted = fit(model, asked, TRAINING, VALIDATION, seed=3, after_epoch=after_epoch, earlier=earlier, keep=left)
    part = Part(fitted, last, model.get_weights(), history)
    release(model)
    return part


def timeless(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in epoch.items() if name != "epoch_seconds"} for epoch in history]


def _case(values: dict[str, Any], scores: tuple[float, ...], marks: Any = pytest.mark.slow) -> Any:
    return pytest.param(values, scores, marks=marks, id="-".join(values) or "tutorial")


@pytest.mark.parametrize(
    ("values", "scores"),
    [
        _case({}, (1, 2, 3, 4), ()),
        _case({"dropout": 0.4, "batch_norm": True, "rotation": 10.0, "brightness": 0.2}, (3, 1, 2, 2.5), ()),
        _case({"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.01}, (1, 3, 2, 3)),
        _case({"optimizer": "adamw", "weight_decay": 0.01}, (1, 2, 4, 3)),
        _case({"optimizer": "rmsprop", "momentum": 0.5, "weight_decay": 0.01}, (NAN, NAN, NAN, NAN)),
        _case({"schedule": "cosine", "learning_rate": 0.01, "label_smoothing": 0.1}, (NAN, 1, NAN, 2)),
        _case(
            {"precision": "float16", "dropout": 0.3, "momentum": 0.9, "optimizer": "sgd", "schedule": "cosine"},
            (4, 3, 2, 1),
        ),
        _case({"precision": "bfloat16", "batch_norm": True}, (1, 2, 3, 4)),
        _case(
            {"class_weight": "balanced", "head": "average", "normalization": "standardize", "channels": 1}, (2, 1, 2, 3)
        ),
    ],
)
def test_two_epochs_and_two_more_are_four_epochs(
    tmp_path: Path, values: dict[str, Any], scores: tuple[float, ...]
) -> None:
    path = tmp_path / "2.npz"
    whole = trained(values, FULL, scores)
    first = trained(values, 2, scores, keep=path)
    rest = trained(values, FULL, scores, resume=path, keep=path)
    assert len(whole.last) > len(whole.best)
    assert not equal(first.last, whole.last)
    assert equal(rest.last, whole.last)
    assert equal(rest.best, whole.best)
    assert rest.fitted.best_epoch == whole.fitted.best_epoch
    np.testing.assert_array_equal(rest.fitted.probabilities, whole.fitted.probabilities)
    assert timeless(rest.history) == timeless(whole.history)
    assert rest.history[:2] == first.history
    assert (rest.fitted.spent.epochs, rest.fitted.images) == (FULL, FULL * len(TRAINING))
    assert rest.fitted.spent.seconds > first.fitted.spent.seconds

    model, _ = built(values)
    again = load_checkpoint(path, model, RECIPE, FULL + 1)
    assert (again.best.epoch, again.history) == (whole.fitted.best_epoch, rest.history)
    assert again.spent.epochs == FULL
    assert first.fitted.spent.seconds < again.spent.seconds <= rest.fitted.spent.seconds
    np.testing.assert_equal(again.best.score, scores[again.best.epoch - 1])
    assert equal(again.best.weights, whole.best)
    assert equal(state(model), whole.last)


def test_a_chain_of_three_is_one_training(tmp_path: Path) -> None:
    values = {"dropout": 0.4, "schedule": "cosine"}
    trained(values, 1, keep=tmp_path / "1.npz")
    trained(values, 3, resume=tmp_path / "1.npz", keep=tmp_path / "3.npz")
    rest, whole = trained(values, FULL, resume=tmp_path / "3.npz"), trained(values, FULL)
    assert equal(rest.last, whole.last)
    assert [epoch["epoch"] for epoch in rest.history] == [1, 2, 3, 4]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two epochs, the first of them the best."""
    path = tmp_path_factory.mktemp("checkpoint") / "2.npz"
    trained({}, 2, (2, 1), keep=path)
    return path


def refused(path: Path, values: Mapping[str, Any] | None = None, epochs: int = FULL, **recipe: object) -> str:
    """Why the checkpoint is refused, which leaves the model as it was."""
    model, asked = built(values or {})
    fresh, _ = built(values or {})
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(path, model, {**RECIPE, **recipe}, epochs)
    assert equal(state(model), state(fresh))
    assert asked.epochs == FULL
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_checkpoint_needs_no_pickle_and_leaves_nothing_beside_it(kept: Path) -> None:
    assert [file.name for file in kept.parent.iterdir()] == ["2.npz"]
    with np.load(kept, allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "fiuU" for name in file.files)
        assert json.loads(str(file["about"]))["recipe"] == RECIPE


def test_a_checkpoint_of_something_else_is_refused(kept: Path, tmp_path: Path) -> None:
    assert "FileNotFoundError" in refused(tmp_path / "none.npz")
    assert "its seed is 3, not 4" in refused(kept, seed=4)
    assert "its kernel_size is None, not 3" in refused(kept, kernel_size=3)
    assert "has 2 epochs, more than the 1 to train" in refused(kept, epochs=1)
    assert "(3, 3, 3, 2)" in refused(kept, {"filters": 3})
    assert "arrays of state" in refused(kept, {"optimizer": "sgd"})
    assert "arrays of best" in refused(kept, {"layers": 2})


def test_a_damaged_checkpoint_is_refused(kept: Path, tmp_path: Path) -> None:
    whole, path = kept.read_bytes(), tmp_path / "damaged.npz"
    for damaged in (b"", b"not a zip at all", whole[:100], whole[: len(whole) // 2], whole[:-1], whole[30:]):
        path.write_bytes(damaged)
        assert "damaged.npz" in refused(path)
    np.save(path.open("wb"), np.zeros(3))
    refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.npy", b"\x93NUMPY\x01\x00")
    refused(path)


def test_a_flipped_bit_is_seen_or_changes_nothing(kept: Path, tmp_path: Path) -> None:
    whole, path = kept.read_bytes(), tmp_path / "flipped.npz"
    right, _ = built({})
    best = load_checkpoint(kept, right, RECIPE, FULL).best
    seen = 0
    for at in np.random.default_rng(0).integers(0, len(whole), 60):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(at) % 8
        path.write_bytes(flipped)
        model, _ = built({})
        try:
            loaded = load_checkpoint(path, model, RECIPE, FULL)
        except CheckpointError:
            seen += 1
        else:
            assert equal(state(model), state(right))
            assert equal([loaded.best.probabilities, *loaded.best.weights], [best.probabilities, *best.weights])
    assert seen > 30


def test_a_training_that_fails_to_write_leaves_the_older_checkpoint(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "2.npz"
    model, _ = built({})
    so_far = load_checkpoint(kept, model, RECIPE, FULL)
    save_checkpoint(path, model, so_far, RECIPE)
    before = path.read_bytes()
    assert before == kept.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, model, so_far, RECIPE)
    assert [file.name for file in path.parent.iterdir()] == ["2.npz"]
    assert path.read_bytes() == before


def test_a_training_of_which_all_epochs_are_trained_is_at_its_end(kept: Path) -> None:
    model, asked = built({}, epochs=2)
    earlier = load_checkpoint(kept, model, RECIPE, 2)
    fitted = fit(model, asked, TRAINING, VALIDATION, seed=3, after_epoch=untouched, earlier=earlier)
    assert (fitted.best_epoch, fitted.spent) == (1, earlier.spent)
    np.testing.assert_array_equal(fitted.probabilities, earlier.best.probabilities)
    assert equal(model.get_weights(), earlier.best.weights)
    with pytest.raises(ValueError, match="2 epochs are trained, more than the 1 wanted"):
        fit(model, built({}, 1)[1], TRAINING, VALIDATION, seed=3, after_epoch=untouched, earlier=earlier)


def untouched(*_: Any) -> EpochOutcome:
    raise AssertionError("an epoch was trained")


def test_writing_takes_its_share_of_the_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    pace = Pace()
    assert pace.due  # what a writing takes is not known yet
    with pace.writing():
        clock[0] += 0.3
    assert not pace.due
    clock[0] += 0.3 / MOST_TIME - 0.1
    assert not pace.due
    clock[0] += 0.2
    assert pace.due
