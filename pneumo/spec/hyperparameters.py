"""Every hyperparameter in its one place: type, bounds, the tutorial's value, what it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Value = bool | int | float | str
"""What a hyperparameter can be."""


class Hyperparameters(BaseModel):
    """One network and its training. The defaults are the tutorial's base CNN (3,937,409 parameters).

    Raises `pydantic.ValidationError` on a value outside its bounds or of the wrong type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # the network
    layers: Annotated[int, Field(ge=1, le=12, description="convolutions, each followed by 2x2 pooling")] = 1
    filters: Annotated[int, Field(ge=1, le=1024, description="filters of the first convolution")] = 32
    filter_growth: Annotated[float, Field(gt=0, le=4, description="factor of filters from layer to layer")] = 1.0
    kernel_size: Annotated[int, Field(ge=1, le=15, description="side of the convolutions' kernels, pixels")] = 3
    pooling: Annotated[Literal["max", "average"], Field(description="kind of the 2x2 pooling")] = "max"
    batch_norm: Annotated[bool, Field(description="batch normalization after each convolution")] = False
    activation: Annotated[
        Literal["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh"],
        Field(description="activation of convolutions and of the dense layer"),
    ] = "relu"
    head: Annotated[
        Literal["flatten", "average"], Field(description="flatten the last map, or average it over its area")
    ] = "flatten"
    dense_units: Annotated[int, Field(ge=1, le=8192, description="units of the dense layer")] = 128
    dropout: Annotated[float, Field(ge=0, le=0.95, description="share of dense units dropped while training")] = 0.0

    # what it sees
    image_size: Annotated[int, Field(ge=16, le=512, description="side of the input, pixels")] = 64
    channels: Annotated[Literal[1, 3], Field(description="channels of the input; grey is repeated")] = 3
    normalization: Annotated[
        Literal["rescale", "standardize"], Field(description="times 1/255, or zero mean and unit variance per picture")
    ] = "rescale"

    # augmentation, in training only
    shear: Annotated[float, Field(ge=0, le=90, description="shear angle, up to this many degrees either way")] = 0.2
    zoom: Annotated[float, Field(ge=0, le=0.9, description="zoom of each axis, 1 - zoom to 1 + zoom")] = 0.2
    horizontal_flip: Annotated[bool, Field(description="mirror half of the pictures")] = True
    rotation: Annotated[float, Field(ge=0, le=180, description="rotation, up to this many degrees either way")] = 0.0
    translation: Annotated[float, Field(ge=0, le=0.9, description="shift of each axis, share of the side")] = 0.0
    brightness: Annotated[float, Field(ge=0, le=1, description="brightness shift, share of the 8-bit range")] = 0.0
    contrast: Annotated[float, Field(ge=0, le=1, description="contrast factor, 1 - contrast to 1 + contrast")] = 0.0

    # training
    optimizer: Annotated[Literal["adam", "adamw", "sgd", "rmsprop"], Field(description="the optimizer")] = "adam"
    momentum: Annotated[float, Field(ge=0, lt=1, description="momentum of sgd and rmsprop")] = 0.0
    learning_rate: Annotated[float, Field(gt=0, le=10, description="learning rate at the start")] = 0.001
    schedule: Annotated[
        Literal["constant", "cosine"], Field(description="learning rate over the epochs: as it is, or cosine to zero")
    ] = "constant"
    weight_decay: Annotated[float, Field(ge=0, le=1, description="decoupled weight decay")] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1, description="label smoothing of the training loss")] = 0.0
    class_weight: Annotated[
        Literal["none", "balanced"], Field(description="weight classes by the inverse of their frequency")
    ] = "none"
    batch_size: Annotated[int, Field(ge=1, le=4096, description="pictures a step")] = 32
    epochs: Annotated[int, Field(ge=1, le=10_000, description="passes over the training pictures")] = 10
    precision: Annotated[
        Literal["float32", "bfloat16", "float16", "auto"],
        Field(description="arithmetic: float32, mixed bfloat16 or float16, or auto: what the device computes fastest"),
    ] = "float32"


TUTORIAL = Hyperparameters()
"""The tutorial's own network and training."""

NAMES: tuple[str, ...] = tuple(Hyperparameters.model_fields)

CONDITIONS: Mapping[str, Mapping[str, tuple[Value, ...]]] = {"momentum": {"optimizer": ("sgd", "rmsprop")}}
"""Hyperparameters that mean something only beside certain values of another."""


def value_type(name: str) -> type:
    """The Python type of a hyperparameter's values: bool, int, float or str."""
    return type(getattr(TUTORIAL, name))


def map_size(values: Hyperparameters) -> int:
    """Side of the last feature map in pixels; 0 or less: the network cannot be built.

    Each layer is a convolution without padding, then 2x2 pooling that drops an odd last row, as in the tutorial.
    """
    side = values.image_size
    for _ in range(values.layers):
        side = (side - values.kernel_size + 1) // 2
        if side < 1:
            return 0
    return side


def unbuildable(values: Hyperparameters) -> str | None:
    """Why the network cannot be built, in one line; None if it can."""
    if map_size(values) > 0:
        return None
    return (
        f"layers={values.layers} with kernel_size={values.kernel_size} pool a picture of image_size="
        f"{values.image_size} to nothing; fewer layers or a larger image_size would do"
    )


def count_parameters(values: Hyperparameters) -> int:
    """The number of parameters of a network, as Keras counts them, trainable or not; 0 where it cannot be built."""
    side = map_size(values)
    if side == 0:
        return 0
    count, channels = 0, int(values.channels)
    for k in range(values.layers):
        filters = max(1, round(values.filters * values.filter_growth**k))
        # Batch normalization has four of each filter in place of the bias.
        count += filters * (channels * values.kernel_size**2 + (4 if values.batch_norm else 1))
        channels = filters
    features = channels * side**2 if values.head == "flatten" else channels
    return count + (features + 1) * values.dense_units + values.dense_units + 1
