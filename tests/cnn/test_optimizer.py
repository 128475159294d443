"""Tests of pneumo.cnn.optimizer: the learning rate of each step, and the averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from pneumo.cnn.build import build
from pneumo.cnn.fit import EpochOutcome, fit
from pneumo.cnn.optimizer import averaged_weights, compile_model, reduce_rate
from pneumo.cnn.predictor import make_predictor
from pneumo.spec.hyperparameters import Hyperparameters
from tests.support.training_pictures import TINY, TRAINING, VALIDATION, equal

STEPS = 10
"""Steps of the whole training."""


def compiled(values: Mapping[str, Any]) -> tuple[keras.Model, Hyperparameters]:
    hyperparameters = Hyperparameters(**TINY | {"learning_rate": 1.0} | dict(values))
    model = build(hyperparameters, seed=0)
    compile_model(model, hyperparameters, STEPS)
    return model, hyperparameters


def rates(model: keras.Model) -> list[float]:
    """Return the learning rate of each step."""
    found = []
    for step in range(STEPS):
        model.optimizer.iterations.assign(step)
        found.append(float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)))
    return found


COSINE = [(1 + np.cos(np.pi * step / STEPS)) / 2 for step in range(STEPS)]
RISE = [0.25, 0.5, 0.75, *[1.0] * 7]
TRIANGLE = [0.1, 0.3, 0.5, 0.7, 0.9, 0.9, 0.7, 0.5, 0.3, 0.1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [1.0] * STEPS),
        ({"schedule": "cosine"}, COSINE),
        ({"schedule": "triangular"}, TRIANGLE),
        ({"schedule": "plateau"}, [1.0] * STEPS),
        ({"warmup": 0.4}, RISE),
        ({"warmup": 0.4, "schedule": "cosine"}, np.multiply(RISE, COSINE)),
        ({"warmup": 0.4, "schedule": "triangular"}, np.multiply(RISE, TRIANGLE)),
        ({"warmup": 0.4, "schedule": "plateau"}, RISE),
        ({"warmup": 0.4, "precision": "float16"}, RISE),
    ],
    ids=str,
)
def test_the_rate_of_each_step(values: dict[str, Any], expected: Sequence[float]) -> None:
    np.testing.assert_allclose(rates(compiled(values)[0]), expected, atol=1e-6)


@pytest.mark.parametrize("values", [{}, {"warmup": 0.4}, {"precision": "float16"}], ids=str)
def test_a_plateau_halves_the_rate_after_every_two_epochs_without_a_better_value(values: dict[str, Any]) -> None:
    model, _ = compiled(values | {"schedule": "plateau"})
    hyperparameters = Hyperparameters(**TINY | values | {"learning_rate": 1e-3, "schedule": "plateau", "epochs": 8})
    scores, factors = [1, 2, 1, 2, 1, 0, 3, 2], []  # epoch 2 is the best, then epoch 7

    def save_progress(*_: Any) -> None:
        factors.append(next(float(v.numpy()) for v in model.optimizer.variables if v.name == "plateau_factor"))

    def after_epoch(epoch: int, *_: Any) -> EpochOutcome:
        return EpochOutcome(scores[epoch - 1], True)

    train(model, hyperparameters, after_epoch, save_progress)
    assert factors == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert rates(model)[-1] == pytest.approx(0.25)
    reduce_rate(model)
    assert rates(model)[-1] == pytest.approx(0.125)


def train(model: keras.Model, values: Hyperparameters, after_epoch: Any, save_progress: Any, **options: Any) -> Any:
    return fit(
        model, values, TRAINING, VALIDATION, seed=0, after_epoch=after_epoch, save_progress=save_progress, **options
    )


@pytest.mark.parametrize("values", [{}, {"batch_norm": True, "precision": "float16", "optimizer": "sgd"}], ids=str)
def test_the_averaged_weights_predict_and_the_training_goes_on_with_its_own(values: dict[str, Any]) -> None:
    momentum = 0.8
    model, hyperparameters = compiled(values | {"ema": momentum, "learning_rate": 0.01, "epochs": 2})
    averages: list[npt.NDArray[Any]] = []
    judged: list[tuple[list[npt.NDArray[Any]], npt.NDArray[Any]]] = []
    own: list[npt.NDArray[Any]] = []

    def trainable() -> list[npt.NDArray[Any]]:
        return [variable.numpy() for variable in model.trainable_variables]

    def after_step(epoch: int, step: int, _: int) -> None:
        nonlocal own
        own, first = trainable(), not averages
        averages[:] = own if first else [momentum * a + (1 - momentum) * w for a, w in zip(averages, own, strict=True)]

    def after_epoch(epoch: int, _: dict[str, float], probabilities: npt.NDArray[np.float32]) -> EpochOutcome:
        for weight, average in zip(trainable(), averages, strict=True):
            np.testing.assert_allclose(weight, average, atol=1e-5)
        assert not equal(trainable(), own)
        np.testing.assert_array_equal(make_predictor(model)(VALIDATION), probabilities)
        judged.append((model.get_weights(), probabilities))
        return EpochOutcome(float(epoch), True)

    def save_progress(*_: Any) -> None:
        assert equal(trainable(), own)

    fitted = train(model, hyperparameters, after_epoch, save_progress, after_step=after_step, longest_call=0)
    assert len(judged) == 2
    assert equal(model.get_weights(), judged[-1][0])
    np.testing.assert_array_equal(make_predictor(model)(VALIDATION), fitted.probabilities)


def test_the_weights_come_back_if_the_context_ends_by_an_error() -> None:
    model, _ = compiled({"ema": 0.9})
    before = model.get_weights()

    def fail() -> None:
        with averaged_weights(model):
            assert not equal(model.get_weights(), before)
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        fail()
    assert equal(model.get_weights(), before)


@pytest.mark.parametrize(
    ("values", "optimizer"),
    [
        ({}, lambda: keras.optimizers.Adam(1.0)),
        ({"schedule": "cosine"}, lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1.0, STEPS))),
        ({"optimizer": "sgd", "momentum": 0.9}, lambda: keras.optimizers.SGD(1.0, momentum=0.9)),
    ],
    ids=["adam", "cosine", "sgd"],
)
def test_without_the_new_settings_the_optimizer_is_that_of_keras(
    values: dict[str, Any], optimizer: Callable[[], keras.Optimizer]
) -> None:
    model, _ = compiled(values)
    expected = optimizer()
    expected.build(model.trainable_variables)
    assert [v.name for v in model.optimizer.variables] == [v.name for v in expected.variables]
    config, expected_config = model.optimizer.get_config(), expected.get_config()
    assert config | {"name": ""} == expected_config | {"name": ""}
