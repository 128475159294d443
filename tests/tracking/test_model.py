"""A logged model takes raw pictures in another process and returns the same probabilities."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from mlflow.utils import requirements_utils

from pneumo.tracking.outbox import open_outbox
from pneumo.tracking.runs import model_of
from pneumo.tracking.store import connect
from pneumo.tracking.study import start_trial
from pneumo.tracking.trial_log import TrialLog
from tests.support.new_stores import new_store
from tests.support.outboxes import sent
from tests.support.recorded import begun

keras = pytest.importorskip("keras")

SIDE = 16

LOAD = """
import sys, mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
numpy.save("probabilities.npy", model.predict(numpy.load("pictures.npy")))
"""


def test_a_model_says_the_same_in_a_new_process(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, outbox = new_store(project), open_outbox(project / "outbox")
    key = start_trial(begun(store, "model", outbox), 0, {"layers": 1}, 0)
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.layers.Input((SIDE, SIDE, 1), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation="sigmoid", dtype="float32"),
        ]
    )
    pictures = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 1), dtype=np.uint8)

    log = TrialLog(outbox, key)
    capfd.readouterr()
    monkeypatch.setattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    monkeypatch.setattr(
        "mlflow.utils.requirements_utils.importlib_metadata.packages_distributions",
        lambda: pytest.fail("reads the file lists of all packages"),
    )
    size = log.model(network, pictures[:1])
    log.finish({"best_val_auc": 0.9, "model_bytes": size}, of_model=True)
    run_id = sent(outbox, store, key)
    model_id = model_of(store, run_id)
    assert model_id is not None
    assert capfd.readouterr() == ("", "")

    np.save("pictures.npy", pictures)
    subprocess.run([sys.executable, "-c", LOAD, f"models:/{model_id}"], check=True, capture_output=True)
    np.testing.assert_allclose(np.load("probabilities.npy"), network.predict(pictures, verbose=0), atol=1e-6)
    _check_record(run_id, model_id, size)


def _check_record(run_id: str, model_id: str, size: int) -> None:
    client = connect().client
    run = client.get_run(run_id)
    assert run.outputs is not None
    assert [output.model_id for output in run.outputs.model_outputs] == [model_id]
    model = client.get_logged_model(model_id)
    assert (model.name, model.source_run_id, str(model.status)) == ("model-trial-0", run_id, "READY")
    assert {metric.key: metric.value for metric in model.metrics or []}["best_val_auc"] == 0.9
    assert model.params["layers"] == "1"
    assert client.search_registered_models() == []

    folder = Path(model.artifact_location)
    requirements = (folder / "requirements.txt").read_text().split()
    assert {f"{name}=={version(name)}" for name in ("tensorflow", "keras", "numpy", "mlflow")} == set(requirements)
    example = json.loads((folder / "serving_input_example.json").read_text())
    assert np.shape(example["inputs"]) == (1, SIDE, SIDE, 1)
    assert size >= (folder / "data" / "model.keras").stat().st_size
