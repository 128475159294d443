"""The greedy choice of an ensemble's members."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from pneumo.evidence.ensemble import log_losses, pick_members


@st.composite
def libraries(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    networks, pictures = draw(st.integers(1, 6)), draw(st.integers(2, 30))
    labels = rng.integers(0, 2, pictures)
    labels[:2] = 0, 1
    return labels, rng.uniform(0, 1, (networks, pictures)).astype(np.float32)


@given(libraries(), st.integers(1, 5))
def test_each_pick_is_the_best_next_one_and_the_picks_end_at_the_lowest_loss(
    library: tuple[np.ndarray, np.ndarray], picks: int
) -> None:
    labels, probabilities = library
    picked = pick_members(labels, probabilities, picks)

    def loss(rows: list[int]) -> float:
        mean = np.mean(probabilities[rows], axis=0, dtype=np.float64)
        return float(log_loss(labels, np.clip(mean, 1e-7, 1 - 1e-7), labels=[0, 1]))

    assert 1 <= len(picked) <= picks
    for count in range(len(picked)):
        every = [loss([*picked[:count], row]) for row in range(len(probabilities))]
        assert every[picked[count]] == pytest.approx(min(every), abs=1e-12)
    losses = [loss(picked[: count + 1]) for count in range(len(picked))]
    assert losses[-1] == pytest.approx(min(losses), abs=1e-12)
    assert losses[-1] <= min(map(float, log_losses(labels, probabilities))) + 1e-12, "never worse than the best network"
    assert picked == pick_members(labels, probabilities, picks)


def test_complementary_networks_are_found_and_equal_ones_are_taken_in_order() -> None:
    labels = np.array([0, 0, 1, 1])
    left, right = np.array([0.1, 0.6, 0.9, 0.9]), np.array([0.6, 0.1, 0.9, 0.9])
    assert pick_members(labels, np.stack([1 - left, left, right, left]), 2) == [1, 2]
    pairs = combinations_with_replacement(range(3), 2)
    rows = np.stack([1 - left, left, right])
    best = min(pairs, key=lambda pair: float(log_losses(labels, rows[list(pair)].mean(axis=0)[None])[0]))
    assert best == (1, 2)


def test_a_network_that_diverged_is_never_picked() -> None:
    labels, good = np.array([0, 1]), np.array([0.4, 0.6])
    assert pick_members(labels, np.stack([np.array([np.nan, 0.9]), good]), 3) == [1]


def test_arrays_that_do_not_fit_are_refused() -> None:
    for probabilities in (np.zeros((2, 3)), np.zeros(2), np.zeros((0, 2))):
        with pytest.raises(ValueError, match="labels of shape"):
            pick_members(np.array([0, 1]), probabilities, 1)
