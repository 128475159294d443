"""Tests of pneumo.evidence.tables: values are restored exactly, and no cell is a formula."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from pneumo.evidence.tables import Array, history_csv, predictions_csv, trials_csv


def _read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_history_has_a_line_per_epoch_and_gaps_where_a_metric_is_missing() -> None:
    rows = _read(history_csv([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.1 + 0.2, "val_auc": float("nan")}]))
    assert list(rows[0]) == ["epoch", "loss", "val_auc"]
    assert rows[0] == {"epoch": "1", "loss": "0.5", "val_auc": ""}
    assert float(rows[1]["loss"]) == 0.1 + 0.2
    assert rows[1]["val_auc"] == "nan"
    assert history_csv([]) == ""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_probability_reads_back_to_the_bit(dtype: type) -> None:
    probabilities: Array = np.random.default_rng(0).random(500).astype(dtype)
    probabilities[:3] = [0.0, 1.0, 1e-9]
    labels = np.arange(500) % 2
    names = [f"person{i}_virus_{i}.jpeg" for i in range(500)]
    rows = _read(predictions_csv(names, [n.split("_")[0] for n in names], labels, probabilities))
    np.testing.assert_array_equal(np.array([row["probability"] for row in rows]).astype(dtype), probabilities)
    assert rows[1] == {"name": names[1], "patient": "person1", "label": "PNEUMONIA", "probability": "1.0"}
    assert rows[0]["label"] == "NORMAL"
    assert len(rows[5]["probability"]) <= (12 if dtype is np.float32 else 22)


@pytest.mark.parametrize("name", ["=1+1.png", "+a", "-a", "@SUM(A1)"])
def test_no_name_becomes_a_formula(name: str) -> None:
    text = predictions_csv([name], [name], np.array([0]), np.array([0.5]))
    row = next(csv.DictReader(io.StringIO(text, newline="")))
    assert row["name"] == row["patient"] == f"'{name}"


@pytest.mark.parametrize("name", ["\t=1", "\r=1", "\n=1", "a\r=1+1", "a\n=1+1"])
def test_no_name_begins_a_line_of_its_own(name: str) -> None:
    text = predictions_csv([name], ["p"], np.array([0]), np.array([0.5]))
    assert [line.startswith("=") for line in text.splitlines()] == [False, False]
    assert _read(text)[0]["name"] == name.encode("unicode_escape").decode()


def test_awkward_names_stay_in_their_cell() -> None:
    names = ['a,b"c".png', "two\nlines.png", "bad\udc80byte.png", "Röntgen 胸.png"]
    text = predictions_csv(names, names, np.zeros(4, np.int64), np.full(4, 0.5))
    text.encode("utf-8")
    read = [row["name"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert read == ['a,b"c".png', "two\\nlines.png", "bad\\udc80byte.png", "Röntgen 胸.png"]


def test_predictions_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        predictions_csv(["a", "b"], ["a", "b"], np.array([0, 1]), np.array([0.5]))


def test_no_pictures_leave_the_header() -> None:
    assert predictions_csv([], [], np.array([]), np.array([])) == "name,patient,label,probability\n"


def test_trials_may_differ_in_their_hyperparameters() -> None:
    rows = _read(trials_csv([{"number": 0, "optimizer": "adam", "value": None}, {"number": 1, "momentum": -0.5}]))
    assert rows == [
        {"number": "0", "optimizer": "adam", "value": "", "momentum": ""},
        {"number": "1", "optimizer": "", "value": "", "momentum": "-0.5"},
    ]
