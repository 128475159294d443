"""Tests of pneumo.evidence.report.charts: numbers as text, and axes."""

from __future__ import annotations

import pytest

from pneumo.evidence.report.charts import format_number, format_seconds, scale_settings, whole_ticks


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98765, "0.9877"),
        (3937409.0, "3,937,409"),
        (12345.6, "12,346"),
        (3, "3"),
        (0.0001234567, "0.0001235"),
        (True, "True"),
        ("sgd", "sgd"),
        (None, ""),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_are_short(value: object, text: str) -> None:
    assert format_number(value) == text


def test_durations_have_two_units_at_most() -> None:
    assert [format_seconds(s) for s in (12.4, 200, 3599.6, 7500)] == ["12 s", "3 min 20 s", "1 h 00 min", "2 h 05 min"]


def test_an_axis_is_logarithmic_where_values_are_far_apart_and_above_zero() -> None:
    for values in ([0.0, 1e6], [-1, 5], [10, 299]):
        assert scale_settings(values) == {"type": "linear"}
    settings = scale_settings([2e4, 9e5])
    assert settings["type"] == "log"
    assert settings["tickvals"] == [1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6]
    assert settings["ticktext"][:2] == ["10,000", "20,000"]
    assert scale_settings([1.0, 1e6])["tickvals"] == [10.0**power for power in range(7)]


def test_ticks_are_at_whole_numbers() -> None:
    assert [whole_ticks(last)["dtick"] for last in (1, 8, 20, 200)] == [1, 1, 3, 30]
