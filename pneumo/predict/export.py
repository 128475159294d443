"""Export a registered model as a file for another runtime."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pneumo.console.command import silence_native_output
from pneumo.predict.model import NOT_MEDICAL, LoadedModel
from pneumo.spec.errors import RequestError

CHECK_PICTURES = 100
"""Number of phantoms on which the exported file is compared with the model."""


class ExportFormat(StrEnum):
    """The formats that a model can be exported to."""

    ONNX = "onnx"
    TFLITE = "tflite"


def export_model(model: LoadedModel, format_: ExportFormat, path: Path) -> None:
    """Write the model's network and temperature as one file, and print what the file takes and returns.

    Raises `RequestError` as `pneumo.cnn.export.export` does.
    """
    import numpy as np

    from pneumo.cnn.export import export
    from pneumo.cnn.load import load_network
    from pneumo.data.phantom import draw

    decision = model.decision
    if len(decision.members) > 1:
        raise RequestError(
            f"{model.description}: an ensemble of {len(decision.members)} networks cannot be exported as one file; give the "
            f"version of a single network"
        )
    (member,), (network_file,) = decision.members, model.served.networks
    network = load_network(network_file)
    side, positive = member.image_size, decision.classes[1]
    phantoms = np.stack([draw(patient, 1, patient % 2, side, 0) for patient in range(CHECK_PICTURES)])
    with silence_native_output():
        difference = export(network, decision.temperature, format_, path, phantoms)
    print(f"{path}: {format_}, {path.stat().st_size:,} bytes, model {model.description}")
    print(
        f"input   float32 (n, {side}, {side}, {member.channels}): grey values 0 to 255, pictures stretched to a square"
    )
    print(f"output  float32 (n, 1): calibrated probability of {positive} (temperature {decision.temperature:.4g})")
    print(f"label   {positive} from probability {decision.threshold:.6g} on, else {decision.classes[0]}")
    print(f"check   largest difference from the model on {CHECK_PICTURES} phantoms: {difference:.1e} in probability")
    print(NOT_MEDICAL)
