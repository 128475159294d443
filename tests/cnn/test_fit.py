"""Tests of pneumo.cnn.fit: the batches, the best epoch, and each way in which a training ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from pneumo.cnn.batches import Examples, training_batches
from pneumo.cnn.build import build, prediction_network
from pneumo.cnn.device import release_memory
from pneumo.cnn.fit import AfterEpoch, AfterStep, DivergedError, EpochOutcome, FitResult, fit
from pneumo.cnn.predictor import make_predictor
from pneumo.cnn.steps import LONGEST_CALL
from pneumo.spec.hyperparameters import Hyperparameters
from tests.support.training_pictures import LABELS, PIXELS, TINY, TRAINING, VALIDATION, equal, examples

PLAIN: dict[str, Any] = TINY | {"shear": 0.0, "zoom": 0.0, "horizontal_flip": False, "channels": 1}


def accept(*_: Any) -> EpochOutcome:
    return EpochOutcome(0.0, True)


def trained(
    values: dict[str, Any] = TINY,
    *,
    seed: int = 0,
    after_epoch: AfterEpoch = accept,
    after_step: AfterStep | None = None,
    longest_call: float = LONGEST_CALL,
) -> tuple[keras.Model, FitResult]:
    hyperparameters = Hyperparameters(**values)
    model = build(hyperparameters, seed=seed)
    return model, fit(
        model,
        hyperparameters,
        TRAINING,
        VALIDATION,
        seed=seed,
        after_epoch=after_epoch,
        after_step=after_step,
        longest_call=longest_call,
    )


def all_batches(values: dict[str, Any], seed: int = 0, first_epoch: int = 0) -> list[tuple[npt.NDArray[Any], ...]]:
    dataset = training_batches(TRAINING, Hyperparameters(**values), seed=seed, first_epoch=first_epoch)
    return list(dataset.as_numpy_iterator())


def test_an_epoch_holds_every_training_picture_once_with_its_label() -> None:
    batches = all_batches(PLAIN | {"epochs": 2})
    assert [len(labels) for _, labels in batches] == [8, 8, 8, 8, 8, 8, 2] * 2
    first, second = (np.concatenate([p[..., 0] for p, _ in part]) for part in (batches[:7], batches[7:]))
    expected = {(PIXELS[row].tobytes(), LABELS[row]) for row in TRAINING.rows}
    labels = np.concatenate([labels[:, 0] for _, labels in batches[:7]])
    assert {(p.astype(np.uint8).tobytes(), int(y)) for p, y in zip(first, labels, strict=True)} == expected
    assert {p.tobytes() for p in first} == {p.tobytes() for p in second}
    assert not np.array_equal(first, second)  # another order


def test_grey_is_repeated_to_the_channels_that_the_network_takes() -> None:
    pictures = all_batches(TINY)[0][0]
    assert pictures.shape == (8, 16, 16, 3)
    assert pictures.dtype == np.float32
    np.testing.assert_array_equal(pictures, np.repeat(pictures[..., :1], 3, axis=-1))


def test_batches_depend_on_seed_epoch_and_step_alone() -> None:
    whole, again, other = all_batches(TINY), all_batches(TINY), all_batches(TINY, seed=1)
    later = all_batches(TINY, first_epoch=2)
    assert all(equal(list(a), list(b)) for a, b in zip(whole, again, strict=True))
    assert all(equal(list(a), list(b)) for a, b in zip(whole[14:], later, strict=True))
    assert not equal(list(whole[0]), list(other[0]))


def test_balanced_classes_weigh_the_same_in_sum() -> None:
    batches = all_batches(TINY | {"class_weight": "balanced", "epochs": 1})
    labels, weights = (np.concatenate([batch[k][:, 0] for batch in batches]) for k in (1, 2))
    assert weights[labels == 0].sum() == pytest.approx(25, rel=1e-5)
    assert weights[labels == 1].sum() == pytest.approx(25, rel=1e-5)
    model, fitted = trained(TINY | {"class_weight": "balanced"})
    assert fitted.cost.epochs == 3
    release_memory(model)


def test_training_learns_and_tells_each_epoch_and_step(tmp_path: Path) -> None:
    epochs: list[tuple[int, dict[str, float], npt.NDArray[np.float32]]] = []
    steps: list[tuple[int, int, int]] = []

    def after_epoch(epoch: int, metrics: dict[str, float], probabilities: npt.NDArray[np.float32]) -> EpochOutcome:
        epochs.append((epoch, metrics, probabilities))
        return EpochOutcome(float(epoch), True)

    model, fitted = trained(
        TINY | {"epochs": 12, "learning_rate": 0.003, "filters": 8, "dense_units": 32},
        after_epoch=after_epoch,
        after_step=lambda *step: steps.append(step),
        longest_call=0,
    )
    assert [epoch for epoch, _, _ in epochs] == list(range(1, 13))
    assert steps == [(epoch, step, 7) for epoch in range(1, 13) for step in range(1, 8)]
    assert all(set(metrics) == {"loss", "accuracy", "auc", "epoch_seconds"} for _, metrics, _ in epochs)
    assert epochs[-1][1]["loss"] < epochs[0][1]["loss"]
    assert epochs[-1][1]["auc"] > 0.9
    assert (fitted.cost.epochs, fitted.images, fitted.best_epoch) == (12, 600, 12)
    assert fitted.images_per_second == pytest.approx(600 / fitted.cost.seconds)
    assert sum(metrics["epoch_seconds"] for _, metrics, _ in epochs) <= fitted.cost.seconds
    assert (
        0 < fitted.cost.predict_ms * len(VALIDATION) < 1000 * min(metrics["epoch_seconds"] for _, metrics, _ in epochs)
    )
    # A saved copy gives the same probabilities for the raw pictures.
    prediction_network(model, Hyperparameters()).save(tmp_path / "model.keras")
    raw = np.repeat(PIXELS[VALIDATION.rows][..., None], 3, axis=-1)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert fitted.probabilities.dtype == np.float32
    np.testing.assert_array_equal(fitted.probabilities, epochs[-1][2])
    np.testing.assert_allclose(loaded.predict(raw, verbose=0)[:, 0], fitted.probabilities, atol=1e-6)


def test_the_best_epochs_weights_are_put_back() -> None:
    predictions: list[npt.NDArray[np.float32]] = []

    def after_epoch(epoch: int, _: dict[str, float], probabilities: npt.NDArray[np.float32]) -> EpochOutcome:
        predictions.append(probabilities)
        return EpochOutcome([float("nan"), 0.9, 0.9, float("nan")][epoch - 1], True)

    model, fitted = trained(TINY | {"epochs": 4, "batch_norm": True}, after_epoch=after_epoch)
    assert (fitted.best_epoch, fitted.cost.epochs) == (2, 4)
    np.testing.assert_array_equal(fitted.probabilities, predictions[1])
    np.testing.assert_array_equal(make_predictor(model)(VALIDATION), predictions[1])
    assert not np.array_equal(predictions[1], predictions[3])


def test_a_stopped_training_keeps_its_best_epoch() -> None:
    predictions: list[npt.NDArray[np.float32]] = []

    def after_epoch(epoch: int, _: dict[str, float], probabilities: npt.NDArray[np.float32]) -> EpochOutcome:
        predictions.append(probabilities)
        return EpochOutcome(-float(epoch), epoch < 2)

    model, fitted = trained(TINY | {"epochs": 5}, after_epoch=after_epoch)
    assert (fitted.best_epoch, fitted.cost.epochs, fitted.images) == (1, 2, 100)
    np.testing.assert_array_equal(make_predictor(model)(VALIDATION), predictions[0])


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    values = TINY | {"dropout": 0.3, "layers": 2}
    (first, _), (again, _), (other, _) = (trained(values, seed=seed) for seed in (5, 5, 6))
    assert equal(first.get_weights(), again.get_weights())
    assert not equal(first.get_weights(), other.get_weights())


@pytest.mark.parametrize(
    "values",
    [
        {"dropout": 0.3, "layers": 2, "batch_norm": True, "rotation": 10},
        {"schedule": "cosine", "warmup": 0.2, "ema": 0.9, "mixup": 0.2, "class_weight": "balanced"},
        {"precision": "float16", "optimizer": "rmsprop", "momentum": 0.9},
    ],
    ids=str,
)
def test_steps_in_one_call_and_single_ones_give_equal_bits(values: dict[str, Any]) -> None:
    def epochs(longest_call: float) -> tuple[list[Any], list[int], list[npt.NDArray[Any]]]:
        told, steps = list[Any](), list[int]()

        def after_epoch(_: int, metrics: dict[str, float], probabilities: npt.NDArray[np.float32]) -> EpochOutcome:
            told.append((*(metrics[name] for name in ("loss", "accuracy", "auc")), *probabilities))
            return EpochOutcome(float(len(told)), True)

        model, _ = trained(
            TINY | values | {"epochs": 3},
            after_epoch=after_epoch,
            after_step=lambda _, step, last: steps.append(step),
            longest_call=longest_call,
        )
        return told, steps, model.get_weights()

    told, steps, weights = epochs(60.0)
    assert steps == [1, 2, 7, 7, 7]  # the time of a step is not known at first
    told_singly, steps, weights_singly = epochs(0)
    assert steps == [*range(1, 8)] * 3
    assert told == told_singly
    assert equal(weights, weights_singly)


def test_a_diverging_loss_ends_the_training_where_it_shows() -> None:
    steps: list[int] = []
    values = TINY | {"optimizer": "sgd", "learning_rate": 10.0, "momentum": 0.99, "epochs": 200, "layers": 3}
    values |= {"image_size": 16, "kernel_size": 1, "filters": 64, "dense_units": 512}
    with pytest.raises(DivergedError, match=r"epoch \d+, step \d+.*learning_rate"):
        trained(values, after_step=lambda epoch, step, _: steps.append(7 * (epoch - 1) + step))
    assert len(steps) < 7 * 200


def test_what_the_caller_raises_comes_through() -> None:
    class StopError(Exception):
        pass

    def after_step(epoch: int, step: int, _: int) -> None:
        if (epoch, step) == (2, 3):
            raise StopError

    with pytest.raises(StopError):
        trained(after_step=after_step, longest_call=0)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains(precision: str) -> None:
    model, fitted = trained(TINY | {"precision": precision, "layers": 2, "batch_norm": True, "schedule": "cosine"})
    assert fitted.probabilities.dtype == np.float32
    assert np.isfinite(fitted.probabilities).all()
    assert not equal(
        model.get_weights(), build(Hyperparameters(**TINY, layers=2, batch_norm=True), seed=0).get_weights()
    )


def test_pictures_may_be_a_memory_map_larger_than_one_validation_batch(tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", np.tile(PIXELS, (9, 1, 1)))
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    model = build(Hyperparameters(**TINY), seed=0)
    rows = np.arange(540)
    probabilities = make_predictor(model)(Examples(mapped, rows, np.tile(LABELS, 9)))
    np.testing.assert_allclose(probabilities, np.tile(make_predictor(model)(examples(np.arange(60))), 9), atol=1e-6)


def test_prediction_time_holds_neither_the_first_call_nor_a_disturbed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.5, 0.0, 0.5])

    def make_slow_predictor(model: keras.Model) -> Callable[[Examples], npt.NDArray[np.float32]]:
        def predict(pictures: Examples) -> npt.NDArray[np.float32]:
            time.sleep(next(seconds))
            return np.zeros(len(pictures), np.float32)

        return predict

    monkeypatch.setattr("pneumo.cnn.fit.make_predictor", make_slow_predictor)
    _, fitted = trained(TINY | {"epochs": 2})
    assert fitted.cost.predict_ms * len(VALIDATION) < 250


def test_pictures_of_the_wrong_size_or_none_are_refused() -> None:
    larger, values = Hyperparameters(**TINY | {"image_size": 20}), Hyperparameters(**TINY)
    with pytest.raises(ValueError, match=r"\(16, 16\).*image_size=20"):
        fit(build(larger, seed=0), larger, TRAINING, VALIDATION, seed=0, after_epoch=accept)
    with pytest.raises(ValueError, match="there are no validation pictures"):
        fit(build(values, seed=0), values, TRAINING, examples(np.arange(0)), seed=0, after_epoch=accept)
