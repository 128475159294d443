"""Tests of pneumo.evidence.trial_plots: all plots of a trial from its stored values, and the new ones in edge cases."""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pneumo.evidence.attention import HeatMaps
from pneumo.evidence.attention_plot import attention_plot
from pneumo.evidence.causes import figures_by_cause
from pneumo.evidence.causes_plot import causes_plot
from pneumo.evidence.metrics import most_confident
from pneumo.evidence.stress import StressPredictions
from pneumo.evidence.threshold_plots import Scores, score_plot, threshold_plot
from pneumo.evidence.trial_plots import trial_plots
from pneumo.evidence.trial_values import TrialValues, shown_pictures
from pneumo.spec.result import CLASSES

N = 40


def trial_values(**changes: Any) -> TrialValues:
    """Return the values of a trial with everything that a trial can have."""
    generator = np.random.default_rng(0)
    labels = changes.pop("labels", np.arange(N) % 2)
    n = len(labels)
    probabilities = changes.pop("probabilities", generator.normal(0.4 + 0.2 * labels, 0.2).clip(0, 1))
    probabilities = probabilities.astype(np.float32)
    positions = np.concatenate(
        [most_confident(labels, probabilities, 0.5, right=right, most=4) for right in (True, False)]
    )
    maps = HeatMaps(positions, generator.random((len(positions), 16, 16)).astype(np.float16), 0.5)
    maps = changes.pop("heat_maps", maps)
    shown = shown_pictures(labels, probabilities, 0.5, maps)
    stress = StressPredictions(
        "stress-1", ("crop_90", "frame"), np.array(["a"] * n), labels, probabilities, np.stack([probabilities] * 2)
    )
    values: dict[str, Any] = {
        "title": "small trial 7",
        "phantom": False,
        "classes": CLASSES,
        "history": [{"epoch": 1, "loss": math.nan, "val_loss": 0.5}, {"epoch": 2, "loss": 0.4, "val_loss": 0.4}],
        "best_epoch": 2,
        "threshold": 0.5,
        "names": [f"person{i}_virus_{i}\udc80.jpeg" for i in range(n)],
        "patients": [f"person{i}" for i in range(n)],
        "causes": ["virus" if label else "" for label in labels],
        "labels": labels,
        "probabilities": probabilities,
        "shown": shown,
        "pixels": generator.integers(0, 256, (len(shown), 16, 16), np.uint8),
        "stress": stress,
        "heat_maps": maps,
    }
    return TrialValues(**values | changes)


def later_plots(values: TrialValues) -> list[bytes]:
    """Return the plots of a trial that are not of `picture_plots`."""
    scores = {"plain": Scores(values.labels, values.probabilities, values.threshold)}
    figures = figures_by_cause(values.labels, values.probabilities, values.threshold, values.causes, values.patients)
    pixels = dict(zip(values.shown.tolist(), values.pixels, strict=True))
    return [
        score_plot(values.title, scores["plain"], CLASSES),
        threshold_plot(values.title, scores, CLASSES),
        attention_plot(values.title, values, pixels, CLASSES),
        causes_plot(values.title, figures, values.threshold, CLASSES),
    ]


def test_stored_values_give_every_plot_that_they_name() -> None:
    values = trial_values()
    stored = values.to_bytes()
    plots = trial_plots(TrialValues.from_bytes(stored))
    assert sorted(plots) == [f"{name}.png" for name in values.plots]
    assert {"gradcam", "stress", "causes", "scores", "threshold", "roc"} < set(values.plots)
    assert TrialValues.from_bytes(stored).to_bytes() == stored
    for png in plots.values():
        with Image.open(io.BytesIO(png)) as image:
            assert min(image.size) >= 250


def test_what_is_not_known_is_left_out() -> None:
    values = trial_values()
    known = set(values.plots)
    for change, name in (
        ({"stress": None}, "stress"),
        ({"heat_maps": None}, "gradcam"),
        ({"heat_maps": HeatMaps.none("there is no convolution")}, "gradcam"),
        ({"causes": [""] * N}, "causes"),
    ):
        left_out = replace(values, **change)
        assert known - set(left_out.plots) == {name}
        assert TrialValues.from_bytes(left_out.to_bytes()).plots == left_out.plots


_EDGES: dict[str, dict[str, Any]] = {
    "only NORMAL": {"labels": np.zeros(N, np.int64)},
    "one picture, no mistake": {"labels": np.array([1]), "probabilities": np.array([0.9])},
    "all mistakes, no heat": {
        "probabilities": 1 - np.arange(N) % 2,
        "heat_maps": HeatMaps(np.arange(4), np.zeros((4, 16, 16), np.float16), math.nan),
        "names": ["$\\frac{$ ^_\n\x00\udc80 胸 " + "x" * 300] * N,
    },
}


@pytest.mark.parametrize("changes", _EDGES.values(), ids=_EDGES)
def test_no_trial_is_too_odd_to_draw(changes: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots = later_plots(trial_values(**changes))
    assert all(png.startswith(b"\x89PNG") for png in plots)


def test_shares_over_the_threshold_are_sensitivity_and_specificity() -> None:
    scores = Scores(np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.6, 0.6, 0.7, 0.2], np.float32), 0.5)
    thresholds = np.array([0.0, 0.15, float(np.float32(0.6)), 0.65, 1.0])
    np.testing.assert_allclose(scores.share_right(1, thresholds), [1, 1, 2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(scores.share_right(0, thresholds), [0, 0.5, 0.5, 1, 1])
    assert np.isnan(Scores(np.ones(2), np.ones(2), 0.5).share_right(0, thresholds)).all()


def test_the_most_confident_come_first() -> None:
    labels, probabilities = np.array([0, 1, 1, 0, 1, 0]), np.array([0.1, 0.95, 0.9, 0.8, 0.2, 0.05])
    assert most_confident(labels, probabilities, 0.5, right=True, most=3).tolist() == [1, 5, 0]
    assert most_confident(labels, probabilities, 0.5, right=False, most=9).tolist() == [3, 4]
    assert most_confident(labels, probabilities, 0.99, right=False, most=2).tolist() == [4, 2]
