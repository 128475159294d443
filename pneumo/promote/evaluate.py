"""Evaluate the chosen model and the reference on the test pictures: predictions, metrics, the gate, and files to record."""

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
        gain: By how much an ensemble's AUC and accuracy are better than its best member's; empty for a single network.
        counts: Number of pictures, of patients, and of pictures of each class.
        unreadable: Name and error of each picture that was left out.
        files: Plots and `predictions.csv`, by path within the run's artifacts.
    """

    metrics: dict[str, Interval]
    gate: Gate
    gain: dict[str, Interval]
    counts: dict[str, int]
    unreadable: tuple[tuple[str, str], ...]
    files: dict[str, str | bytes]


def evaluate(
    model: Served,
    reference_model: Served | None,
    best_member: Served | None,
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
        best_member: The best member of an ensemble; None for a single network.
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

    models = [each for each in (model, reference_model, best_member) if each]
    readable = _readable(test, _predict(models, test, progress))
    labels, patients, (ours, *others) = readable.labels, readable.patients, readable.probabilities
    theirs = others[0] if reference_model else None
    threshold = model.decision.threshold
    metrics = compute_figures(labels, ours, patients, threshold)
    gate = apply_gate(
        labels,
        patients,
        ours,
        theirs,
        our_threshold=threshold,
        their_threshold=reference_model.decision.threshold if reference_model else None,
        against=reference.description,
        figures=metrics,
        floors=promote_block.floors,
        significant=promote_block.gate == "significant",
    )
    gain = _gain(readable, threshold, others[-1], best_member.decision.threshold) if best_member else {}
    counts = {"num_rows": len(readable.pictures), "patients": len(set(patients.tolist()))}
    counts |= {name: int((labels == label).sum()) for label, name in enumerate(test.classes)}
    files = _files(readable, test, threshold, title=title, others={} if theirs is None else {reference.name: theirs})
    return Evaluation(metrics, gate, gain, counts, readable.unreadable, files)


@dataclass(frozen=True, eq=False)
class _Readable:
    """The pictures that all models can read, in arrays of shape (n,), and name and error of the others.

    `probabilities` has the shape (models, n).
    """

    pictures: Sequence[Picture]
    labels: NDArray[np.int64]
    patients: NDArray[np.str_]
    probabilities: NDArray[np.float64]
    unreadable: tuple[tuple[str, str], ...]


def _predict(
    models: Sequence[Served], test: Source, progress: Callable[[int, int], None]
) -> list[tuple[Prediction, ...]]:
    """Return the predictions of all models for every test picture. Each picture is read once."""
    predictions: list[tuple[Prediction, ...]] = []
    for start in range(0, len(test.pictures), BATCH):
        encoded = [read_encoded(test, picture) for picture in test.pictures[start : start + BATCH]]
        predictions += zip(*(model.predict(encoded) for model in models), strict=True)
        progress(len(predictions), len(test.pictures))
    return predictions


def _readable(test: Source, predictions: Sequence[tuple[Prediction, ...]]) -> _Readable:
    """Keep the pictures that all models can read, so that they are compared on the same pictures."""
    pictures, probabilities, unreadable = [], [], []
    for picture, of_models in zip(test.pictures, predictions, strict=True):
        error = next((prediction.error for prediction in of_models if prediction.error), None)
        if error:
            unreadable.append((picture.name, error))
        else:
            pictures.append(picture)
            probabilities.append([prediction.probability for prediction in of_models])
    if len(unreadable) > MOST_UNREADABLE * len(predictions):
        name, error = unreadable[0]
        raise RequestError(
            f"{len(unreadable)} of {len(predictions)} test pictures cannot be read, more than {MOST_UNREADABLE:.0%}: {name} "
            f"({error})"
        )
    return _Readable(
        pictures=pictures,
        labels=np.array([picture.label for picture in pictures]),
        patients=np.array([picture.patient for picture in pictures]),
        probabilities=np.array(probabilities, np.float64).T,
        unreadable=tuple(unreadable),
    )


def _gain(
    readable: _Readable, threshold: float, best: NDArray[np.float64], best_threshold: float
) -> dict[str, Interval]:
    """Return the AUC and the accuracy of the first model minus those of another, each at its own threshold."""
    from pneumo.evidence.intervals import accuracy_difference, auc_difference
    from pneumo.evidence.metrics import predict_labels

    labels, patients, ours = readable.labels, readable.patients, readable.probabilities[0]
    our_labels, best_labels = predict_labels(ours, threshold), predict_labels(best, best_threshold)
    return {
        "auc": auc_difference(labels, ours, best, patients),
        "accuracy": accuracy_difference(labels, our_labels, best_labels, patients),
    }


def _files(
    readable: _Readable, test: Source, threshold: float, *, title: str, others: dict[str, NDArray[np.float64]]
) -> dict[str, str | bytes]:
    """Return the plots and the table of predictions, by path within the run's artifacts."""
    from pneumo.evidence.plots import picture_plots
    from pneumo.evidence.tables import predictions_csv

    names = [picture.name for picture in readable.pictures]
    probabilities = readable.probabilities[0]
    plots = picture_plots(
        title=title,
        labels=readable.labels,
        probabilities=probabilities,
        names=names,
        pixels=_pixels_of_mistakes(readable, test, threshold),
        threshold=threshold,
        phantom=test.kind == "phantom",
        classes=test.classes,
        part="test",
        others=others,
    )
    files: dict[str, str | bytes] = {Artifacts.plot(name): png for name, png in plots.items()}
    patients = readable.patients.tolist()
    files[Artifacts.PREDICTIONS] = predictions_csv(names, patients, readable.labels, probabilities, test.classes)
    return files


def _pixels_of_mistakes(readable: _Readable, test: Source, threshold: float) -> NDArray[np.uint8]:
    """Return pixels (n, side, side) of the misclassified pictures; the others are black, since no plot shows them."""
    from pneumo.data.decoding import decode

    pixels = np.zeros((len(readable.pictures), _SIDE, _SIDE), np.uint8)
    predicted_positive = readable.probabilities[0] >= threshold
    for row in np.flatnonzero(predicted_positive != readable.labels).tolist():
        pixels[row] = decode(test.encoded(readable.pictures[row]), [_SIDE]).squares[0]
    return pixels
