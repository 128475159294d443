"""Tests of pneumo.evidence.attention: the share of a heat map that is inside the middle of the picture."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pneumo.evidence.attention import attention_inside, frame_width, mean_attention_inside


def test_a_map_without_structure_has_the_share_of_the_area() -> None:
    assert attention_inside(np.ones((100, 100), np.float32)) == pytest.approx(0.7**2)


@pytest.mark.parametrize("side", [32, 64, 96, 224])
def test_heat_counts_as_inside_up_to_the_frame(side: int) -> None:
    width = frame_width(side)
    assert width == round(0.15 * side)
    inside, outside = np.zeros((side, side), np.float32), np.ones((side, side), np.float32)
    inside[width, side - width - 1] = 0.5
    outside[width : side - width, width : side - width] = 0
    assert attention_inside(inside) == 1
    assert attention_inside(outside) == 0
    assert attention_inside(inside + outside / outside.sum()) == pytest.approx(0.5 / 1.5)


def test_a_map_without_heat_has_no_share_and_does_not_count_in_the_mean() -> None:
    none, full = np.zeros((20, 20)), np.zeros((20, 20))
    full[10, 10] = 1
    assert math.isnan(attention_inside(none))
    assert mean_attention_inside([none, full, none]) == 1
    assert math.isnan(mean_attention_inside([none]))
    assert math.isnan(mean_attention_inside([]))
