"""The stress suite: changes of a picture that leave its label as it is. `pneumo.cnn.stress` carries them out.

The idea is that of D. Hendrycks and T. Dietterich, Benchmarking neural network robustness to common corruptions and
perturbations, ICLR 2019 (arXiv:1903.12261).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

SUITE = "stress-1"
"""Name and version of the suite. A change of a transform or its strength is a new version."""

FRAME = 0.15
"""Width of a picture's frame on each side, as a share of the side."""

ChangeKind = Literal["geometry", "photometry", "frame"]


@dataclass(frozen=True)
class Change:
    """A change of the suite: its name, its kind, and what it does, with its strength."""

    name: str
    kind: ChangeKind
    effect: str


CHANGES: tuple[Change, ...] = (
    Change("crop_90", "geometry", "the middle .9 of each side, enlarged to the full side"),
    Change("crop_80", "geometry", "the middle .8 of each side, enlarged to the full side"),
    Change("wide", "geometry", "reduced to 1/1.15 of each side, edges repeated around it"),
    Change("narrow_x", "geometry", "reduced to .85 of the width, edges repeated"),
    Change("narrow_y", "geometry", "reduced to .85 of the height, edges repeated"),
    Change("shift", "geometry", "moved right and down by 8 % of the side, edges repeated"),
    Change("rotate", "geometry", "rotated counterclockwise by 8 degrees, edges repeated"),
    Change("brighter", "photometry", "15 % of the range of grey levels added"),
    Change("darker", "photometry", "15 % of the range of grey levels subtracted"),
    Change("contrast_high", "photometry", "distance from the picture's mean times 1.4"),
    Change("contrast_low", "photometry", "distance from the picture's mean times .6"),
    Change("gamma_high", "photometry", "gamma 1.5"),
    Change("gamma_low", "photometry", "gamma .67"),
    Change("blur", "photometry", "binomial 3 x 3 blur, twice"),
    Change("noise", "photometry", "normal noise of 12 grey levels"),
    Change(
        "frame", "frame", f"the outer {100 * FRAME:.0f} % on each side replaced by that of a picture of the other class"
    ),
)
"""The changes of the suite, in the order in which their figures are listed."""

FRAME = 0.15
"""Width of the frame of a picture on each side, as a share of the side. What is within it is the middle of the picture."""

GEOMETRIC_CHANGES: tuple[str, ...] = tuple(change.name for change in CHANGES if change.kind == "geometry")

SEED = 1
"""Seed of the suite's noise, of its partners in the frame exchange and of the choice of pictures: the same in all studies, so
that all trials are judged on the same pictures."""

SHARE_AT_THE_END = 0.5
"""Largest cost of judging a trained network, in epochs of its own training."""

SHARE_AFTER_AN_EPOCH = 0.2
"""Largest cost of judging a network after an epoch, in epochs of its own training."""

_CHANGE_COST = 0.3
"""Largest measured cost of changing and predicting a picture, in trainings of a picture (docs/performance.md)."""


def most_pictures(training_pictures: int, changes: Collection[str], passes: int, share: float) -> int:
    """Return the largest number of pictures that a network may be judged on.

    The number follows from counts, never from measured times, so it is the same wherever a trial is trained.

    Args:
        training_pictures: Number of the training pictures.
        changes: The changes of each picture.
        passes: Number of passes of the network for a prediction.
        share: Largest cost, in epochs.
    """
    return int(share * training_pictures / (_CHANGE_COST * passes * len(changes)))
