"""A study over all hyperparameters: killed, resumed, replayed, promoted as an ensemble, served over HTTP, and exported."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import requests
from mlflow.entities import Run

from pneumo.data.decoding import decode
from pneumo.spec.hyperparameters import Hyperparameters
from tests.support.killed import curves, drilled_command, end, start, wait_for_checkpoint
from tests.support.mlflow_server import serve_model
from tests.support.pictures import encoded
from tests.support.program import EQUAL, called, client, runs, search, write

pytestmark = pytest.mark.slow

Promoted = tuple[Path, list[dict[str, Any]]]
"""A folder, and what `predict --format json` answered there."""

PLAIN = {
    "layers": 2, "filters": 4, "filter_growth": 1.0, "kernel_size": 5, "pooling": "max", "batch_norm": False,
    "activation": "relu", "head": "flatten", "dense_units": 8, "dropout": 0.0, "image_size": 24, "channels": 3,
    "normalization": "rescale", "shear": 0.2, "zoom": 0.2, "horizontal_flip": True, "rotation": 0.0, "translation": 0.0,
    "brightness": 0.0, "contrast": 0.0, "optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.0,
    "label_smoothing": 0.0, "class_weight": "none", "batch_size": 8,
    "convolutions": 1, "padding": "valid", "separable": False, "residual": False, "block_dropout": 0.0, "dense_layers": 1,
    "crop": 0.0, "gamma": 0.0, "blur": 0.0, "noise": 0.0, "erase": 0.0, "frame_exchange": 0.0, "mixup": 0.0,
    "schedule": "plateau", "warmup": 0.0, "ema": 0.0, "early_stopping": 0, "flip_average": False,
}  # fmt: skip
"""One value of each hyperparameter."""

RICH = {
    "layers": 1, "filters": 2, "filter_growth": 2.0, "kernel_size": 3, "pooling": "average", "batch_norm": True,
    "activation": "elu", "head": "average", "dense_units": 4, "dropout": 0.2, "image_size": 32, "channels": 1,
    "normalization": "standardize", "shear": 0.0, "zoom": 0.1, "horizontal_flip": False, "rotation": 5.0,
    "translation": 0.05, "brightness": 0.1, "contrast": 0.1, "optimizer": "adamw", "learning_rate": 0.005,
    "weight_decay": 0.001, "label_smoothing": 0.1, "class_weight": "balanced", "batch_size": 12,
    "convolutions": 2, "padding": "same", "separable": True, "residual": True, "block_dropout": 0.1, "dense_layers": 2,
    "crop": 0.1, "gamma": 0.2, "blur": 0.5, "noise": 0.03, "erase": 0.3, "frame_exchange": 0.5, "mixup": 0.2,
    "schedule": "triangular", "warmup": 0.2, "ema": 0.9, "early_stopping": 3, "flip_average": True,
}  # fmt: skip
"""Another value of each."""

SAME_IN_ALL = {"epochs": 8, "precision": "float32", "momentum": 0.9}
"""The number of epochs, what the machine decides, and what only `sgd` and `rmsprop` have."""

SERVED = 3
"""Pictures that are served and exported."""


def artifact(folder: Path, run: Run, name: str) -> Path:
    return Path(client(folder).download_artifacts(run.info.run_id, name))


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folders of an undisturbed study and of the same study, whose driver was killed in its second trial."""
    space = {name: [PLAIN[name], RICH[name]] for name in PLAIN} | SAME_IN_ALL
    options = {
        "algorithm": "random",
        "baseline": False,
        "try": [PLAIN, RICH],
        "trials": 3,
        "objective": "parameters",  # the smallest network is the best one, however well it learns
        "confirm": {"top": 1, "seeds": 2},
    }
    data = {"source": "phantom", "phantom": {"patients": 60, "size": 64}, "validation": 0.3}
    undisturbed, disturbed = (tmp_path_factory.mktemp(name) for name in ("undisturbed", "disturbed"))
    for folder in (undisturbed, disturbed):
        experiment = write(folder, data=data, hyperparameters=space, search=options)
    program = start(drilled_command(experiment), disturbed)
    wait_for_checkpoint(program, disturbed / "mlruns/checkpoints/small/trial-0001.npz", 2)
    end(program, "group", signal.SIGKILL)
    for folder in (undisturbed, disturbed):
        done = search(experiment.name, folder=folder)
        assert done.returncode == 0, done.stderr
    return undisturbed, disturbed


