"""Export a registered model as a file for another runtime."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pneumo.console.command import silence_native_output
from pneumo.predict.model import NOT_MEDICAL, LoadedModel

CHECK_PICTURES = 100
"""Number of phantoms on which the exported file is compared with the model."""


class ExportFormat(StrEnum):
    """The formats that a model can be exported to."""

    ONNX = "onnx"
    TFLITE = "tflite"


def export_model(model: LoadedModel, format_: ExportFormat, path: Path) -> None:
    """Write the model's networks and temperature as one file, and print what the file takes and returns.

    Raises `RequestError` as `pneumo.cnn.export.export` does.
    """
    import numpy as np

    from pneumo.cnn.export import Part, export, input_shapes
    from pneumo.cnn.load import load_network
    from pneumo.data.phantom import draw

    decision, positive = model.decision, model.decision.classes[1]
    parts = [
        Part(load_network(network), member.weight)
        for network, member in zip(model.served.networks, decision.members, strict=True)
    ]
    phantoms = {
        side: np.stack([draw(patient, 1, patient % 2, side, 0) for patient in range(CHECK_PICTURES)])
        for side in decision.image_sizes
    }
    with silence_native_output():
        difference = export(parts, decision.temperature, format_, path, phantoms)
    print(f"{path}: {format_}, {path.stat().st_size:,} bytes, model {model.description}")
    for name, (side, _, channels) in input_shapes(parts).items():
        print(f"input   {name}: float32 (n, {side}, {side}, {channels}): grey values 0 to 255, stretched to a square")
    print(f"output  float32 (n, 1): calibrated probability of {positive} (temperature {decision.temperature:.4g})")
    print(f"label   {positive} from probability {decision.threshold:.6g} on, else {decision.classes[0]}")
    print(f"check   largest difference from the model on {CHECK_PICTURES} phantoms: {difference:.1e} in probability")
    print(NOT_MEDICAL)
