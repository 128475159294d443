"""Tests of pneumo.cnn.checkpoint: a resumed training equals an uninterrupted one; a wrong or damaged file is refused."""

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

from pneumo.cnn.batches import steps_per_epoch
from pneumo.cnn.build import build
from pneumo.cnn.checkpoint import (
    MAX_WRITE_SHARE,
    BestEpoch,
    Checkpoint,
    CheckpointError,
    TrainingCost,
    WritePace,
    load_checkpoint,
    save_checkpoint,
)
from pneumo.cnn.device import release_memory
from pneumo.cnn.fit import EpochOutcome, FitResult, fit
from pneumo.cnn.optimizer import compile_model
from pneumo.spec.hyperparameters import Hyperparameters
from tests.support.training_pictures import TINY, TRAINING, VALIDATION, equal

FULL = 4
"""Epochs of the whole training."""

NAN = float("nan")

RECIPE: Mapping[str, object] = {"learning_rate": 0.001, "seed": 3}


def built(values: Mapping[str, Any], epochs: int = FULL) -> tuple[keras.Model, Hyperparameters]:
    hyperparameters = Hyperparameters(**{**TINY, **values, "epochs": epochs})
    model = build(hyperparameters, seed=3)
    compile_model(model, hyperparameters, steps_per_epoch(TRAINING, hyperparameters) * FULL)
    return model, hyperparameters


def state(model: keras.Model) -> list[npt.NDArray[Any]]:
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


@dataclass
class Part:
    """The outcome of one call of `fit`: variables after the last epoch, weights of the best one, and the whole history."""

    fitted: FitResult
    last: list[npt.NDArray[Any]]
    best: list[npt.NDArray[Any]]
    history: list[dict[str, float]]


def trained(
    values: Mapping[str, Any],
    epochs: int,
    scores: Sequence[float] = (1, 2, 3, 4),
    resume_from: Path | None = None,
    save_to: Path | None = None,
) -> Part:
    model, hyperparameters = built(values, epochs)
    checkpoint = load_checkpoint(resume_from, model, RECIPE, epochs) if resume_from else None
    history = [dict(epoch) for epoch in checkpoint.history] if checkpoint else []
    last: list[npt.NDArray[Any]] = []

    def after_epoch(epoch: int, metrics: dict[str, float], _: npt.NDArray[np.float32]) -> EpochOutcome:
        history.append({"epoch": epoch, **metrics})
        return EpochOutcome(scores[epoch - 1], True)

    def save_progress(best: BestEpoch, cost: TrainingCost) -> None:
        last[:] = state(model)
        if save_to:
            save_checkpoint(save_to, model, Checkpoint(best, history, cost), RECIPE)

    fitted = fit(
        model,
        hyperparameters,
        TRAINING,
        VALIDATION,
        seed=3,
        after_epoch=after_epoch,
        checkpoint=checkpoint,
        save_progress=save_progress,
    )
    part = Part(fitted, last, model.get_weights(), history)
    release_memory(model)
    return part


