"""Tests of pneumo.evidence.causes: errors by the cause of the pneumonia."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from pneumo.evidence.causes import causes_csv, figures_by_cause

LABELS = np.array([0, 0, 1, 1, 1, 1, 1])
CAUSES = ["", "", "virus", "virus", "bacteria", "bacteria", ""]
PATIENTS = ["a", "b", "c", "c", "d", "e", "f"]
PROBABILITIES = np.array([0.1, 0.9, 0.2, 0.8, 0.7, 0.9, 0.1], np.float32)


def test_each_class_and_cause_has_its_own_errors() -> None:
    figures = figures_by_cause(LABELS, PROBABILITIES, 0.5, CAUSES, PATIENTS)
    assert [(row.label, row.cause, row.pictures, row.patients, row.wrong) for row in figures] == [
        (0, "", 2, 2, 1),
        (1, "", 1, 1, 1),
        (1, "bacteria", 2, 2, 0),
        (1, "virus", 2, 1, 1),
    ]
    assert [row.error_rate for row in figures] == [0.5, 1, 0, 0.5]
    assert sum(row.wrong for row in figures_by_cause(LABELS, PROBABILITIES, 0.85, CAUSES, PATIENTS)) == 5


def test_the_interval_is_wilsons() -> None:
    wrong = np.arange(100) < 10
    (figures,) = figures_by_cause(np.ones(100, np.int64), ~wrong * 1.0, 0.5, ["virus"] * 100, list(map(str, wrong)))
    assert (figures.low, figures.high) == pytest.approx((0.0552, 0.1744), abs=1e-4)


def test_the_table_names_classes_and_causes() -> None:
    table = causes_csv(figures_by_cause(LABELS, PROBABILITIES, 0.5, CAUSES, PATIENTS), ("NORMAL", "PNEUMONIA"))
    rows = list(csv.DictReader(table.splitlines()))
    assert [(row["class"], row["cause"], row["wrong"]) for row in rows] == [
        ("NORMAL", "", "1"),
        ("PNEUMONIA", "", "1"),
        ("PNEUMONIA", "bacteria", "0"),
        ("PNEUMONIA", "virus", "1"),
    ]
    assert float(rows[3]["error_rate"]) == 0.5
