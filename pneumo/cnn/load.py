"""Load a saved network, and derive from it a network that returns logits."""

from __future__ import annotations

from pathlib import Path

import keras

from pneumo.spec.errors import RequestError


def load_network(path: Path) -> keras.Model:
    """Return the network in a `.keras` file, for predicting only.

    Raises:
        RequestError: The file is missing, damaged or of an unknown version of Keras.
    """
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    # Keras raises exceptions of many types for a damaged file or one that a later Keras wrote.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RequestError(f"{path}: cannot be loaded as a network: {reason}") from error


def without_flip_average(network: keras.Model) -> tuple[keras.Model, bool]:
    """Return the network that `build` made, and whether the given one is its mean over a picture and its mirror image."""
    if isinstance(network.layers[-1], keras.layers.Average):
        return next(layer for layer in network.layers if isinstance(layer, keras.Model)), True
    return network, False


def logit_network(network: keras.Model, *, float32: bool) -> keras.Model:
    """Return a copy of a network that gives the logit of pneumonia instead of its probability.

    Near 1 the logit cannot be computed from the probability, because float32 has no digits left there.

    Args:
        network: A network that `build` made.
        float32: Whether the copy computes in float32 throughout. The weights are float32 under mixed precision too.

    Returns:
        A network whose output is float32, shape (n, 1).

    Raises:
        ValueError: The network does not end in one unit with a sigmoid.
    """
    last = network.layers[-1]
    if not (isinstance(last, keras.layers.Dense) and last.units == 1 and last.activation is keras.activations.sigmoid):
        raise ValueError("the network must end in one unit with a sigmoid")

    def copy_layer(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if float32:
            config["dtype"] = "float32"
            if getattr(layer, "activation", None) is keras.activations.gelu:
                config["activation"] = _gelu
        if layer is last:
            config["activation"] = "linear"
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(network, clone_function=copy_layer)
    copy.set_weights(network.get_weights())
    return copy


def _gelu(x: keras.KerasTensor) -> keras.KerasTensor:
    """Return Keras' gelu computed with erf instead of erfc, which ONNX lacks."""
    return 0.5 * x * (1 + keras.ops.erf(x * 0.5**0.5))
