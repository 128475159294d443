"""What a trial's worker receives and returns. All of it is pickled and needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pneumo.spec.candidate import Candidate
from pneumo.spec.errors import TrialError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pneumo.data.prepare import Prepared
    from pneumo.evidence.attention import HeatMaps
    from pneumo.evidence.stress import StressPredictions
    from pneumo.tracking.outbox import Outbox
    from pneumo.tracking.sent_outbox import SentOutbox

MAX_ERROR_LENGTH = 500
"""Largest number of letters of a failed trial's error. The whole stack trace is an artifact."""


@dataclass(frozen=True)
class TrialTask:
    """Everything that a worker needs to run one trial.

    Attributes:
        study: Name of the study.
        candidate: The hyperparameters and the number of the trial.
        run_id: Id or key of the trial's MLflow run.
        outbox: Queues the writes for MLflow; None for a replay, which records nothing.
        objectives: The study's objectives. The first one is the trial's value.
        seed: Seed of the initial weights, the order of the pictures and their augmentation. A trial that continues another
            has the seed of the first trial of that chain.
        data: The decoded pictures and their split.
        continue_from: Path of the checkpoint of the trial that this one continues.
        checkpoint_path: Path to which the trial writes its own checkpoints. A checkpoint there is of this trial, from a
            process that was killed, and is preferred to `continue_from`.
        stress: Whether the trained network is judged on the stress suite, unless it was pruned.
        passes: Largest number of passes of the network that a prediction takes in any trial of the study. It limits the number
            of pictures for the stress suite, which is the same in all trials.
        draws: Whether the worker draws the trial's plots, because the driver has enough to draw.
    """

    study: str
    candidate: Candidate
    run_id: str
    outbox: Outbox | SentOutbox | None
    objectives: tuple[str, ...]
    seed: int
    data: Prepared
    continue_from: str | None = None
    checkpoint_path: str | None = None
    stress: bool = True
    passes: int = 1
    draws: bool = False

    @property
    def is_replay(self) -> bool:
        """Whether the trial is a replay, which records nothing."""
        return self.outbox is None


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """The result of one training.

    Attributes:
        history: The metrics of each epoch, from the first.
        metrics: The metrics that are known once, at the end.
        probabilities: float32 (n,), of the validation pictures at the best epoch.
        pruned: Whether the driver stopped the training early.
        stress: The predictions under the changes of the stress suite; None if the network was not judged on it.
        heat_maps: Grad-CAM heat maps of some validation pictures; None if the training was pruned.
    """

    history: Sequence[Mapping[str, float]]
    metrics: Mapping[str, float]
    probabilities: NDArray[np.float32]
    pruned: bool
    stress: StressPredictions | None = None
    heat_maps: HeatMaps | None = None


def one_line_error(error: Exception) -> str:
    """Return an error in one line, with the name of its class unless it is a `TrialError`, whose text needs none."""
    text = " ".join(str(error).split())
    message = text if isinstance(error, TrialError) else f"{type(error).__name__}: {text}"
    return message[:MAX_ERROR_LENGTH]
