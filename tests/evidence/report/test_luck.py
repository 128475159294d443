"""Tests of pneumo.evidence.report.luck and of confirm_csv: the values in the plot, the sentences and the file."""

from __future__ import annotations

import pytest

from pneumo.evidence.report.luck import confirmation_figure, confirmation_sentences
from pneumo.evidence.tables import confirm_csv
from pneumo.spec.selection import Confirmation

# The mean is 0.9870; t is 2.776 for 4 degrees of freedom, the standard error 0.000354: 0.9860 to 0.9880.
FIVE = Confirmation(5, (0.987, 0.9865, 0.9875, 0.988, 0.986), 0.9885)


@pytest.mark.parametrize(
    ("confirmed", "objective", "sentence"),
    [
        (
            FIVE,
            "val_auc",
            "Trial 5: mean 0.9870 over 5 seeds (95 % interval 0.9860 to 0.9880); "
            "the value from the search, 0.9885, was 0.0015 above the mean.",
        ),
        (
            Confirmation(7, (0.9,), 0.85),
            "val_auc",
            "Trial 7: mean 0.9000 over 1 seed (no interval from one value); "
            "the value from the search, 0.8500, was 0.0500 below the mean.",
        ),
        (
            Confirmation(0, (3937409.0, 3937409.0), 3937409.0),
            "parameters",
            "Trial 0: mean 3,937,409 over 2 seeds (95 % interval 3,937,409 to 3,937,409); "
            "the value from the search, 3,937,409, was equal to the mean.",
        ),
        (
            Confirmation(1, (12.0, 13.0), 11.0),
            "train_seconds",
            "Trial 1: mean 12.5 over 2 seeds (95 % interval 6.1 to 18.9); "
            "the value from the search, 11.0, was 1.5 below the mean.",
        ),
        (
            # The printed values differ by 0.0001, the exact ones by less.
            Confirmation(2, (0.98706,), 0.98704),
            "val_auc",
            "Trial 2: mean 0.9871 over 1 seed (no interval from one value); "
            "the value from the search, 0.9870, was 0.0001 below the mean.",
        ),
    ],
    ids=["five", "one", "same", "seconds", "rounded"],
)
def test_a_sentence_says_what_the_seeds_came_to(confirmed: Confirmation, objective: str, sentence: str) -> None:
    assert list(confirmation_sentences([confirmed], objective)) == [sentence]


def test_the_best_mean_is_on_top_and_every_value_in_its_row() -> None:
    other = Confirmation(2, (0.995,), 0.96)
    assert [s.split(":")[0] for s in confirmation_sentences([FIVE, other], "val_auc")] == ["Trial 2", "Trial 5"]
    assert [s.split(":")[0] for s in confirmation_sentences([FIVE, other], "val_loss")] == ["Trial 5", "Trial 2"]
    figure = confirmation_figure([FIVE, other], "val_auc")
    seeds, means, first = figure["data"]
    axis = figure["layout"]["yaxis"]
    assert axis["ticktext"] == ["trial 2", "trial 5"]
    assert axis["range"][0] > axis["range"][1]  # the first row is on top
    assert list(zip(seeds["x"], seeds["y"], strict=True)) == [(0.995, 0), *((value, 1) for value in FIVE.values)]
    assert means["x"] == [other.mean, FIVE.mean]
    assert FIVE.high is not None
    assert means["error_x"]["array"] == [0.0, FIVE.high - FIVE.mean]
    assert (first["x"], first["y"], first["marker"]["symbol"]) == ([0.96, 0.9885], [0, 1], "circle-open")


def test_csv_has_a_line_for_each_training() -> None:
    rows: list[dict[str, object]] = [
        {"run_id": "a", "trial": 5, "seed": 11, "value": 0.1 + 0.2},
        {"trial": 5, "seed": 12, "value": None, "run_id": "b"},
    ]
    assert confirm_csv(rows) == "trial,seed,value,run_id\n5,11,0.30000000000000004,a\n5,12,,b\n"
    assert confirm_csv([]) == "trial,seed,value,run_id\n"
