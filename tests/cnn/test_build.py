"""Tests of pneumo.cnn.build: the default network, and the effect of each hyperparameter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pneumo.cnn.build import UnbuildableError, build, network_parameters, prediction_network
from pneumo.cnn.optimizer import compile_model
from pneumo.spec.hyperparameters import TUTORIAL, Hyperparameters
from pneumo.spec.network import count_parameters, map_size

TINY: dict[str, Any] = {"image_size": 16, "filters": 4, "dense_units": 8}


def built(**values: Any) -> keras.Model:
    return build(Hyperparameters(**(TINY | values)), seed=0)


def optimizer(**values: Any) -> keras.Optimizer:
    model = built(**values)
    compile_model(model, Hyperparameters(**(TINY | values)), steps=30)
    return model.optimizer


def test_the_defaults_are_the_tutorials_network() -> None:
    model = build(TUTORIAL, seed=0)
    compile_model(model, TUTORIAL, steps=1)
    kinds = [type(layer).__name__ for layer in model.layers if layer.count_params() or "pooling" in layer.name]
    assert network_parameters(model) == 3_937_409
    assert model.input_shape == (None, 64, 64, 3)
    assert kinds == ["Conv2D", "MaxPooling2D", "Dense", "Dense"]
    assert model.get_layer("dense").activation is keras.activations.relu
    assert model.get_layer("pneumonia").activation is keras.activations.sigmoid
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.001)


def test_layers_filters_growth_and_kernel_size() -> None:
    model = built(layers=3, filters=5, filter_growth=1.5, kernel_size=2, image_size=20)
    kernels = [layer.kernel.shape for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert kernels == [(2, 2, 3, 5), (2, 2, 5, 8), (2, 2, 8, 11)]
    assert built(layers=2, filters=1, filter_growth=0.1).get_layer("convolution_2").filters == 1


def test_pooling_head_dense_units_channels_and_dropout() -> None:
    model = built(pooling="average", head="average", dense_units=9, channels=1, dropout=0.25)
    assert isinstance(model.get_layer("pooling_1"), keras.layers.AveragePooling2D)
    assert model.get_layer("dense").kernel.shape == (4, 9)
    assert model.input_shape == (None, 16, 16, 1)
    assert [layer.name for layer in model.layers][-3:] == ["dense", "dropout", "pneumonia"]
    assert model.get_layer("dropout").rate == 0.25


def test_batch_norm_stands_between_convolution_and_activation() -> None:
    names = [layer.name for layer in built(batch_norm=True, activation="gelu").layers]
    start = names.index("convolution_1")
    assert names[start : start + 4] == ["convolution_1", "batch_norm_1", "activation_1", "pooling_1"]
    assert built(activation="gelu").get_layer("activation_1").activation is keras.activations.gelu


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_standardize_gives_each_picture_zero_mean_and_unit_variance(precision: str) -> None:
    model = built(normalization="standardize", precision=precision)
    standardizing = keras.Model(model.input, model.get_layer("standardize").output)
    pictures = np.random.default_rng(0).integers(40, 90, (3, 16, 16, 3)).astype(np.uint8)
    standardized = np.asarray(standardizing(pictures))
    assert standardized.dtype == np.float32
    np.testing.assert_allclose(standardized.mean(axis=(1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(standardized.std(axis=(1, 2, 3)), 1, atol=1e-3)
    np.testing.assert_allclose(standardized[0], (pictures[0] - pictures[0].mean()) / pictures[0].std(), atol=2e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_precision_is_the_layers_own(precision: str) -> None:
    model = built(precision=precision, batch_norm=True, dropout=0.1)
    precisions = {layer.name: layer.compute_dtype for layer in model.layers}
    assert precisions["convolution_1"] == precisions["batch_norm_1"] == precisions["dense"] == precision
    assert precisions["rescale"] == precisions["pneumonia"] == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    has_loss_scaling = isinstance(optimizer(precision=precision), keras.optimizers.LossScaleOptimizer)
    assert has_loss_scaling == (precision == "float16")


def test_precision_auto_must_be_resolved_first() -> None:
    with pytest.raises(ValueError, match="call resolve_precision"):
        built(precision="auto")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adam", keras.optimizers.Adam),
        ("adamw", keras.optimizers.Adam),  # with a decay, Adam is AdamW
        ("sgd", keras.optimizers.SGD),
        ("rmsprop", keras.optimizers.RMSprop),
    ],
)
def test_optimizers_take_their_rate_and_decay(name: str, kind: type[keras.Optimizer]) -> None:
    built_optimizer = optimizer(optimizer=name, learning_rate=0.5, weight_decay=0.25)
    assert isinstance(built_optimizer, kind)
    assert float(built_optimizer.learning_rate) == 0.5
    assert built_optimizer.weight_decay == 0.25
    assert not optimizer(optimizer=name).weight_decay


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_momentum_reaches_the_optimizers_that_have_it(name: str) -> None:
    assert optimizer(optimizer=name, momentum=0.75).momentum == 0.75


def test_weight_decay_is_decoupled_from_the_gradient() -> None:
    model_optimizer = optimizer(optimizer="sgd", learning_rate=0.5, weight_decay=0.1)
    built_optimizer = keras.optimizers.SGD.from_config(model_optimizer.get_config())
    weight = keras.Variable([2.0])
    built_optimizer.apply([keras.ops.zeros(1)], [weight])
    assert float(weight[0]) == pytest.approx(2.0 - 0.5 * 0.1 * 2.0)


def test_cosine_ends_at_zero_after_all_steps() -> None:
    built_optimizer = optimizer(schedule="cosine", learning_rate=0.2)
    rates = []
    for step in (0, 15, 30):
        built_optimizer.iterations.assign(step)
        rates.append(float(built_optimizer.learning_rate))
    assert rates == pytest.approx([0.2, 0.1, 0.0], abs=1e-7)


def test_the_optimizer_has_its_variables_before_the_first_step() -> None:
    built_optimizer = optimizer(precision="float16")
    assert built_optimizer.built
    assert built_optimizer.inner_optimizer.built
    assert len(optimizer().variables) == 2 + 2 * len(built().trainable_variables)


def test_label_smoothing_is_in_the_training_loss() -> None:
    model, values = built(), Hyperparameters(**TINY, label_smoothing=0.2)
    compile_model(model, values, steps=1)
    loss = float(model.loss(np.ones((1, 1), np.float32), np.full((1, 1), 0.9, np.float32)))
    assert loss == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.1), rel=1e-5)


def test_a_network_that_pools_to_nothing_is_refused_with_the_reason() -> None:
    with pytest.raises(UnbuildableError, match=r"layers=4 .*image_size=16"):
        built(layers=4)


def test_the_seed_alone_decides_the_first_weights() -> None:
    first = built(layers=2, dropout=0.5).get_weights()
    keras.utils.set_random_seed(99)
    again = built(layers=2, dropout=0.5).get_weights()
    other = build(Hyperparameters(**TINY, layers=2, dropout=0.5), seed=2**31 - 1).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.slow
def test_a_saved_network_loads_without_this_package(tmp_path: Path) -> None:
    model = built(layers=2, batch_norm=True, dropout=0.3, normalization="standardize", precision="bfloat16")
    compile_model(model, TUTORIAL, steps=1)
    path = tmp_path / "model.keras"
    prediction_network(model, TUTORIAL).save(path)
    pictures = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    np.save(tmp_path / "pictures.npy", pictures)
    script = (
        "import sys, keras, numpy as np\n"
        "model = keras.models.load_model('model.keras')\n"
        "assert not model.compiled and not any(name.startswith('pneumo') for name in sys.modules)\n"
        "np.save('probabilities.npy', model.predict(np.load('pictures.npy'), verbose=0))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), np.asarray(model(pictures)), atol=1e-6)


RICHER: list[dict[str, Any]] = [
    {"convolutions": 2},
    {"convolutions": 3, "padding": "same", "layers": 2, "batch_norm": True},
    {"separable": True, "layers": 2, "filter_growth": 2.0},
    {"separable": True, "convolutions": 2, "batch_norm": True, "padding": "same"},
    {"residual": True, "layers": 2, "image_size": 21},
    {"residual": True, "convolutions": 2, "kernel_size": 4, "image_size": 21, "channels": 1},
    {"residual": True, "padding": "same", "layers": 3, "filter_growth": 1.5, "separable": True, "head": "average"},
    {"block_dropout": 0.2, "dropout": 0.3, "dense_layers": 3},
    {"padding": "same", "kernel_size": 2, "layers": 2, "precision": "bfloat16", "residual": True},
]


@pytest.mark.parametrize("values", RICHER, ids=str)
def test_the_size_of_a_richer_network_is_known_before_it_is_built(values: dict[str, Any]) -> None:
    model, hyperparameters = built(**values), Hyperparameters(**(TINY | values))
    assert network_parameters(model) == count_parameters(hyperparameters)
    last_pooling = model.get_layer(f"pooling_{hyperparameters.layers}")
    assert last_pooling.output.shape[1] == map_size(hyperparameters)
    assert model(np.zeros((2, *model.input_shape[1:]), np.uint8)).shape == (2, 1)


def test_what_the_richer_hyperparameters_build() -> None:
    model = built(
        layers=2, convolutions=2, residual=True, separable=True, block_dropout=0.1, padding="same", dropout=0.1
    )
    names = {layer.name for layer in model.layers}
    assert {"convolution_1", "convolution_1_2", "project_1", "add_1", "activation_1_2", "block_dropout_1"} <= names
    assert "project_2" not in names  # as many filters as before
    kinds = [type(model.get_layer(f"convolution_{name}")).__name__ for name in ("1", "1_2", "2", "2_2")]
    assert kinds == ["Conv2D", "SeparableConv2D", "SeparableConv2D", "SeparableConv2D"]
    assert isinstance(model.get_layer("block_dropout_2"), keras.layers.SpatialDropout2D)
    assert [built(dense_layers=2).get_layer(name).units for name in ("dense", "dense_2")] == [8, 8]


def test_a_residual_block_without_padding_adds_the_middle_of_its_input() -> None:
    model = built(layers=2, residual=True, filter_growth=1.0)
    model.get_layer("convolution_2").set_weights([np.zeros((3, 3, 4, 4)), np.zeros(4)])
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.float32)
    block_input, block_sum = keras.Model(
        model.input, [model.get_layer("pooling_1").output, model.get_layer("add_2").output]
    )(pictures)
    np.testing.assert_array_equal(np.asarray(block_sum), np.asarray(block_input)[:, 1:-1, 1:-1])


@pytest.mark.parametrize("image_size", [16, 17])
def test_flip_average_is_the_mean_over_a_picture_and_its_mirror_image(image_size: int, tmp_path: Path) -> None:
    values = Hyperparameters(**(TINY | {"image_size": image_size, "flip_average": True}))
    model = build(values, seed=0)
    prediction_network(model, values).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    pictures = np.random.default_rng(0).integers(0, 256, (3, image_size, image_size, 3)).astype(np.uint8)
    expected = (np.asarray(model(pictures)) + np.asarray(model(pictures[:, :, ::-1]))) / 2
    np.testing.assert_allclose(np.asarray(loaded(pictures)), expected, atol=1e-6)
    np.testing.assert_allclose(np.asarray(loaded(pictures)), np.asarray(loaded(pictures[:, :, ::-1])), atol=1e-6)
    assert loaded.count_params() == network_parameters(model)
