"""Estimates of how many bytes a study writes and its trials need in memory, from hyperparameters alone.

No network is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Hyperparameters
from pneumo.spec.network import blocks, count_parameters
from pneumo.spec.space import Space

WEIGHT = 4
"""Bytes of a stored parameter. It is a float32 under every precision."""

MODEL_FILES = 40_000
"""Estimated bytes of a logged model besides its weights and its input example."""

EXAMPLE_VALUE = 27
"""Estimated bytes of each value of a logged model's input example, which MLflow stores as text twice."""

TRIAL_FILES = 500_000
"""Estimated bytes of a trial's plots, tables and database rows."""

STUDY_FILES = 6_000_000
"""Estimated bytes of the study's own page and database rows."""

COPIES = 4
"""Largest number of copies of the weights in a checkpoint: the weights, two optimizer slots, those of the best epoch."""

WORKER_MEMORY = 550_000_000
"""Estimated bytes of a worker's memory besides its network: TensorFlow, MLflow, the plots, what 20 trials leave behind."""

MEMORY_COPIES = 12
"""Estimated copies of the weights while a trial runs: gradients, two optimizer slots, the best epoch, temporary ones."""

GRADIENT_COPIES = 2
"""Estimated copies of the activations of a batch while a trial runs: themselves and their gradients."""


@dataclass(frozen=True)
class SizeEstimate:
    """An estimate of how many bytes are written for one purpose.

    Attributes:
        what: The purpose, for a message, for example `12 models`.
        least: Lower bound in bytes.
        most: Upper bound in bytes.
    """

    what: str
    least: int
    most: int


def model_bytes(values: Hyperparameters) -> int:
    """Return the estimated size in bytes of a network as a logged MLflow model."""
    example = values.image_size**2 * values.channels * EXAMPLE_VALUE
    return count_parameters(values) * WEIGHT + example + MODEL_FILES


def trial_memory(values: Hyperparameters) -> int:
    """Return the estimated bytes of memory of a worker that trains a network on the CPU, at most.

    Measured were 75 to 100 % of it, over networks of 0.6 to 15 million parameters and batches of 37 MB to 3.4 GB. Memory
    that all workers share, as the decoded pictures and TensorFlow's code, does not count.
    """
    numbers = values.image_size**2 * values.channels
    for block in blocks(values):
        convolved = sum(side**2 for side in block.sides)
        numbers += block.filters * (convolved * (3 if values.batch_norm else 2) + block.pooled_side**2)
        if values.separable:
            numbers += max(block.channels, block.filters) * convolved  # after the depthwise part
        if values.residual:
            numbers += 2 * block.filters * block.sides[-1] ** 2  # the projection and the sum
        if values.block_dropout:
            numbers += block.filters * block.pooled_side**2
    activations = numbers * values.batch_size * WEIGHT
    return WORKER_MEMORY + MEMORY_COPIES * WEIGHT * count_parameters(values) + GRADIENT_COPIES * activations


def largest_trial_memory(experiment: Experiment) -> int:
    """Return the estimated bytes of memory of a worker, at most, that trains any network of a study."""
    first = [Hyperparameters(**values) for values in experiment.first_candidates]  # type: ignore[arg-type]
    return max(trial_memory(values) for values in [*first, *_corners(experiment.space, -1)] if count_parameters(values))


def extreme_networks(space: Space) -> tuple[Hyperparameters, Hyperparameters]:
    """Return a smallest and a largest network, such that the size of every network of the space lies between theirs.

    Conditions are ignored. The two networks may therefore lie outside the space.
    """
    smallest = min((values for values in _corners(space, 0) if count_parameters(values)), key=model_bytes)
    largest = max((values for values in _corners(space, -1) if count_parameters(values)), key=model_bytes)
    return smallest, largest


def trials_bytes(experiment: Experiment, finished_trials: int) -> tuple[SizeEstimate, ...]:
    """Return estimates of what a study still writes, apart from the decoded pictures.

    The lower bound assumes the smallest network of the space. If a pruner may end trials, which then log no model, it counts
    only the model of the baseline, which is never pruned.

    Args:
        experiment: The experiment.
        finished_trials: Number of trials that the study has finished already.

    Returns:
        Four estimates: the models, the models that wait to be sent to MLflow, the checkpoints, everything else.
    """
    search, (smallest, largest) = experiment.search, extreme_networks(experiment.space)
    remaining = max(0, search.trials - finished_trials)
    first_candidates = experiment.first_candidates[finished_trials:][:remaining]
    known = [Hyperparameters(**values) for values in first_candidates]  # type: ignore[arg-type]
    unknown = remaining - len(known)
    least = sorted(map(model_bytes, known + [smallest] * unknown))
    most = sorted(map(model_bytes, known + [largest] * unknown), reverse=True)
    if search.pruner != "none":
        least = [model_bytes(known[0])] if known and search.baseline and finished_trials == 0 else []
    if search.keep:
        # Besides the best models, there are the baseline's and those of trials that have just ended.
        kept_models = search.keep.best + 1 + search.worker_count
        least, most = least[:kept_models], most[:kept_models]
    if search.confirm:
        most += [model_bytes(largest)] * (search.confirm.top * search.confirm.seeds)
    rungs = remaining if search.capabilities.rungs else 0
    checkpoint = COPIES * WEIGHT * max(map(count_parameters, [largest, *known]))
    largest_model = max(map(model_bytes, [largest, *known]))
    return (
        SizeEstimate(f"{len(most)} model{'' if len(most) == 1 else 's'}", sum(least), sum(most)),
        SizeEstimate("models not sent yet", 0, min(remaining, search.worker_count) * largest_model),
        SizeEstimate("checkpoints", 0, min(remaining, rungs + search.worker_count) * checkpoint),
        SizeEstimate("plots, tables, databases", STUDY_FILES, STUDY_FILES + remaining * TRIAL_FILES),
    )


def pictures_bytes(pictures: int, sizes: Sequence[int]) -> int:
    """Return the size in bytes of the decoded pictures in the cache, one byte for each pixel.

    Args:
        pictures: Number of pictures.
        sizes: Sides in pixels at which each picture is stored.
    """
    return pictures * sum(size**2 for size in sizes)


def _corners(space: Space, end: Literal[0, -1]) -> Iterator[Hyperparameters]:
    """Yield networks that include the smallest (`end` is 0) or largest (`end` is -1) one of the space.

    More filters, dense layers, dense units and channels, padding, batch normalization, convolutions that are not separable,
    residual blocks and the head flatten make every network larger, and a larger batch needs more memory. A larger kernel, more
    layers or convolutions, or a larger picture can make it larger or smaller, so all their combinations are included.
    """
    growing: dict[str, Callable[[Any], Any]] = {
        "filters": float,
        "filter_growth": float,
        "padding": ("valid", "same").index,
        "separable": (True, False).index,
        "residual": bool,
        "dense_layers": int,
        "dense_units": int,
        "channels": int,
        "batch_norm": bool,
        "block_dropout": float,
        "head": ("average", "flatten").index,
        "batch_size": int,
    }
    monotone = {name: sorted(space.possible_values(name), key=key)[end] for name, key in growing.items()}
    names = ("layers", "convolutions", "kernel_size", "image_size")
    for combination in product(*(space.possible_values(name) for name in names)):
        yield Hyperparameters(**monotone, **dict(zip(names, combination, strict=True)))  # type: ignore[arg-type]
