"""Tests of pneumo.evidence.stress: figures under the changes of the stress suite, and the pictures that they are of."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score, roc_curve

from pneumo.evidence.stress import (
    FEWEST_OF_A_CLASS,
    StressPredictions,
    choose_pictures,
    judge,
    stress_objective,
)
from pneumo.evidence.stress_plot import stress_plot
from pneumo.spec.stress import CHANGES, GEOMETRIC_CHANGES, SUITE

NAMES = tuple(change.name for change in CHANGES)


def predictions(pictures: int = 60, seed: int = 0, positive: float = 0.6) -> StressPredictions:
    """Return predictions that are better than chance, with ties."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(pictures) < positive * pictures).astype(np.int64)
    shifts = rng.uniform(0, 0.4, (1 + len(NAMES), 1))
    rows = np.round(rng.uniform(0, 0.6, (1 + len(NAMES), pictures)) + shifts * labels, 2).astype(np.float32)
    names = np.array([f"picture-{n}.jpeg" for n in range(pictures)])
    return StressPredictions(SUITE, NAMES, names, labels, rows[0], rows[1:])


def by_hand(plain: list[float], crop: list[float], others: list[float]) -> StressPredictions:
    """Return predictions of two normal pictures and two with pneumonia; all changes but `crop_90` have `others`."""
    rows = [crop if name == "crop_90" else others for name in NAMES]
    labels, names = np.array([0, 0, 1, 1]), np.array(["a", "b", "c", "d"])
    return StressPredictions(SUITE, NAMES, names, labels, np.array(plain, np.float32), np.array(rows, np.float32))


def test_the_figures_are_those_computed_by_hand() -> None:
    figures = judge(by_hand([0.1, 0.2, 0.8, 0.9], [0.3, 0.7, 0.5, 0.9], [0.2, 0.4, 0.6, 0.8]))
    assert figures.threshold == pytest.approx((0.4 + 0.5) / 2)
    assert (figures.plain.auc, figures.plain.accuracy) == (1.0, 1.0)
    crop = figures.changes[0]
    assert (crop.change, crop.kind, crop.auc) == ("crop_90", "geometry", 0.75)
    assert (crop.accuracy, crop.sensitivity, crop.specificity) == (0.75, 1.0, 0.5)
    assert figures.worst == crop
    metrics = figures.metrics()
    assert metrics["val_stress_auc"] == pytest.approx((0.75 + 6) / 7)
    assert (metrics["val_photometry_auc"], metrics["val_frame_auc"], metrics["val_stress_worst"]) == (1.0, 1.0, 0.75)
    assert metrics["val_stress_accuracy"] == pytest.approx(63 / 64)
    assert metrics["stress_threshold"] == figures.threshold


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_scikit_learn(seed: int) -> None:
    given = predictions(seed=seed)
    figures, metrics = judge(given), judge(given).metrics()
    labels, pooled = np.tile(given.labels, len(NAMES)), given.probabilities.ravel()
    false_positives, true_positives, _ = roc_curve(labels, pooled)
    positive = pooled >= figures.threshold
    youden = recall_score(labels, positive) + recall_score(labels, positive, pos_label=0) - 1
    assert youden == pytest.approx(max(true_positives - false_positives))
    assert metrics["val_stress_accuracy"] == pytest.approx(accuracy_score(labels, positive))
    aucs = {name: roc_auc_score(given.labels, row) for name, row in zip(NAMES, given.probabilities, strict=True)}
    kinds = {"geometry": "val_stress_auc", "photometry": "val_photometry_auc", "frame": "val_frame_auc"}
    for kind, metric in kinds.items():
        assert metrics[metric] == pytest.approx(
            np.mean([aucs[change.name] for change in CHANGES if change.kind == kind])
        )
    assert metrics["val_stress_worst"] == pytest.approx(min(aucs.values()))
    assert figures.worst
    assert aucs[figures.worst.change] == min(aucs.values())
    for row, probabilities in zip((figures.plain, *figures.changes), [given.plain, *given.probabilities], strict=True):
        called = probabilities >= figures.threshold
        assert row.auc == pytest.approx(roc_auc_score(given.labels, probabilities))
        assert row.accuracy == pytest.approx(accuracy_score(given.labels, called))
        assert row.sensitivity == pytest.approx(recall_score(given.labels, called))
        assert row.specificity == pytest.approx(recall_score(given.labels, called, pos_label=0))


