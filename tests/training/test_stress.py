"""Tests of pneumo.training.stress: which pictures a network predicts, and what becomes of its predictions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from pneumo.cnn.batches import Examples
from pneumo.cnn.build import build, prediction_network
from pneumo.cnn.fit import DivergedError
from pneumo.cnn.predictor import make_predictor
from pneumo.cnn.stress import stressed
from pneumo.evidence.stress import choose_pictures, judge
from pneumo.spec.hyperparameters import Hyperparameters
from pneumo.spec.stress import CHANGES, GEOMETRIC_CHANGES, SEED, SHARE_AFTER_AN_EPOCH, SHARE_AT_THE_END, most_pictures
from pneumo.training import stress
from pneumo.training.stress import StressTest
from tests.support.training_pictures import PIXELS, TRAINING

ALL = tuple(change.name for change in CHANGES)
Predict = Callable[[Examples], npt.NDArray[np.float32]]


def brightness(examples: Examples) -> npt.NDArray[np.float32]:
    means: npt.NDArray[np.float64] = examples.pixels[examples.rows].mean(axis=(1, 2))
    return (means / 255).astype(np.float32)


def scripted(
    monkeypatch: pytest.MonkeyPatch, predict: Predict, training_pictures: int, passes: int = 1
) -> tuple[StressTest, list[Examples]]:
    """Return the test of a network that predicts by a function, and the list of what it predicts."""
    predicted: list[Examples] = []

    def recorded(examples: Examples) -> npt.NDArray[np.float32]:
        predicted.append(examples)
        return predict(examples)

    monkeypatch.setattr(stress, "make_predictor", lambda model: recorded)
    monkeypatch.setattr(stress, "prediction_network", lambda model, values: model)
    names = [f"picture-{row}" for row in TRAINING.rows]
    return StressTest(None, Hyperparameters(), training_pictures, TRAINING, names, passes), predicted


@pytest.mark.parametrize("training_pictures", [200, 10_000])
@pytest.mark.parametrize("passes", [1, 2])
def test_the_trained_network_predicts_every_change_of_as_many_pictures_as_may_be(
    monkeypatch: pytest.MonkeyPatch, training_pictures: int, passes: int
) -> None:
    test, predicted = scripted(monkeypatch, brightness, training_pictures, passes)
    plain = brightness(TRAINING)
    given = test.at_the_end(plain)
    chosen = choose_pictures(TRAINING.labels, most_pictures(training_pictures, ALL, passes, SHARE_AT_THE_END))
    assert (len(chosen) == len(TRAINING)) == (training_pictures == 10_000)
    assert [len(examples) for examples in predicted] == [len(chosen)] * len(CHANGES)
    assert given.changes == ALL
    assert given.names.tolist() == [f"picture-{row}" for row in TRAINING.rows[chosen]]
    assert np.array_equal(given.labels, TRAINING.labels[chosen])
    assert np.array_equal(given.plain, plain[chosen])
    pictures = PIXELS[TRAINING.rows[chosen]]
    for row, (_, changed) in zip(given.probabilities, stressed(pictures, given.labels, SEED), strict=True):
        assert np.array_equal(row, brightness(Examples(changed, np.arange(len(chosen)), given.labels)))


@pytest.mark.parametrize(
    ("objective", "changes"),
    [("val_stress_auc", GEOMETRIC_CHANGES), ("val_stress_accuracy", ALL), ("val_stress_worst", ALL)],
)
def test_after_an_epoch_only_the_changes_of_the_objective_are_predicted(
    monkeypatch: pytest.MonkeyPatch, objective: str, changes: tuple[str, ...]
) -> None:
    test, predicted = scripted(monkeypatch, brightness, 400)
    value = test.after_an_epoch(objective, brightness(TRAINING))
    chosen = choose_pictures(TRAINING.labels, most_pictures(400, changes, 1, SHARE_AFTER_AN_EPOCH))
    assert [len(examples) for examples in predicted] == [len(chosen)] * len(changes)
    assert len(chosen) < len(TRAINING)
    everything, _ = scripted(monkeypatch, brightness, 10_000)
    whole = judge(everything.at_the_end(brightness(TRAINING))).metrics()[objective]
    assert 0 <= value <= 1
    assert everything.after_an_epoch(objective, brightness(TRAINING)) == pytest.approx(whole)


def test_the_weights_are_those_at_the_time_of_the_call() -> None:
    values = Hyperparameters(image_size=16, layers=1, filters=2, dense_units=4)
    model = build(values, seed=0)
    test = StressTest(model, values, 10_000, TRAINING, [str(row) for row in TRAINING.rows])
    before = test.at_the_end(make_predictor(model)(TRAINING))
    assert np.array_equal(before.probabilities, test.at_the_end(before.plain).probabilities)
    model.set_weights([weights + np.float32(0.1) for weights in model.get_weights()])
    assert not np.array_equal(before.probabilities, test.at_the_end(before.plain).probabilities)


def test_a_network_that_predicts_no_number_has_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    test, _ = scripted(monkeypatch, lambda examples: np.full(len(examples), np.nan, np.float32), 400)
    for judged in (test.at_the_end, lambda plain: test.after_an_epoch("val_stress_auc", plain)):
        with pytest.raises(DivergedError, match="no finite probabilities for pictures under the change crop_90"):
            judged(brightness(TRAINING))


def test_a_picture_and_its_mirror_image_are_averaged_if_the_network_predicts_so() -> None:
    values = Hyperparameters(image_size=16, layers=1, filters=2, dense_units=4, flip_average=True)
    model = build(values, seed=0)
    predict = make_predictor(prediction_network(model, values))
    given = StressTest(model, values, 10_000, TRAINING, [str(row) for row in TRAINING.rows]).at_the_end(
        predict(TRAINING)
    )
    name, brighter = next(stressed(PIXELS[TRAINING.rows], TRAINING.labels, SEED, ["brighter"]))
    expected = predict(Examples(brighter, np.arange(len(TRAINING)), TRAINING.labels))
    assert np.array_equal(given.probabilities[given.changes.index(name)], expected)
    assert not np.array_equal(expected, make_predictor(model)(Examples(brighter, np.arange(50), TRAINING.labels)))
