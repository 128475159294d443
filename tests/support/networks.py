"""Networks with known output, because their weights are set by hand, and registered models of such networks."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

import keras
import mlflow.tensorflow
import numpy as np

from pneumo.cnn.build import build
from pneumo.data import decoding
from pneumo.spec.hyperparameters import Hyperparameters
from pneumo.tracking.registry import CHAMPION, Version, create, move
from pneumo.tracking.served import Decision, Member, log_served, save_served
from pneumo.tracking.store import Store
from tests.support.pictures import encoded

SMALL: dict[str, Any] = {"image_size": 32, "filters": 2, "dense_units": 4}


def network(**values: Any) -> keras.Model:
    """Return a small network with random weights."""
    return build(Hyperparameters(**(SMALL | values)), seed=0)


def brightness_network(steepness: float = 20.0, **values: Any) -> keras.Model:
    """Return a network whose logit is `steepness` * (mean brightness - 1/2), with brightness from 0 to 1.

    Each convolution copies its middle pixel to its first filter, so the last feature map is the picture, except for the
    pooling.
    """
    model = network(**values)
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    for layer in convolutions:
        kernel = np.zeros(layer.kernel.shape)
        middle = layer.kernel_size[0] // 2
        if layer is convolutions[0]:
            kernel[middle, middle, :, 0] = 1 / kernel.shape[2]
        else:
            kernel[middle, middle, 0, 0] = 1
        layer.kernel.assign(kernel)
    dense, last = model.get_layer("dense"), model.get_layer("pneumonia")
    kernel = np.zeros(dense.kernel.shape)
    kernel[:: convolutions[-1].filters, 0] = convolutions[-1].filters / len(kernel)
    dense.kernel.assign(kernel)
    kernel = np.zeros(last.kernel.shape)
    kernel[0] = steepness
    last.kernel.assign(kernel)
    last.bias.assign([-steepness / 2])
    return model


def register(store: Store, model: keras.Model, name: str, **changes: Any) -> Version:
    """Register a network as a model that takes pictures, as the champion. `changes` are fields of `Decision`."""
    defaults: dict[str, Any] = {
        "classes": ("NORMAL", "PNEUMONIA"),
        "threshold": 0.5,
        "temperature": 1.0,
        "phantom": False,
    }
    member = Member("0" * 32, 1.0, image_size=model.input_shape[1], channels=model.input_shape[-1])
    decision = Decision(**(defaults | changes), members=(member,))
    client = store.client
    run = client.create_run(client.create_experiment(name))
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, "trial")
        mlflow.tensorflow.save_model(model, str(trial), pip_requirements=[])
        decoder, served = Path(decoding.__file__).parent, Path(folder, "served")
        save_served([trial], decoder, decision, base64.b64encode(encoded()).decode(), served)
        model_id = log_served(store, run.info.run_id, served, {})
    tags = {"pneumo.data": "phantom" if decision.phantom else "folder"}
    version = create(store, name, model_id=model_id, run_id=run.info.run_id, tags=tags, card="made by hand")
    move(store, name, CHAMPION, version.number)
    return version