def test_the_table_has_the_plain_pictures_first_and_then_each_change() -> None:
    figures = judge(predictions())
    rows = list(csv.DictReader(figures.to_csv().splitlines()))
    assert [row["change"] for row in rows] == ["plain", *NAMES]
    assert [row["kind"] for row in rows[1:]] == [change.kind for change in CHANGES]
    assert [float(row["auc"]) for row in rows] == [row.auc for row in (figures.plain, *figures.changes)]
    assert set(rows[0]) == {"change", "kind", "auc", "accuracy", "sensitivity", "specificity"}


@pytest.mark.parametrize("positive", [0.0, 1.0], ids=["normal only", "pneumonia only"])
def test_one_class_has_an_accuracy_and_no_auc(positive: float) -> None:
    figures = judge(predictions(pictures=5, positive=positive))
    metrics = figures.metrics()
    assert figures.worst is None
    assert [name for name, value in metrics.items() if math.isfinite(value)] == [
        "val_stress_accuracy",
        "stress_threshold",
    ]
    assert len(figures.to_csv().splitlines()) == 1 + 1 + len(NAMES)
    assert stress_plot("trial 0", figures).startswith(b"\x89PNG")


def test_the_plot_is_a_picture() -> None:
    png = stress_plot("study trial 3", judge(predictions()), phantom=True)
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (800, 620)


@pytest.mark.parametrize("objective", ["val_stress_auc", "val_stress_accuracy", "val_stress_worst"])
def test_an_objective_is_the_metric_of_its_name(objective: str) -> None:
    given = predictions()
    assert stress_objective(objective, given) == judge(given).metrics()[objective]


def test_the_geometric_changes_are_enough_for_the_mean_over_them() -> None:
    given = predictions()
    rows = [NAMES.index(name) for name in GEOMETRIC_CHANGES]
    part = StressPredictions(
        SUITE, GEOMETRIC_CHANGES, given.names, given.labels, given.plain, given.probabilities[rows]
    )
    assert stress_objective("val_stress_auc", part) == judge(given).metrics()["val_stress_auc"]


def test_predictions_are_read_as_they_were_written() -> None:
    given = predictions()
    read = StressPredictions.from_bytes(given.to_bytes())
    for field in fields(given):
        before, after = getattr(given, field.name), getattr(read, field.name)
        assert np.array_equal(before, after)
        assert getattr(before, "dtype", None) == getattr(after, "dtype", None)
    labels, probabilities = read.pooled
    assert labels.shape == probabilities.shape == (len(NAMES) * 60,)


LABELS = np.array([0] * 30 + [1] * 90)


@pytest.mark.parametrize("most", [120, 121, 10_000])
def test_all_pictures_are_taken_if_they_are_not_too_many(most: int) -> None:
    assert choose_pictures(LABELS, most).tolist() == list(range(120))


@pytest.mark.parametrize(("most", "normal", "pneumonia"), [(119, 29, 89), (40, 10, 30), (20, 5, 15)])
def test_of_too_many_pictures_each_class_gives_its_share(most: int, normal: int, pneumonia: int) -> None:
    chosen = choose_pictures(LABELS, most)
    assert np.bincount(LABELS[chosen]).tolist() == [normal, pneumonia]
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) <= most
    assert chosen.tolist() == choose_pictures(LABELS.copy(), most).tolist()
    assert chosen.tolist() != list(range(len(chosen)))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(LABELS, [FEWEST_OF_A_CLASS] * 2), (np.array([0, 1, 1]), [1, 2]), (np.ones(9, np.int64), [0, FEWEST_OF_A_CLASS])],
    ids=["many", "fewer than the fewest", "one class"],
)
def test_some_pictures_of_each_class_are_taken_however_few_may_be(
    labels: np.ndarray[tuple[int], np.dtype[np.int64]], expected: list[int]
) -> None:
    assert np.bincount(labels[choose_pictures(labels, 0)], minlength=2).tolist() == expected
