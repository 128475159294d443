"""What the hyperparameters say of a network before it is built: its filters, its size, whether it can be built."""

from __future__ import annotations

from pneumo.spec.hyperparameters import CONDITIONS, Hyperparameters


def map_size(values: Hyperparameters) -> int:
    """Return the side of the last feature map in pixels; 0 if the network cannot be built.

    Each layer is a convolution without padding, followed by 2x2 pooling that drops an odd last row, as in the tutorial.
    """
    side = values.image_size
    for _ in range(values.layers):
        side = (side - values.kernel_size + 1) // 2
        if side < 1:
            return 0
    return side


def layer_filters(values: Hyperparameters) -> tuple[int, ...]:
    """Return the number of filters of each convolutional layer."""
    return tuple(max(1, round(values.filters * values.filter_growth**k)) for k in range(values.layers))


def training_key(values: Hyperparameters) -> tuple[object, ...]:
    """Return a key that is equal for hyperparameters that build the same network and train it in the same way.

    Equal keys do not need equal hyperparameters: `filter_growth` has no effect on a single layer, for example.
    """
    settings = values.model_dump(exclude={"layers", "filters", "filter_growth"})
    for name, condition in CONDITIONS.items():
        if any(settings[parent] not in allowed for parent, allowed in condition.items()):
            del settings[name]
    if values.optimizer == "adamw":  # Keras' Adam has the same decoupled weight decay
        settings["optimizer"] = "adam"
    return (layer_filters(values), *settings.items())


def unbuildable(values: Hyperparameters) -> str | None:
    """Return the reason, in one line, why the network cannot be built; None if it can."""
    if map_size(values) > 0:
        return None
    return (
        f"layers={values.layers} with kernel_size={values.kernel_size} pool a picture of image_size="
        f"{values.image_size} to nothing; fewer layers or a larger image_size would do"
    )


def count_parameters(values: Hyperparameters) -> int:
    """Return the number of parameters of a network as Keras counts them, trainable or not; 0 if it cannot be built."""
    side = map_size(values)
    if side == 0:
        return 0
    count, channels = 0, int(values.channels)
    for filters in layer_filters(values):
        # Batch normalization has four parameters for each filter and replaces the bias.
        count += filters * (channels * values.kernel_size**2 + (4 if values.batch_norm else 1))
        channels = filters
    features = channels * side**2 if values.head == "flatten" else channels
    return count + (features + 1) * values.dense_units + values.dense_units + 1
