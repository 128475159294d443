"""Estimates of footprint: parameters as Keras counts them, and bounds that every network of a space keeps."""

from __future__ import annotations

from typing import Any

import pytest

from pneumo.compute.footprint import extreme_networks, model_bytes, pictures_bytes, trials_bytes
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.hyperparameters import TUTORIAL, Hyperparameters
from pneumo.spec.network import count_parameters


def build_request(hyperparameters: dict[str, Any], **search: Any) -> Experiment:
    return build_experiment({"name": "s", "hyperparameters": hyperparameters, "search": search}, "test")


@pytest.mark.parametrize(
    "values",
    [
        TUTORIAL,
        Hyperparameters(layers=3, filters=8, filter_growth=1.7, image_size=61, channels=1, kernel_size=4),
        Hyperparameters(layers=2, batch_norm=True, head="average", dense_units=7, dropout=0.3, precision="bfloat16"),
        Hyperparameters(layers=4, filters=5, filter_growth=0.4, normalization="standardize", optimizer="sgd"),
    ],
    ids=["tutorial", "growing", "average", "shrinking"],
)
def test_parameters_are_those_that_keras_counts(values: Hyperparameters) -> None:
    from pneumo.cnn import build

    assert count_parameters(values) == build.network_parameters(build.build(values, seed=0))


def test_a_network_that_cannot_be_built_has_no_parameters() -> None:
    assert count_parameters(Hyperparameters(layers=5)) == 0


def test_no_network_of_a_space_is_beyond_its_extremes() -> None:
    block: dict[str, Any] = {
        "layers": {"low": 1, "high": 5},
        "kernel_size": [3, 5],
        "filters": [4, 16],
        "filter_growth": {"low": 0.5, "high": 2.0, "step": 0.5},
        "image_size": [32, 48],
        "batch_norm": [False, True],
        "head": ["flatten", "average"],
        "dense_units": [8, 64],
    }
    space = build_request(block).space
    networks = [Hyperparameters(**values) for values in space.grid()]  # type: ignore[arg-type]
    sizes = [model_bytes(values) for values in networks if count_parameters(values)]
    assert tuple(map(model_bytes, extreme_networks(space))) == (min(sizes), max(sizes))


def test_all_models_count_or_only_those_that_are_kept() -> None:
    block = {"filters": [8, 32]}
    small, large = (model_bytes(Hyperparameters(filters=filters)) for filters in (8, 32))

    def models(finished_trials: int = 0, **search: Any) -> tuple[int, int]:
        first = trials_bytes(build_request(block, trials=10, **search), finished_trials)[0]
        return first.least, first.most

    assert models() == (large + 9 * small, 10 * large)  # the first is the baseline
    assert models(finished_trials=4) == (6 * small, 6 * large)
    assert models(finished_trials=12) == (0, 0)
    assert models(pruner="median") == (large, 10 * large)
    assert models(keep={"best": 2}) == (4 * small, 4 * large)
    assert models(keep={"best": 2}, workers=3) == (6 * small, 6 * large)
    assert models(confirm={"top": 2, "seeds": 2}) == (large + 9 * small, 14 * large)


def test_pictures_take_a_byte_each_pixel() -> None:
    assert pictures_bytes(3, (2, 10)) == 3 * 104


def test_settings_of_keep() -> None:
    assert build_request({}).search.keep is None
    assert build_request({}, keep={"best": 3}).search.keep is not None
    wrong = {"search.keep.best: ": {"best": 0}, "did you mean 'best'": {"best": 1, "bset": 3}, "best: is missing": {}}
    for message, given in wrong.items():
        with pytest.raises(RequestError, match=message):
            build_request({}, keep=given)