@pytest.fixture(scope="module")
def promoted(studied: tuple[Path, Path]) -> Promoted:
    """Return the folder of a promoted ensemble, with pictures in it, and its `predict --format json`."""
    folder = studied[1]
    options = ("--set", "promote.ensemble=seeds", "--force", "a test")
    done = called("promote", "small", *options, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    for n in range(SERVED):
        (folder / f"{n}.jpeg").write_bytes(encoded(n, (90, 70)))
    names = [f"{n}.jpeg" for n in range(SERVED)]
    predicted = called("predict", *names, "--model", "models:/small@champion", "--format", "json", folder=folder)
    assert predicted.returncode == 0, predicted.stderr
    return folder, json.loads(predicted.stdout)


def test_every_hyperparameter_takes_two_values() -> None:
    assert PLAIN.keys() == RICH.keys()
    assert PLAIN.keys() | SAME_IN_ALL.keys() == Hyperparameters.model_fields.keys()
    assert [name for name in PLAIN if PLAIN[name] == RICH[name]] == []


def test_the_killed_study_equals_the_undisturbed_one(studied: tuple[Path, Path]) -> None:
    (_, expected), (_, recorded) = (runs(folder, "small") for folder in studied)
    assert [run.info.status for run in recorded] == ["FINISHED", "KILLED", "FINISHED", "FINISHED"]
    finished = [run for run in recorded if run.info.status == "FINISHED"]
    for here, there in zip(finished, expected, strict=True):
        assert curves(studied[1], here) == curves(studied[0], there)
        for name in ("predictions.csv", "stress.csv"):
            texts = [
                artifact(folder, run, name).read_text() for folder, run in zip(studied, (there, here), strict=True)
            ]
            assert texts[0] == texts[1]


def test_every_trial_is_replayed_to_the_last_bit(studied: tuple[Path, Path]) -> None:
    folder = studied[1]
    for run in runs(folder, "small")[1]:
        if run.info.status == "FINISHED":
            replayed = called("replay", run.info.run_id, folder=folder)
            assert replayed.returncode == 0, replayed.stdout + replayed.stderr
            assert EQUAL in replayed.stdout


def test_the_ensemble_is_of_the_second_network(promoted: Promoted) -> None:
    """Its members have what is hard to export: a mean over mirrored pictures, averaged weights, separable convolutions."""
    folder = promoted[0]
    version = client(folder).get_model_version_by_alias("small", "champion")
    members = [text.split() for text in version.tags["pneumo.members"].split(", ")]
    assert [float(weight) for _, weight in members] == [0.5, 0.5]
    for run_id, _ in members:
        parameters = client(folder).get_run(run_id).data.params
        assert {name: parameters[name] for name in ("flip_average", "separable", "residual", "ema")} == {
            "flip_average": "true",
            "separable": "true",
            "residual": "true",
            "ema": "0.9",
        }


def test_the_ensemble_answers_over_http_as_offline(promoted: Promoted) -> None:
    folder, offline = promoted
    pictures = [base64.b64encode((folder / f"{n}.jpeg").read_bytes()).decode() for n in range(SERVED)]
    with serve_model("models:/small@champion", f"sqlite:///{folder}/mlflow.db", folder) as address:
        answer = requests.post(f"{address}/invocations", json={"inputs": pictures}, timeout=60)
    assert probabilities(answer.json()["predictions"]) == probabilities(offline)


def test_the_ensemble_is_exported_to_onnx(promoted: Promoted) -> None:
    folder, offline = promoted
    exported = called("predict", "--model", "models:/small@champion", "--export", "onnx", "small.onnx", folder=folder)
    assert exported.returncode == 0, exported.stderr
    session = onnxruntime.InferenceSession(str(folder / "small.onnx"), providers=["CPUExecutionProvider"])
    inputs = {}
    for needed in session.get_inputs():
        _, side, _, channels = needed.shape
        squares = [decode((folder / f"{n}.jpeg").read_bytes(), (side,), "").squares[0] for n in range(SERVED)]
        grey = np.stack(squares).astype(np.float32)[..., None]
        inputs[needed.name] = np.repeat(grey, channels, axis=-1)
    (answers,) = session.run(None, inputs)
    np.testing.assert_allclose(np.asarray(answers).ravel(), probabilities(offline), rtol=0, atol=1e-4)


def probabilities(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the probabilities that `predict --format json` or a server gave."""
    return [row["probability"] for row in rows]
