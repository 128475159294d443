"""What the hyperparameters say of a network before it is built: its filters, its size, whether it can be built."""

from __future__ import annotations

from dataclasses import dataclass

from pneumo.spec.hyperparameters import CONDITIONS, PLATEAU_EPOCHS, Hyperparameters


@dataclass(frozen=True)
class Block:
    """A block of convolutions with the pooling that ends it.

    Attributes:
        channels: Number of channels of its input.
        filters: Number of filters of each of its convolutions.
        sides: Side of the feature map after each convolution, in pixels.
    """

    channels: int
    filters: int
    sides: tuple[int, ...]

    @property
    def pooled_side(self) -> int:
        """Side of the feature map after the 2x2 pooling, which drops an odd last row."""
        return self.sides[-1] // 2


def blocks(values: Hyperparameters) -> list[Block]:
    """Return the blocks of a network; fewer than `values.layers` if one would leave no pixels."""
    side, channels, result = values.image_size, int(values.channels), []
    lost = values.kernel_size - 1 if values.padding == "valid" else 0
    for filters in layer_filters(values):
        block = Block(channels, filters, tuple(side - lost * (k + 1) for k in range(values.convolutions)))
        if block.pooled_side < 1:
            break
        result.append(block)
        side, channels = block.pooled_side, filters
    return result


def map_size(values: Hyperparameters) -> int:
    """Return the side of the last feature map in pixels; 0 if the network cannot be built."""
    all_blocks = blocks(values)
    return all_blocks[-1].pooled_side if len(all_blocks) == values.layers else 0


def layer_filters(values: Hyperparameters) -> tuple[int, ...]:
    """Return the number of filters of the convolutions of each block."""
    return tuple(max(1, round(values.filters * values.filter_growth**k)) for k in range(values.layers))


def training_key(values: Hyperparameters) -> tuple[object, ...]:
    """Return a key that is equal for hyperparameters that build the same network and train it in the same way.

    Equal keys do not need equal hyperparameters: `filter_growth` has no effect on a single layer, for example.
    """
    settings = values.model_dump(exclude={"layers", "filters", "filter_growth"})
    for name, condition in CONDITIONS.items():
        if any(settings[parent] not in allowed for parent, allowed in condition.items()):
            del settings[name]
    if values.layers == values.convolutions == 1:  # the first convolution is never separable
        del settings["separable"]
    if values.early_stopping >= values.epochs - 1:  # no epoch would be left out
        settings["early_stopping"] = 0
    longest = min(values.epochs - 1, values.early_stopping or values.epochs)  # epochs in a row without a better value
    if values.schedule == "plateau" and longest <= PLATEAU_EPOCHS:  # no epoch would have the smaller rate
        settings["schedule"] = "constant"
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
    all_blocks = blocks(values)
    count = sum(_block_parameters(block, values, is_first=k == 0) for k, block in enumerate(all_blocks))
    channels = all_blocks[-1].filters
    features = channels * side**2 if values.head == "flatten" else channels
    for _ in range(values.dense_layers):
        count += (features + 1) * values.dense_units
        features = values.dense_units
    return count + features + 1


def _block_parameters(block: Block, values: Hyperparameters, *, is_first: bool) -> int:
    count, channels = 0, block.channels
    # Batch normalization has four parameters for each filter and replaces the bias.
    others = 4 * block.filters if values.batch_norm else block.filters
    for k in range(values.convolutions):
        if is_separable(values, is_first=is_first and k == 0):
            count += channels * values.kernel_size**2 + channels * block.filters + others
        else:
            count += channels * values.kernel_size**2 * block.filters + others
        channels = block.filters
    if values.residual and block.channels != block.filters:
        count += block.channels * block.filters  # the projection
    return count


def is_separable(values: Hyperparameters, *, is_first: bool) -> bool:
    """Return whether a convolution is depthwise separable. The network's first one never is: grey pictures have one channel."""
    return values.separable and not is_first
