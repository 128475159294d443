"""Package a trial's network, or several, as a model that takes pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.promote.context import PromotionContext
from pneumo.spec.errors import RequestError
from pneumo.spec.names import Tags

if TYPE_CHECKING:
    from pneumo.data.pictures import Picture, Source
    from pneumo.spec.run import RecordedRun
    from pneumo.tracking.served import Decision, Served

_EXAMPLE_POOL = 32
"""Number of training pictures of which the smallest becomes the model's example of a request."""


def package(context: PromotionContext, runs: Sequence[RecordedRun], decision: Decision, folder: Path) -> Served:
    """Write the networks of runs with their operating point as one model that takes pictures, and load it.

    Args:
        context: The promotion.
        runs: The runs that logged the networks, in the order of the decision's members.
        decision: The operating point and the weights.
        folder: A new folder for the model.

    Raises:
        RequestError: A run has no model, or its model was removed.
    """
    from pneumo.data import decoding
    from pneumo.tracking.served import load_folder, save_served

    networks = [_network(context, run) for run in runs]
    decoder = Path(decoding.__file__).parent
    save_served(networks, decoder, decision, base64.b64encode(_example(context.source)).decode(), folder)
    return load_folder(folder, runs[0].run_id)


def _network(context: PromotionContext, run: RecordedRun) -> Path:
    """Return the folder of the model that a run logged."""
    from pneumo.tracking.runs import model_of
    from pneumo.tracking.served import model_folder

    if removal_reason := run.tags.get(Tags.MODEL_REMOVED):
        raise RequestError(
            f"{run.run_id}: the model of trial {run.number} was removed: {removal_reason}; train the trial again, or give "
            f"another run"
        )
    model_id = model_of(context.store, run.run_id)
    if model_id is None:
        raise RequestError(f"{run.run_id}: trial {run.number} has no model, so there is nothing to promote")
    return model_folder(context.store, f"models:/{model_id}")


def read_encoded(source: Source, picture: Picture) -> bytes:
    """Return the bytes of a picture's file, or no bytes if they cannot be read.

    No decoder accepts an empty file, so the picture is counted with those that cannot be decoded.
    """
    from pneumo.data.decoding import UnreadableError

    try:
        return source.encoded(picture)
    except UnreadableError:
        return b""


def _example(source: Source) -> bytes:
    """Return a small training picture, encoded, as the model's example of a request."""
    encoded = (read_encoded(source, picture) for picture in source.pictures[:_EXAMPLE_POOL])
    return min(filter(None, encoded), key=len)