def without_seconds(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
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
        _case({"schedule": "plateau"}, (4, 3, 2, 1)),
        _case({"schedule": "triangular", "learning_rate": 0.01}, (1, 2, 3, 4)),
        _case({"warmup": 0.8}, (1, 2, 3, 4)),
        _case({"ema": 0.9, "optimizer": "rmsprop"}, (3, 1, 2, 2.5)),
        _case(
            {"ema": 0.9, "warmup": 0.3, "schedule": "plateau", "precision": "float16", "batch_norm": True},
            (1, 4, 3, 2),
            (),
        ),
        _case({"ema": 0.9, "schedule": "triangular", "warmup": 0.7, "dropout": 0.3}, (1, 2, 3, 4)),
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
    first = trained(values, 2, scores, save_to=path)
    rest = trained(values, FULL, scores, resume_from=path, save_to=path)
    assert len(whole.last) > len(whole.best)
    assert not equal(first.last, whole.last)
    assert equal(rest.last, whole.last)
    assert equal(rest.best, whole.best)
    assert rest.fitted.best_epoch == whole.fitted.best_epoch
    np.testing.assert_array_equal(rest.fitted.probabilities, whole.fitted.probabilities)
    assert without_seconds(rest.history) == without_seconds(whole.history)
    assert rest.history[:2] == first.history
    assert (rest.fitted.cost.epochs, rest.fitted.images) == (FULL, FULL * len(TRAINING))
    assert rest.fitted.cost.seconds > first.fitted.cost.seconds

    model, _ = built(values)
    again = load_checkpoint(path, model, RECIPE, FULL + 1)
    assert (again.best.epoch, again.history) == (whole.fitted.best_epoch, rest.history)
    assert again.cost.epochs == FULL
    assert first.fitted.cost.seconds < again.cost.seconds <= rest.fitted.cost.seconds
    np.testing.assert_equal(again.best.score, scores[again.best.epoch - 1])
    assert equal(again.best.weights, whole.best)
    assert equal(state(model), whole.last)


@pytest.mark.parametrize(
    "values",
    [
        {"dropout": 0.4, "schedule": "cosine"},
        pytest.param({"schedule": "plateau", "warmup": 0.5, "ema": 0.9}, marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_chain_of_three_is_one_training(tmp_path: Path, values: dict[str, Any]) -> None:
    trained(values, 1, save_to=tmp_path / "1.npz")
    trained(values, 3, resume_from=tmp_path / "1.npz", save_to=tmp_path / "3.npz")
    rest, whole = trained(values, FULL, resume_from=tmp_path / "3.npz"), trained(values, FULL)
    assert equal(rest.last, whole.last)
    assert [epoch["epoch"] for epoch in rest.history] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_training_that_stops_early_stops_at_the_same_epoch_after_a_kill(tmp_path: Path, killed_after: int) -> None:
    values, scores, path = {"early_stopping": 2, "ema": 0.9}, (2, 1, 2, 3), tmp_path / "k.npz"
    whole = trained(values, FULL, scores, save_to=tmp_path / "whole.npz")
    assert [epoch["epoch"] for epoch in whole.history] == [1, 2, 3]
    trained(values, killed_after, scores, save_to=path)
    rest = trained(values, FULL, scores, resume_from=path)
    assert (rest.fitted.best_epoch, rest.fitted.cost.epochs) == (whole.fitted.best_epoch, 3) == (1, 3)
    assert without_seconds(rest.history) == without_seconds(whole.history)
    assert equal(rest.last, whole.last)
    assert equal(rest.best, whole.best)


def test_a_longer_training_that_continues_one_which_stopped_early_trains_nothing(tmp_path: Path) -> None:
    values, scores = {"early_stopping": 1}, (2, 1, 3, 4)
    ended = trained(values, 3, scores, save_to=tmp_path / "3.npz")
    rest = trained(values, FULL, scores, resume_from=tmp_path / "3.npz", save_to=tmp_path / "4.npz")
    assert rest.history == ended.history
    assert (rest.fitted.best_epoch, rest.fitted.cost.epochs) == (1, 2)
    assert equal(rest.best, ended.best)
    assert equal(rest.last, ended.last)  # it leaves a checkpoint, from which the next one continues
    last = trained(values, FULL + 1, scores, resume_from=tmp_path / "4.npz")
    assert equal(last.best, ended.best)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a checkpoint of two epochs, the first of which is the best."""
    path = tmp_path_factory.mktemp("checkpoint") / "2.npz"
    trained({}, 2, (2, 1), save_to=path)
    return path


def refusal(path: Path, values: Mapping[str, Any] | None = None, epochs: int = FULL, **recipe: object) -> str:
    """Return the error of loading a checkpoint, and check that the model is unchanged."""
    model, hyperparameters = built(values or {})
    fresh, _ = built(values or {})
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(path, model, {**RECIPE, **recipe}, epochs)
    assert equal(state(model), state(fresh))
    assert hyperparameters.epochs == FULL
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_checkpoint_needs_no_pickle_and_leaves_nothing_beside_it(stored: Path) -> None:
    assert [file.name for file in stored.parent.iterdir()] == ["2.npz"]
    with np.load(stored, allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "fiuU" for name in file.files)
        assert json.loads(str(file["about"]))["recipe"] == RECIPE


def test_a_checkpoint_of_something_else_is_refused(stored: Path, tmp_path: Path) -> None:
    assert "FileNotFoundError" in refusal(tmp_path / "none.npz")
    assert "its seed is 3, not 4" in refusal(stored, seed=4)
    assert "its kernel_size is 3, not 5" in refusal(stored, kernel_size=5)  # 3 is the default of what is not recorded
    assert "its color is None, not red" in refusal(stored, color="red")
    assert "has 2 epochs, more than the 1 to train" in refusal(stored, epochs=1)
    assert "(3, 3, 3, 2)" in refusal(stored, {"filters": 3})
    assert "arrays of state" in refusal(stored, {"optimizer": "sgd"})
    assert "arrays of best" in refusal(stored, {"layers": 2})


def test_a_damaged_checkpoint_is_refused(stored: Path, tmp_path: Path) -> None:
    whole, path = stored.read_bytes(), tmp_path / "damaged.npz"
    for damaged in (b"", b"not a zip at all", whole[:100], whole[: len(whole) // 2], whole[:-1], whole[30:]):
        path.write_bytes(damaged)
        assert "damaged.npz" in refusal(path)
    np.save(path.open("wb"), np.zeros(3))
    refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.npy", b"\x93NUMPY\x01\x00")
    refusal(path)


def test_a_flipped_bit_is_seen_or_changes_nothing(stored: Path, tmp_path: Path) -> None:
    whole, path = stored.read_bytes(), tmp_path / "flipped.npz"
    intact, _ = built({})
    best = load_checkpoint(stored, intact, RECIPE, FULL).best
    detected = 0
    for position in np.random.default_rng(0).integers(0, len(whole), 60):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(position) % 8
        path.write_bytes(flipped)
        model, _ = built({})
        try:
            loaded = load_checkpoint(path, model, RECIPE, FULL)
        except CheckpointError:
            detected += 1
        else:
            assert equal(state(model), state(intact))
            assert equal([loaded.best.probabilities, *loaded.best.weights], [best.probabilities, *best.weights])
    assert detected > 30


def test_a_training_that_fails_to_write_leaves_the_older_checkpoint(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "2.npz"
    model, _ = built({})
    checkpoint = load_checkpoint(stored, model, RECIPE, FULL)
    save_checkpoint(path, model, checkpoint, RECIPE)
    before = path.read_bytes()
    assert before == stored.read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, model, checkpoint, RECIPE)
    assert [file.name for file in path.parent.iterdir()] == ["2.npz"]
    assert path.read_bytes() == before


def test_a_training_of_which_all_epochs_are_trained_is_at_its_end(stored: Path) -> None:
    model, hyperparameters = built({}, epochs=2)
    checkpoint = load_checkpoint(stored, model, RECIPE, 2)
    fitted = fit(
        model, hyperparameters, TRAINING, VALIDATION, seed=3, after_epoch=fail_if_trained, checkpoint=checkpoint
    )
    assert (fitted.best_epoch, fitted.cost) == (1, checkpoint.cost)
    np.testing.assert_array_equal(fitted.probabilities, checkpoint.best.probabilities)
    assert equal(model.get_weights(), checkpoint.best.weights)
    with pytest.raises(ValueError, match="the checkpoint has 2 epochs, more than the 1 to train"):
        fit(model, built({}, 1)[1], TRAINING, VALIDATION, seed=3, after_epoch=fail_if_trained, checkpoint=checkpoint)


def fail_if_trained(*_: Any) -> EpochOutcome:
    raise AssertionError("an epoch was trained")


def test_writing_takes_its_share_of_the_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    pace = WritePace()
    assert pace.is_due  # the duration of a write is not known yet
    with pace.measure_write():
        clock[0] += 0.3
    assert not pace.is_due
    clock[0] += 0.3 / MAX_WRITE_SHARE - 0.1
    assert not pace.is_due
    clock[0] += 0.2
    assert pace.is_due
