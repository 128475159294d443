"""Tests of pneumo.evidence.plots: the plots of learning and of predicted pictures, also in edge cases."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pneumo.evidence.drawing import BLUE, GREY, plot_title
from pneumo.evidence.plots import learning_curves, picture_plots

FILES = {
    "learning_curves.png",
    "confusion_matrix.png",
    "roc.png",
    "precision_recall.png",
    "calibration.png",
    "mistakes.png",
}


def _trial(**changes: Any) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    n = 40
    labels = np.arange(n) % 2
    history = [
        {
            "epoch": e,
            "loss": 1 / e,
            "accuracy": 0.6,
            "auc": 0.7,
            "val_loss": 1.1 / e,
            "val_accuracy": 0.5,
            "val_auc": 0.6,
        }
        for e in range(1, 5)
    ]
    trial = {
        "title": "trial-0007",
        "history": history,
        "best_epoch": 3,
        "labels": labels,
        "probabilities": generator.normal(0.4 + 0.2 * labels, 0.2).clip(0, 1).astype(np.float32),
        "names": [f"person{i}_bacteria_{i}.jpeg" for i in range(n)],
        "pixels": generator.integers(0, 256, (n, 16, 16), np.uint8),
        "threshold": 0.5,
    }
    return trial | changes


def trial_plots(*, history: Any, best_epoch: int, **values: Any) -> dict[str, bytes]:
    """Return the plots of this module's trial."""
    title = plot_title(values["title"], values.get("phantom", False))
    return {"learning_curves.png": learning_curves(title, history, best_epoch), **picture_plots(**values)}


def _pixels(png: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        image.load()
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def usual() -> dict[str, bytes]:
    return trial_plots(**_trial())


def test_the_six_plots_are_pngs_of_a_readable_size(usual: dict[str, bytes]) -> None:
    assert set(usual) == FILES
    for name, png in usual.items():
        picture = _pixels(png)
        assert min(picture.shape[:2]) >= 350, name
        assert len(np.unique(picture)) > 10, name
        assert len(png) < 1_000_000, name


def test_the_same_trial_gives_the_same_bytes(usual: dict[str, bytes]) -> None:
    assert trial_plots(**_trial()) == usual


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"best_epoch": 2}, {"learning_curves.png"}),
        ({"threshold": 0.7}, FILES - {"learning_curves.png", "calibration.png"}),
        ({"names": ["x"] * 40}, {"mistakes.png"}),
        ({"labels": 1 - np.arange(40) % 2}, FILES - {"learning_curves.png"}),
        ({"phantom": True}, FILES),
    ],
    ids=["best_epoch", "threshold", "names", "labels", "phantom"],
)
def test_a_plot_shows_what_it_is_given_and_nothing_else(
    usual: dict[str, bytes], changes: dict[str, Any], changed: set[str]
) -> None:
    plots = trial_plots(**_trial(**changes))
    assert {name for name in FILES if plots[name] != usual[name]} == changed


def test_the_sheet_shows_the_most_confident_mistakes_and_only_those() -> None:
    # Each picture has a grey of its own, so the greys on the sheet identify the pictures.
    n = 30
    grey = (100 + 5 * np.arange(n)).astype(np.uint8)
    pixels = np.broadcast_to(grey[:, None, None], (n, 8, 8))
    labels = np.arange(n) % 2
    wrong = np.arange(n) < 14
    confidence = np.where(wrong, 0.95 - 0.03 * np.arange(n), 0.1)  # of the wrong class; falls with the number
    probabilities = np.where(labels == 1, 1 - confidence, confidence)
    sheet = trial_plots(**_trial(labels=labels, probabilities=probabilities, names=["n"] * n, pixels=pixels))
    picture = _pixels(sheet["mistakes.png"])
    flat = picture[(picture[..., 0] == picture[..., 1]) & (picture[..., 1] == picture[..., 2])][:, 0]
    areas = np.bincount(flat, minlength=256)[grey]
    assert [int(number) for number in np.flatnonzero(areas > 10_000)] == list(range(12))


