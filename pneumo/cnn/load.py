"""A network that was kept: loaded again, and with its logit in the probability's place."""

from __future__ import annotations

from pathlib import Path

import keras

from pneumo.spec.errors import RequestError


def load_network(path: Path) -> keras.Model:
    """The network in a `.keras` file, for predicting only. Raises `RequestError` where there is none to be read."""
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    # A broken file, or one of a Keras to come, makes Keras raise anything.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RequestError(f"{path}: is no network that can be loaded: {reason}") from error


def logits(network: keras.Model, *, float32: bool) -> keras.Model:
    """A copy of a network that `build` made, which gives the logit of pneumonia, float32 (n, 1).

    The logit of a probability near 1 cannot be had from the probability: its float32 has no digits left there. With
    `float32` the copy computes in float32 throughout; the weights are float32 under mixed precision too. A network that does
    not end in one unit with a sigmoid raises `ValueError`.
    """
    last = network.layers[-1]
    if not (isinstance(last, keras.layers.Dense) and last.units == 1 and last.activation is keras.activations.sigmoid):
        raise ValueError("no network that ends in one unit with a sigmoid")

    def layer_of_copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if float32:
            config["dtype"] = "float32"
            if getattr(layer, "activation", None) is keras.activations.gelu:
                config["activation"] = _gelu
        if layer is last:
            config["activation"] = "linear"
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(network, clone_function=layer_of_copy)
    copy.set_weights(network.get_weights())
    return copy


def _gelu(x: keras.KerasTensor) -> keras.KerasTensor:
    """Keras' own, by the error function instead of its complement, which ONNX has not."""
    return 0.5 * x * (1 + keras.ops.erf(x * 0.5**0.5))
