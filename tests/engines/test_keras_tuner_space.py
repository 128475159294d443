"""Spaces in Keras Tuner's form: exact values, conditions, and proposals that lie in the space."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras_tuner
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.engines import keras_tuner_space
from pneumo.engines.keras_tuner_engine import KerasTunerEngine
from pneumo.spec.algorithms import ALGORITHMS
from pneumo.spec.candidate import Candidate
from pneumo.spec.space import Choice, Range, Searched, Space
from pneumo.spec.space_reader import read_space
from tests.support.keras_tuner_studies import GRID, NESTED, NOTHING, experiment, play, reason, tell
from tests.support.spaces import blocks


@pytest.mark.parametrize(
    "dimension",
    [
        Choice("filters", (16, 8, 32), {}),
        Choice("dropout", (0.1, 0.0, 0.30000000000000004), {}),
        Choice("activation", ("relu", "elu"), {}),
        Choice("batch_norm", (False, True), {}),
        Choice("horizontal_flip", (True, False), {}),
        Choice("zoom", (1, 0.5), {}),
        Choice("head", ("flatten", 3, 0.5, True), {}),
        Range("dropout", 0.0, 0.9, False, 0.3, False, {}),
        Range("dropout", 0.1, 0.7, False, 0.1, False, {}),
        Range("learning_rate", 1e-5, 1.1e-4, False, 1e-5, False, {}),
        Range("layers", 1, 9, False, 2, True, {}),
        Range("layers", 1, 12, False, None, True, {}),
        Range("filters", 3, 200, True, None, True, {}),
    ],
    ids=str,
)
def test_keras_tuner_has_exactly_the_values_of_the_dimension(dimension: Searched) -> None:
    (hp,) = keras_tuner_space.to_keras_tuner(Space((dimension,))).space
    assert dimension.values is not None
    drawn = [keras_tuner_space.decode_value(dimension, hp.prob_to_value(k / 20_000)) for k in range(20_000)]
    assert sorted(map(repr, set(drawn))) == sorted(map(repr, dimension.values))
    for value in dimension.values:
        encoded = keras_tuner_space.encode_values(Space((dimension,)), {dimension.name: value})[dimension.name]
        decoded = keras_tuner_space.decode_value(dimension, hp.prob_to_value(hp.value_to_prob(encoded)))
        assert repr(decoded) == repr(value)


def test_numbers_are_in_order_for_keras_tuner_and_names_are_not() -> None:
    def ordered(*values: Any) -> bool:
        hyperparameters = keras_tuner_space.to_keras_tuner(Space((Choice("filters", values, {}),)))
        return bool(hyperparameters.space[0].ordered)

    assert ordered(1, 2)
    assert ordered(1, 0.5)
    assert not ordered("a", "b")
    assert not ordered("a", 1)
    assert not ordered(0.5, True)


@given(st.floats(1e-6, 10), st.floats(1e-6, 10), st.booleans(), st.floats(0, 1))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_rounding_does_not_leave_a_range(low: float, high: float, log: bool, at: float) -> None:
    if low == high:
        return
    dimension = Range("learning_rate", min(low, high), max(low, high), log, None, False, {})
    (hp,) = keras_tuner_space.to_keras_tuner(Space((dimension,))).space
    for probability in (0.0, at, 1.0):
        assert (
            dimension.low
            <= float(keras_tuner_space.decode_value(dimension, hp.prob_to_value(probability)))
            <= dimension.high
        )


def test_a_hyperparameter_that_is_never_active_is_left_out() -> None:
    hyperparameters = keras_tuner_space.to_keras_tuner(read_space(NESTED))
    searched = {"batch_norm", "optimizer", "momentum", "rotation", "schedule", "weight_decay", "label_smoothing"}
    assert {hp.name for hp in hyperparameters.space} == searched


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("block", [GRID, NESTED, NOTHING], ids=["grid", "nested", "nothing searched"])
def test_a_grid_has_every_combination_of_the_space_once(tmp_path: Path, block: dict[str, Any], baseline: bool) -> None:
    request = experiment("grid", block, baseline=baseline)
    engine = KerasTunerEngine(request, tmp_path)
    proposed = [trial.candidate.key for trial in play(engine)]
    expected = {Candidate(0, values).key for values in request.space.grid()}
    if baseline:
        expected.add(Candidate(0, request.space.baseline()).key)
    assert len(proposed) == len(set(proposed))
    assert set(proposed) == expected
    assert reason(engine) == "every combination of the grid was proposed"


def in_random_spaces(folder: Path, algorithm: str, spaces: int, proposals: int) -> int:
    """Play in random spaces, check that all proposals lie in them, and return the number of proposals."""
    proposed: list[Candidate] = []

    @settings(max_examples=spaces, deadline=None, derandomize=True, database=None)
    @given(blocks(ALGORITHMS["keras-tuner"][algorithm]))
    def run(block: dict[str, Any]) -> None:
        request = experiment(algorithm, block, baseline=False)
        engine = KerasTunerEngine(request, folder / str(len(proposed)))
        while len(engine.trials()) < proposals and isinstance(proposal := engine.ask(), Candidate):
            assert request.space.contains(proposal.hyperparameters), proposal
            tell(engine, proposal)
            proposed.append(proposal)

    run()
    return len(proposed)


def test_random_proposals_lie_in_random_spaces(tmp_path: Path) -> None:
    assert in_random_spaces(tmp_path, "random", 20, 20) >= 200


@pytest.mark.slow
def test_bayesian_proposals_lie_in_random_spaces_also_in_their_corners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)

    optimize = keras_tuner.src.tuners.bayesian.scipy.optimize
    minimize = optimize.minimize

    def corner(function: Any, x0: Any, *, bounds: Any, method: str, jac: bool = False) -> Any:
        if jac:  # called to fit the model itself
            return minimize(function, x0, bounds=bounds, method=method, jac=jac)
        return SimpleNamespace(
            x=bounds[np.arange(len(x0)), generator.integers(2, size=len(x0))], fun=generator.random()
        )

    # Replaces the search for the model's minimum, which takes seconds and often ends on an edge.
    monkeypatch.setattr(optimize, "minimize", corner)
    assert in_random_spaces(tmp_path, "bayesian", 12, 12) >= 100
