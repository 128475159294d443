"""Write a Grad-CAM overlay for each picture."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from pneumo.predict.model import NOT_MEDICAL, LoadedModel
from pneumo.predict.output import PredictionRow
from pneumo.spec.errors import RequestError

OVERLAY_SIDE = 512
"""Longer side of an overlay in pixels."""

OverlayWriter = Callable[[Path, PredictionRow], None]
"""Writes the overlay of one picture with its prediction."""


def make_overlay_folder(folder: Path) -> None:
    """Create the folder for the overlays. Raises `RequestError` if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _cannot_write(folder, error) from None


def overlay_writer(model: LoadedModel, folder: Path) -> OverlayWriter:
    """Return a function that writes the Grad-CAM overlay of a picture as a PNG into the folder.

    The function raises `RequestError` if the picture can no longer be read or the PNG cannot be written.
    """
    from pneumo.cnn.explain import grad_cam
    from pneumo.cnn.load import load_network
    from pneumo.data.cache import replacing
    from pneumo.evidence.overlay import mean_heat, render_explanation, restore_aspect_ratio

    decision, decoding = model.decision, model.served.decoding
    heat_maps = [grad_cam(load_network(network)) for network in model.served.networks]
    sizes = decision.image_sizes

    def write_overlay(path: Path, row: PredictionRow) -> None:
        assert row.probability is not None
        assert row.label is not None
        try:
            # The model's own decoder may be an earlier one, and the heat map is about the pixels that it predicted.
            decoded = decoding.decode(path.read_bytes(), [*sizes, OVERLAY_SIDE], str(path))
        except (decoding.UnreadableError, OSError) as error:
            raise RequestError(f"{path}: changed after its prediction; no overlay can be written: {error}") from None
        png = render_explanation(
            restore_aspect_ratio(decoded.squares[-1], decoded.width, decoded.height),
            mean_heat(
                [
                    heat_map(decoded.squares[sizes.index(member.image_size)])
                    for heat_map, member in zip(heat_maps, decision.members, strict=True)
                ],
                [member.weight for member in decision.members],
            ),
            name=path.name,
            probability=row.probability,
            label=row.label,
            threshold=decision.threshold,
            classes=decision.classes,
            note=NOT_MEDICAL + (" TrainingResult on phantoms." if decision.phantom else ""),
        )
        try:
            with replacing(folder / _file_name(path)) as file:
                file.write(png)
        except OSError as error:
            raise _cannot_write(folder, error) from None

    return write_overlay


def _file_name(path: Path) -> str:
    """Return the name of a picture's overlay: safe characters only, and a hash of the path to tell equal names apart."""
    stem = re.sub(r"[^\w.-]", "_", path.stem, flags=re.ASCII).lstrip(".")[:100] or "picture"
    return f"{stem}-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]}.png"


def _cannot_write(folder: Path, error: OSError) -> RequestError:
    return RequestError(f"--explain {folder}: cannot be written: {error.strerror}")
