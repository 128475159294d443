"""Predict pictures in batches, and print the rows of each batch as soon as it is predicted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.console.signals import Interruption
from pneumo.predict.model import NOT_MEDICAL, LoadedModel
from pneumo.predict.output import Format, PredictionRow, open_output
from pneumo.predict.progress import prediction_bar

if TYPE_CHECKING:
    from pneumo.predict.explain import OverlayWriter
    from pneumo.tracking.served import Prediction

BATCH = 32
"""Number of pictures to predict before their rows are printed. It bounds the memory."""


@dataclass(frozen=True)
class PredictionCounts:
    """How many pictures were predicted.

    Attributes:
        requested: All pictures of the request.
        predicted: Pictures that have a row; smaller than `requested` if the predictions stopped early.
        positive: Pictures with the label of the positive class.
        unreadable: Pictures whose row has an error.
        output_closed: Whether the reader of standard output closed it, as `head` does.
    """

    requested: int
    predicted: int = 0
    positive: int = 0
    unreadable: int = 0
    output_closed: bool = False

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C, SIGTERM or SIGHUP stopped the predictions."""
        return self.predicted < self.requested and not self.output_closed


def predict_pictures(
    pictures: Sequence[Path], model: LoadedModel, format_: Format, write_overlay: OverlayWriter | None
) -> PredictionCounts:
    """Predict each picture and print its row on standard output.

    A picture that cannot be read has an error in its row and a line on standard error; the others are predicted. After an
    interruption the batch that is under way is finished.

    Args:
        pictures: Paths of the pictures.
        model: The model that predicts.
        format_: Format of the rows.
        write_overlay: Called for each readable picture; None without `--explain`.
    """
    from pneumo.data.archive import printable
    from pneumo.predict.pictures import decoded_otherwise

    decision = model.decision
    names = [str(path) for path in pictures]
    predicted = positive = unreadable = 0
    output_closed = False
    try:
        with (
            Interruption() as interrupted,
            prediction_bar(len(pictures)) as bar,
            open_output(format_, names) as print_rows,
        ):
            while predicted < len(pictures) and not interrupted():
                batch = pictures[predicted : predicted + BATCH]
                predictions = model.served.predict(batch)
                rows = [_row(*pair, decision.threshold) for pair in zip(batch, predictions, strict=True)]
                print_rows(rows)
                for path, row in zip(batch, rows, strict=True):
                    if row.error:
                        bar.say(f"{printable(row.name)}: cannot be read: {row.error}")
                    elif write_overlay:
                        write_overlay(path, row)
                for path in decoded_otherwise(batch, model.served.decoding, decision.image_sizes):
                    bar.say(
                        f"{printable(str(path))}: predicted from other pixels than pneumo reads now; the model has the decoder "
                        f"of its promotion, and one that is promoted now has the present decoder"
                    )
                predicted += len(batch)
                unreadable += sum(row.error is not None for row in rows)
                positive += sum(row.label == decision.classes[1] for row in rows)
                bar.update(predicted)
    except BrokenPipeError:
        output_closed = True
    return PredictionCounts(len(pictures), predicted, positive, unreadable, output_closed)


def print_summary(counts: PredictionCounts, model: LoadedModel, overlays: Path | None) -> None:
    """Print on standard error what was predicted, and by which model."""
    decision = model.decision
    positive = decision.classes[1]
    summary = f"{counts.predicted:,} picture{'' if counts.predicted == 1 else 's'}, {counts.positive:,} {positive}"
    summary += f" at threshold {decision.threshold:.3g}"
    if counts.unreadable:
        summary += f", {counts.unreadable:,} unreadable"
    print(f"{summary}: model {model.description}", file=sys.stderr)
    if overlays:
        print(f"Grad-CAM overlays for {positive}: {overlays}", file=sys.stderr)
    print(NOT_MEDICAL, file=sys.stderr)
    if counts.interrupted:
        remaining = counts.requested - counts.predicted
        print(f"Interrupted: {remaining} of {counts.requested} pictures were not predicted.", file=sys.stderr)


def _row(path: Path, prediction: Prediction, threshold: float) -> PredictionRow:
    error = prediction.error and prediction.error.removeprefix("cannot be read: ")
    return PredictionRow(str(path), prediction.probability, prediction.label, threshold, error)
