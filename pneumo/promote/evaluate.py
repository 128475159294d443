"""Evaluate the chosen trial and the reference on the test pictures: predictions, metrics, the gate, and files to record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pneumo.promote.package import read_encoded
from pneumo.promote.reference import Reference
from pneumo.spec.errors import RequestError
from pneumo.spec.names import Artifacts
from pneumo.spec.promotion import PromoteSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pneumo.data.pictures import Picture, Source
    from pneumo.evidence.gate import Gate
    from pneumo.evidence.intervals import Interval
    from pneumo.tracking.served import Prediction, Served

MOST_UNREADABLE = 0.01
"""Largest share of the test pictures that may be unreadable."""

BATCH = 32
"""Number of encoded pictures to hold in memory at a time."""

_SIDE = 96
"""Side in pixels of the pictures on the plot of mistakes."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the test pictures show of a model.

    Attributes:
        metrics: Each metric with its 95 % interval.
        gate: The gate's decision.
        counts: Number of pictures, of patients, and of pictures of each class.
        unreadable: Name and error of each picture that was left out.
        files: Plots and `predictions.csv`, by path within the run's artifacts.
    """

    metrics: dict[str, Interval]
    gate: Gate
    counts: dict[str, int]
    unreadable: tuple[tuple[str, str], ...]
    files: dict[str, str | bytes]


def evaluate(
    model: Served,
    reference_model: Served | None,
    reference: Reference,
    test: Source,
    promote_block: PromoteSpec,
    *,
    title: str,
    progress: Callable[[int, int], None],
) -> Evaluation:
    """Evaluate a model and the reference on every test picture.

    Args:
        model: The model to promote.
        reference_model: The model to compare with; None if there is none.
        reference: What that model is, or why there is none.
        test: The pictures with the test set opened (see `pneumo.data.sealed`).
        promote_block: The experiment's `promote` block, which configures the gate.
        title: Title of the plots.
        progress: Called with the number of pictures that are predicted and the number of all pictures.

    Raises:
        RequestError: More than `MOST_UNREADABLE` of the pictures cannot be read.
    """
    from pneumo.evidence.gate import apply_gate
    from pneumo.evidence.intervals import compute_figures

    pairs = _predict(model, reference_model, test, progress)
    readable = _readable(test, pairs)
    labels, patients = readable.labels, readable.patients
    threshold = model.decision.threshold
    metrics = compute_figures(labels, readable.probabilities, patients, threshold)
    gate = apply_gate(
        labels,
        patients,
        readable.probabilities,
        readable.reference_probabilities,
        our_threshold=threshold,
        their_threshold=reference_model.decision.threshold if reference_model else None,
        against=reference.description,
        figures=metrics,
        floors=promote_block.floors,
        significant=promote_block.gate == "significant",
    )
    counts = {"num_rows": len(readable.pictures), "patients": len(set(patients.tolist()))}
    counts |= {name: int((labels == label).sum()) for label, name in enumerate(test.classes)}
    files = _files(readable, test, threshold, title=title, reference_name=reference.name)
    return Evaluation(metrics, gate, counts, readable.unreadable, files)


@dataclass(frozen=True, eq=False)
class _Readable:
    """The pictures that both models can read, in arrays of shape (n,), and name and error of the others.

    `reference_probabilities` is None if there is no reference.
    """

    pictures: Sequence[Picture]
    labels: NDArray[np.int64]
    patients: NDArray[np.str_]
    probabilities: NDArray[np.float64]
    reference_probabilities: NDArray[np.float64] | None
    unreadable: tuple[tuple[str, str], ...]


def _predict(
    model: Served, reference: Served | None, test: Source, progress: Callable[[int, int], None]
) -> list[tuple[Prediction, Prediction | None]]:
    """Return both models' predictions for every test picture. Each picture is read once."""
    pairs: list[tuple[Prediction, Prediction | None]] = []
    for start in range(0, len(test.pictures), BATCH):
        encoded = [read_encoded(test, picture) for picture in test.pictures[start : start + BATCH]]
        predictions = model.predict(encoded)
        reference_predictions = reference.predict(encoded) if reference else [None] * len(encoded)
        pairs += zip(predictions, reference_predictions, strict=True)
        progress(len(pairs), len(test.pictures))
    return pairs


def _readable(test: Source, pairs: Sequence[tuple[Prediction, Prediction | None]]) -> _Readable:
    """Keep the pictures that both models can read, so that both are compared on the same pictures."""
    rows, unreadable = [], []
    for picture, (prediction, reference_prediction) in zip(test.pictures, pairs, strict=True):
        error = prediction.error or (reference_prediction.error if reference_prediction else None)
        if error:
            unreadable.append((picture.name, error))
        else:
            rows.append((picture, prediction.probability, reference_prediction and reference_prediction.probability))
    if len(unreadable) > MOST_UNREADABLE * len(pairs):
        name, error = unreadable[0]
        raise RequestError(
            f"{len(unreadable)} of {len(pairs)} test pictures cannot be read, more than {MOST_UNREADABLE:.0%}: {name} ({error})"
        )
    has_reference = pairs[0][1] is not None
    return _Readable(
        pictures=[picture for picture, _, _ in rows],
        labels=np.array([picture.label for picture, _, _ in rows]),
        patients=np.array([picture.patient for picture, _, _ in rows]),
        probabilities=np.array([probability for _, probability, _ in rows], np.float64),
        reference_probabilities=np.array([other for _, _, other in rows], np.float64) if has_reference else None,
        unreadable=tuple(unreadable),
    )


def _files(
    readable: _Readable, test: Source, threshold: float, *, title: str, reference_name: str
) -> dict[str, str | bytes]:
    """Return the plots and the table of predictions, by path within the run's artifacts."""
    from pneumo.evidence.plots import picture_plots
    from pneumo.evidence.tables import predictions_csv

    names = [picture.name for picture in readable.pictures]
    compared = readable.reference_probabilities
    plots = picture_plots(
        title=title,
        labels=readable.labels,
        probabilities=readable.probabilities,
        names=names,
        pixels=_pixels_of_mistakes(readable, test, threshold),
        threshold=threshold,
        phantom=test.kind == "phantom",
        classes=test.classes,
        part="test",
        others={} if compared is None else {reference_name: compared},
    )
    files: dict[str, str | bytes] = {Artifacts.plot(name): png for name, png in plots.items()}
    patients = readable.patients.tolist()
    files[Artifacts.PREDICTIONS] = predictions_csv(
        names, patients, readable.labels, readable.probabilities, test.classes
    )
    return files


def _pixels_of_mistakes(readable: _Readable, test: Source, threshold: float) -> NDArray[np.uint8]:
    """Return pixels (n, side, side) of the misclassified pictures; the others are black, since no plot shows them."""
    from pneumo.data.decoding import decode

    pixels = np.zeros((len(readable.pictures), _SIDE, _SIDE), np.uint8)
    predicted_positive = readable.probabilities >= threshold
    for row in np.flatnonzero(predicted_positive != readable.labels).tolist():
        pixels[row] = decode(test.encoded(readable.pictures[row]), [_SIDE]).squares[0]
    return pixels
