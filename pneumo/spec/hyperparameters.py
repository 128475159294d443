"""All hyperparameters: their types, bounds, defaults (the tutorial's values) and meanings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pneumo.spec.errors import Fault, SettingError, describe_validation_error

Value = bool | int | float | str
"""Type of a hyperparameter's value."""


class Hyperparameters(BaseModel):
    """The hyperparameters of one network and its training.

    The defaults are those of the tutorial's base CNN (3,937,409 parameters).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # The network
    layers: Annotated[
        int, Field(ge=1, le=12, description="Number of blocks of convolutions. 2x2 pooling ends each block.")
    ] = 1
    convolutions: Annotated[int, Field(ge=1, le=3, description="Number of convolutions in each block.")] = 1
    filters: Annotated[
        int, Field(ge=1, le=1024, description="Number of filters of each convolution of the first block.")
    ] = 32
    filter_growth: Annotated[
        float,
        Field(
            gt=0,
            le=4,
            description="Factor by which the number of filters changes from one block to the next: block k (from 0) has "
            "filters * filter_growth**k filters, rounded.",
        ),
    ] = 1.0
    kernel_size: Annotated[int, Field(ge=1, le=15, description="Side of the square convolution kernels in pixels.")] = 3
    padding: Annotated[
        Literal["valid", "same"],
        Field(
            description="Padding of the convolutions: valid adds none, so each makes the feature map smaller by kernel_size "
            "- 1; same adds zeros, so the feature map keeps its size."
        ),
    ] = "valid"
    separable: Annotated[
        bool,
        Field(
            description="Whether the convolutions, except the network's first, are depthwise separable (Chollet 2017, "
            "arXiv:1610.02357)."
        ),
    ] = False
    residual: Annotated[
        bool,
        Field(
            description="Whether the input of each block is added to its last convolution, before the activation (He et al. "
            "2016, arXiv:1512.03385). A 1x1 convolution projects it if the number of filters differs; without padding, its "
            "border is cropped."
        ),
    ] = False
    pooling: Annotated[
        Literal["max", "average"], Field(description="Kind of the 2x2 pooling: MaxPooling2D or AveragePooling2D.")
    ] = "max"
    batch_norm: Annotated[
        bool,
        Field(
            description="Whether batch normalization follows each convolution, before the activation. The convolution "
            "then has no bias."
        ),
    ] = False
    activation: Annotated[
        Literal["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh"],
        Field(description="Activation function of the convolutions and of the hidden dense layers."),
    ] = "relu"
    block_dropout: Annotated[
        float,
        Field(
            ge=0,
            le=0.95,
            description="Rate of the spatial dropout at the end of each block: the fraction of its feature maps set to 0 in "
            "training (Tompson et al. 2015, arXiv:1411.4280).",
        ),
    ] = 0.0
    head: Annotated[
        Literal["flatten", "average"],
        Field(
            description="How the last feature map becomes the input of the dense layers: flatten keeps every value, average "
            "takes the mean of each filter (GlobalAveragePooling2D)."
        ),
    ] = "flatten"
    dense_layers: Annotated[int, Field(ge=1, le=4, description="Number of hidden dense layers.")] = 1
    dense_units: Annotated[int, Field(ge=1, le=8192, description="Number of units of each hidden dense layer.")] = 128
    dropout: Annotated[
        float,
        Field(
            ge=0,
            le=0.95,
            description="Dropout rate after each hidden dense layer: the fraction of its outputs set to 0 in training.",
        ),
    ] = 0.0

    # The input
    image_size: Annotated[
        int, Field(ge=16, le=512, description="Side of the square input picture in pixels. Pictures are resized to it.")
    ] = 64
    channels: Annotated[
        Literal[1, 3],
        Field(description="Number of input channels. With 3, the grey picture is repeated in each channel."),
    ] = 3
    normalization: Annotated[
        Literal["rescale", "standardize"],
        Field(
            description="Scaling of the input: rescale multiplies pixel values by 1/255; standardize also brings each "
            "picture to zero mean and unit variance."
        ),
    ] = "rescale"

    # Augmentation of the training pictures. Each picture gets its own random values, drawn uniformly.
    shear: Annotated[
        float,
        Field(
            ge=0,
            le=90,
            description="Largest random shear angle of training pictures in degrees, as shear_range of Keras' "
            "ImageDataGenerator.",
        ),
    ] = 0.2
    zoom: Annotated[
        float,
        Field(
            ge=0,
            le=0.9,
            description="Range of the random zoom of training pictures: each axis is scaled by its own factor between "
            "1 - zoom and 1 + zoom, as zoom_range of Keras' ImageDataGenerator.",
        ),
    ] = 0.2
    horizontal_flip: Annotated[
        bool, Field(description="Whether a training picture is mirrored left to right with probability 0.5.")
    ] = True
    rotation: Annotated[
        float,
        Field(
            ge=0, le=180, description="Largest random rotation of training pictures in degrees, in either direction."
        ),
    ] = 0.0
    translation: Annotated[
        float,
        Field(
            ge=0,
            le=0.9,
            description="Largest random shift of training pictures along each axis, as a fraction of image_size.",
        ),
    ] = 0.0
    brightness: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Largest random change of the pixel values of training pictures, as a fraction of 255, up or down.",
        ),
    ] = 0.0
    contrast: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Range of the random contrast of training pictures: the distance of each pixel from the picture's "
            "mean is multiplied by a factor between 1 - contrast and 1 + contrast.",
        ),
    ] = 0.0
    crop: Annotated[
        float,
        Field(
            ge=0,
            le=0.9,
            description="Largest share of the side that a random crop of a training picture cuts off. The rest, a square at a "
            "random place, is enlarged to image_size.",
        ),
    ] = 0.0
    frame_exchange: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Probability that the outer frame of a training picture is replaced by that of another picture of the "
            "batch. The frame's width is random, up to a quarter of image_size. The label stays, so a network learns not to "
            "read it from the frame.",
        ),
    ] = 0.0
    gamma: Annotated[
        float,
        Field(
            ge=0,
            le=4,
            description="Range of the random gamma correction of training pictures: grey levels, as shares of 255, are raised "
            "to a power between 1 / (1 + gamma) and 1 + gamma.",
        ),
    ] = 0.0
    blur: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Largest share of the blurred picture in a training picture that is mixed with its own blur, a "
            "binomial 5 x 5 filter whose standard deviation is one pixel.",
        ),
    ] = 0.0
    noise: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Largest standard deviation of the normal noise that is added to a training picture, as a fraction of "
            "255.",
        ),
    ] = 0.0
    erase: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Largest height and width of the rectangle that is erased from a training picture with probability "
            "0.5, as a fraction of image_size (Zhong et al. 2017, arXiv:1708.04896). It is filled with a random grey level.",
        ),
    ] = 0.0
    mixup: Annotated[
        float,
        Field(
            ge=0,
            le=10,
            description="Parameter alpha of mixup (Zhang et al. 2018, arXiv:1710.09412): each training picture and its label "
            "are mixed with another one of the batch, with a share from the distribution Beta(alpha, alpha). 0 mixes nothing.",
        ),
    ] = 0.0

    # Training
    optimizer: Annotated[Literal["adam", "adamw", "sgd", "rmsprop"], Field(description="Keras optimizer.")] = "adam"
    momentum: Annotated[
        float, Field(ge=0, lt=1, description="Momentum of the optimizers sgd and rmsprop. The others do not have it.")
    ] = 0.0
    learning_rate: Annotated[
        float,
        Field(gt=0, le=10, description="Learning rate, which schedule and warmup multiply by factors from 0 to 1."),
    ] = 0.001
    schedule: Annotated[
        Literal["constant", "cosine", "plateau", "triangular"],
        Field(
            description="Learning rate over the training: constant; cosine decay from learning_rate to 0 at the last step "
            "(CosineDecay); plateau, which halves the rate after every 2 epochs in a row without a better value of the "
            "objective; or triangular, which rises linearly from 0 to learning_rate at the middle of the training and falls "
            "back to 0 at its end (one cycle of Smith 2017, arXiv:1506.01186)."
        ),
    ] = "constant"
    warmup: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Share of the steps of the whole training at its start in which the learning rate rises linearly: the "
            "rate of the schedule is multiplied by a factor that grows from 0 to 1. At 0 there is no warmup.",
        ),
    ] = 0.0
    ema: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Momentum of the exponential moving average of the weights, updated at each step: average = ema * "
            "average + (1 - ema) * weights, from the weights after the first step (Polyak and Juditsky 1992; Izmailov et "
            "al. 2018, arXiv:1803.05407; Keras' use_ema). The network with the averaged weights is validated, saved and "
            "predicts. It lags behind the training by about 1 / (1 - ema) steps. The statistics of batch normalization are "
            "those of the training. At 0 there is no average.",
        ),
    ] = 0.0
    weight_decay: Annotated[
        float, Field(ge=0, le=1, description="Decoupled weight decay of the optimizer (its weight_decay argument).")
    ] = 0.0
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="Label smoothing of the training loss (binary cross-entropy).")
    ] = 0.0
    class_weight: Annotated[
        Literal["none", "balanced"],
        Field(
            description="Weights of the classes in the training loss: balanced weights each class by the inverse of its "
            "frequency in the training pictures."
        ),
    ] = "none"
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Number of pictures in a training step.")] = 32
    epochs: Annotated[
        int, Field(ge=1, le=10_000, description="Number of epochs: passes over all training pictures.")
    ] = 10
    early_stopping: Annotated[
        int,
        Field(
            ge=0,
            le=10_000,
            description="Number of epochs in a row without a better value of the objective after which the training ends "
            "before its last epoch; the trial is complete. At 0 all epochs are trained.",
        ),
    ] = 0
    precision: Annotated[
        Literal["float32", "bfloat16", "float16", "auto"],
        Field(
            description="Numeric precision: float32, or mixed precision with bfloat16 or float16 (float32 weights). auto "
            "selects what the device computes fastest."
        ),
    ] = "float32"

    # Prediction
    flip_average: Annotated[
        bool,
        Field(
            description="Whether the network's probability is the mean of those for a picture and for its mirror image. Both "
            "are computed inside the saved model. Predicting takes twice as long, training does not change."
        ),
    ] = False

    @property
    def rate_depends_on_epochs(self) -> bool:
        """Whether the learning rate of a step depends on the number of epochs of the whole training."""
        return self.schedule in ("cosine", "triangular") or self.warmup > 0


PLATEAU_EPOCHS = 2
"""Number of epochs in a row without a better value after which the schedule `plateau` reduces the learning rate."""

PLATEAU_FACTOR = 0.5
"""Factor by which the schedule `plateau` multiplies the learning rate."""

TUTORIAL = Hyperparameters()
"""The hyperparameters of the tutorial's network and training."""

NAMES: tuple[str, ...] = tuple(Hyperparameters.model_fields)
"""Names of all hyperparameters, in the order of the model."""

CONDITIONS: Mapping[str, Mapping[str, tuple[Value, ...]]] = {"momentum": {"optimizer": ("sgd", "rmsprop")}}
"""Hyperparameters that have an effect only with certain values of another one, which are listed."""


def value_type(name: str) -> type:
    """Return the Python type of a hyperparameter's values: bool, int, float or str."""
    return type(getattr(TUTORIAL, name))


def check_value(name: str, value: Any) -> Value:
    """Return a hyperparameter's value; an int becomes a float if the hyperparameter is a float.

    Args:
        name: Name of the hyperparameter.
        value: Value from an experiment file.

    Raises:
        SettingError: The value has the wrong type or is out of bounds.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingError(Fault((), f"a finite number, got {value}"))
    try:
        checked: Value = _field_validator(name).validate_python(value, strict=True)
    except ValidationError as error:
        raise SettingError(Fault((), describe_validation_error(error.errors()[0]))) from None
    return checked


@cache
def _field_validator(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(Hyperparameters.model_fields[name].rebuild_annotation())