_NAN, _INF = math.nan, math.inf
_EDGES: dict[str, dict[str, Any]] = {
    "one epoch": {"history": [{"epoch": 1, "loss": 0.7, "val_loss": 0.6}], "best_epoch": 1},
    "no epoch": {"history": [], "best_epoch": 0},
    "nan and infinite": {
        "history": [{"epoch": 1, "loss": _NAN, "val_loss": _INF, "val_auc": _NAN}, {"epoch": 2, "loss": _NAN}]
    },
    "a long training continued": {"history": [{"epoch": e, "loss": 1.0} for e in range(50, 400)], "best_epoch": 60},
    "only NORMAL": {"labels": np.zeros(40, np.int64)},
    "only PNEUMONIA": {"labels": np.ones(40, np.int64)},
    "one picture": {
        "labels": np.array([1]),
        "probabilities": np.array([0.4]),
        "names": ["a"],
        "pixels": np.zeros((1, 224, 224), np.uint8),
    },
    "no mistake": {"probabilities": (np.arange(40) % 2).astype(np.float64)},
    "all mistakes": {"probabilities": (1 - np.arange(40) % 2).astype(np.float64)},
    "one probability": {"probabilities": np.full(40, 0.5)},
    "none called positive": {"probabilities": np.full(40, 0.1)},
    "hostile names": {"names": ["$\\frac{$ ^_\n\x00\udc80 胸 " + "x" * 300] * 40, "title": "$\\bad{ " + "y" * 300},
}


@pytest.mark.parametrize("changes", _EDGES.values(), ids=_EDGES)
def test_no_trial_is_too_odd_to_draw(changes: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots = trial_plots(**_trial(**changes))
    assert set(plots) == FILES
    for png in plots.values():
        assert _pixels(png).std() > 1


def test_arrays_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="40, 40, 3 and 40"):
        trial_plots(**_trial(names=["a", "b", "c"]))


def _promotion(**changes: Any) -> dict[str, Any]:
    trial = _trial(**changes)
    return {name: value for name, value in trial.items() if name not in ("history", "best_epoch")}


def test_plots_of_pictures_are_those_of_a_trial_without_its_learning(usual: dict[str, bytes]) -> None:
    assert picture_plots(**_promotion()) == {k: png for k, png in usual.items() if k != "learning_curves.png"}


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"part": "test"}, {"roc.png", "precision_recall.png", "calibration.png"}),
        ({"others": {"champion": np.linspace(0, 1, 40)}}, {"roc.png", "precision_recall.png"}),
    ],
    ids=["part", "champion"],
)
def test_the_part_and_the_champion_show_where_there_are_curves(
    usual: dict[str, bytes], changes: dict[str, Any], changed: set[str]
) -> None:
    plots = picture_plots(**_promotion(**changes))
    assert {name for name, png in plots.items() if png != usual[name]} == changed


@pytest.mark.parametrize("name", ["roc.png", "precision_recall.png"])
def test_the_champion_is_grey_beside_the_colour_of_the_pictures(usual: dict[str, bytes], name: str) -> None:
    def painted(png: bytes, colour: str) -> int:
        return int((_pixels(png) == [int(colour[start : start + 2], 16) for start in (1, 3, 5)]).all(axis=-1).sum())

    beside = picture_plots(**_promotion(others={"baseline": np.linspace(0, 1, 40)}))[name]
    assert painted(beside, GREY) > painted(usual[name], GREY) + 300
    assert painted(beside, BLUE) == pytest.approx(painted(usual[name], BLUE), rel=0.1)


@pytest.mark.parametrize("labels", [np.zeros(40, np.int64), np.arange(40) % 2], ids=["only NORMAL", "both classes"])
def test_a_champion_that_knows_nothing_can_be_drawn(labels: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots = picture_plots(**_promotion(labels=labels, others={"champion": np.full(40, 0.5)}, part="test"))
    assert set(plots) == FILES - {"learning_curves.png"}


def test_a_champion_of_other_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="probabilities of the champion must have the length of labels, 40, got 39"):
        picture_plots(**_promotion(others={"champion": np.full(39, 0.5)}))


def test_drawing_needs_no_display_and_no_pyplot() -> None:
    code = (
        "import os, sys; os.environ.pop('DISPLAY', None); import pneumo.evidence.trial_plots; "
        "print('matplotlib.pyplot' in sys.modules, 'tensorflow' in sys.modules, 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3


def test_the_folder_itself_imports_nothing_heavy() -> None:
    code = "import sys, pneumo.evidence; print(sorted({'numpy', 'sklearn', 'matplotlib', 'optuna'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
