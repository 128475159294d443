"""How much a study writes: the size of a network from its hyperparameters alone, and of what its trials leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Hyperparameters, Value, count_parameters
from pneumo.spec.space import Space

WEIGHT = 4
"""Bytes of a parameter: float32, whatever the arithmetic."""

MODEL_FILES, EXAMPLE = 40_000, 27
"""Bytes of a logged model beside its weights, and for each number of its example, which is kept as text twice; about."""

TRIAL_FILES, STUDY_FILES = 500_000, 6_000_000
"""Bytes of a trial's plots, tables and rows in the databases, and of the study's own page and rows; about."""

COPIES = 4
"""Of the weights in a checkpoint, at most: themselves, two slots of the optimizer, the best epoch's."""


@dataclass(frozen=True)
class Bytes:
    """How much is written for something, at least and at most."""

    what: str
    least: int
    most: int


def model_bytes(values: Hyperparameters) -> int:
    """The size of a network as MLflow keeps it, about."""
    return count_parameters(values) * WEIGHT + values.image_size**2 * values.channels * EXAMPLE + MODEL_FILES


def extremes(space: Space) -> tuple[Hyperparameters, Hyperparameters]:
    """The smallest and the largest network of a space, or beyond them: conditions are passed over."""
    smallest = min((values for values in _corners(space, min) if count_parameters(values)), key=model_bytes)
    return smallest, max((values for values in _corners(space, max) if count_parameters(values)), key=model_bytes)


def trials_bytes(experiment: Experiment, told: int) -> tuple[Bytes, ...]:
    """What a study with `told` trials still writes beside the pictures.

    In this order: the models; those that wait to be sent to MLflow; checkpoints; everything else.

    At least: the networks are the smallest, and where a pruner may end trials, which then have no model, only the baseline
    is sure to have one.
    """
    search, (smallest, largest) = experiment.search, extremes(experiment.space)
    left = max(0, search.trials - told)
    known = [Hyperparameters(**values) for values in experiment.first_candidates[told:]][:left]  # type: ignore[arg-type]
    others = left - len(known)
    least = sorted(map(model_bytes, known + [smallest] * others))
    most = sorted(map(model_bytes, known + [largest] * others), reverse=True)
    if search.pruner != "none":
        least = [model_bytes(known[0])] if known and search.baseline and told == 0 else []
    if search.keep:
        # The baseline's, and those of trials that have just ended, stand beside the best.
        held = search.keep.best + 1 + search.workers
        least, most = least[:held], most[:held]
    if search.confirm:
        most += [model_bytes(largest)] * (search.confirm.top * search.confirm.seeds)
    rungs = left if (search.engine, search.algorithm) == ("keras-tuner", "hyperband") else 0
    checkpoint = COPIES * WEIGHT * max(map(count_parameters, [largest, *known]))
    return (
        Bytes(f"{len(most)} model{'' if len(most) == 1 else 's'}", sum(least), sum(most)),
        Bytes("models on their way", 0, min(left, search.workers) * max(map(model_bytes, [largest, *known]))),
        Bytes("checkpoints", 0, min(left, rungs + search.workers) * checkpoint),
        Bytes("plots, tables, databases", STUDY_FILES, STUDY_FILES + left * TRIAL_FILES),
    )


def pictures_bytes(pictures: int, sizes: Sequence[int]) -> int:
    """Decoded pictures at these sides in pixels: a byte each pixel."""
    return pictures * sum(size**2 for size in sizes)


def _corners(space: Space, end: Callable[[Sequence[Value]], Value]) -> Iterator[Hyperparameters]:
    """Networks among which the smallest or the largest of a space is; `end` is `min` or `max`.

    More filters, units, channels, batch normalization and a flattened map make every network larger. A larger kernel, more
    layers, or a larger picture where a smaller one cannot be built, may do either.
    """
    monotone = {
        name: end(sorted(space.possible_values(name)))  # False before True, "average" before "flatten"
        for name in ("filters", "filter_growth", "dense_units", "channels", "batch_norm", "head")
    }
    names = ("layers", "kernel_size", "image_size")
    for chosen in product(*(space.possible_values(name) for name in names)):
        yield Hyperparameters(**monotone, **dict(zip(names, chosen, strict=True)))  # type: ignore[arg-type]
