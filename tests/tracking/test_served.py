"""A registered model takes pictures of all kinds, gives a picture the same probability in any batch, and names errors."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pneumo.data.decoding import decode
from pneumo.evidence.scaling import scale_probabilities
from pneumo.spec.errors import RequestError
from pneumo.tracking.served import Decision, Member, load_served
from tests.support.dicom_files import dicom, ramp
from tests.support.pictures import encoded
from tests.support.served import DECODER, SIDE, Small, register

LOAD = """
import sys, json, mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/small@champion")
json.dump(model.predict(sys.argv[2:]).to_dict("records"), open("predictions.json", "w"))
assert "pneumo" not in sys.modules
"""


def raw(small: Small, picture: bytes) -> float:
    """Return the probability that the trial's own model gives, on the path that a search takes."""
    import keras

    square = decode(picture, [SIDE]).squares[0]
    batch = np.repeat(square[None, :, :, None].astype(np.float32), 3, axis=-1)
    return float(keras.saving.load_model(small.network / "data" / "model.keras").predict_on_batch(batch)[0, 0])


def test_every_form_of_a_picture_gets_the_same_answer(small: Small, tmp_path: Path) -> None:
    jpeg, png = encoded(3, kind="JPEG"), encoded(3, kind="PNG")
    path = tmp_path / "a picture é.jpeg"
    path.write_bytes(jpeg)
    in_base64 = base64.b64encode(jpeg).decode()
    forms: list[Any] = [jpeg, bytearray(jpeg), in_base64, f"data:image/jpeg;base64,{in_base64}", path, str(path)]
    predictions = small.served.predict(forms)
    assert {each.probability for each in predictions} == {raw(small, jpeg)}
    assert {each.error for each in predictions} == {None}
    pixels = np.asarray(Image.open(io.BytesIO(png)))
    arrays: list[Any] = [png, pixels, np.stack([pixels] * 3, axis=-1), pixels.astype(np.uint16) * 257]
    arrays += [pixels[..., None], pixels.astype(np.int64), pixels.tolist()]
    assert {each.probability for each in small.served.predict(arrays)} == {raw(small, png)}


def test_every_form_of_an_input_is_taken(small: Small) -> None:
    predict = small.served._pyfunc.predict
    pictures = [encoded(seed) for seed in range(3)]
    expected = predict(pictures)
    assert list(expected.columns) == ["probability", "label", "threshold", "error"]
    texts = [base64.b64encode(picture).decode() for picture in pictures]
    for form in (
        tuple(pictures),
        pd.Series(pictures),
        pd.DataFrame({"picture": texts}),
        pd.DataFrame({"any": pictures}),
    ):
        pd.testing.assert_frame_equal(predict(form), expected)
    for form in ({"picture": texts}, np.array(texts), np.array([texts]).T):
        pd.testing.assert_frame_equal(predict(form), expected)
    pd.testing.assert_frame_equal(predict(pictures[0]), expected[:1])
    batch = np.random.default_rng(0).integers(0, 256, (2, 40, 50), np.uint8)
    pd.testing.assert_frame_equal(predict(batch), predict(list(batch)))
    assert len(predict(batch[0])) == len(predict(np.zeros((40, 50, 3), np.uint8))) == 1
    assert len(predict(np.zeros((5, 40, 50, 3), np.uint8))) == 5
    assert predict([]).empty
    with pytest.raises(Exception, match="expected one column, picture; got a, b"):
        predict(pd.DataFrame({"a": texts, "b": texts}))


def test_dicom_is_taken(small: Small) -> None:
    predictions = small.served.predict([dicom(ramp(12), 12), dicom(4095 - ramp(12), 12, "MONOCHROME1")])
    assert predictions[0] == predictions[1]
    assert predictions[0].error is None


def test_the_answer_does_not_depend_on_the_pictures_beside_it(small: Small) -> None:
    pictures = [encoded(seed, size=(30 + 7 * seed, 90 - 3 * seed)) for seed in range(20)]
    together = small.served.predict(pictures)
    assert [small.served.predict([picture])[0] for picture in pictures] == together
    assert small.served.predict(pictures[::-1]) == together[::-1]


def test_what_cannot_be_read_is_said_of_that_picture_alone(small: Small, tmp_path: Path) -> None:
    whole, lying = encoded(5), tmp_path / "lying.png"
    lying.write_bytes(whole)
    bad: dict[str, Any] = {
        "truncated": whole[: len(whole) // 2],
        "neither a JPEG nor a PNG, TIFF, BMP, GIF, WebP or DICOM": b"just some text",
        "neither base64 nor the path of a file: '/no/such/file.jpeg'": "/no/such/file.jpeg",
        "an empty text": "",
        "not a picture but NoneType": None,
        "an array of float64": np.zeros((4, 4)),
        "an array of shape (4,)": np.zeros(4, np.uint8),
        "greys from 70000 to 70000; expected 0 to 65535": np.full((4, 4), 70_000),
        "greys from -1 to 5": np.array([[-1, 5]]),
        "is a JPEG, though its name says PNG": lying,
        "cannot be read": tmp_path,
        "inhomogeneous": [[1, 2], [3]],
    }
    predictions = small.served.predict([whole, *bad.values(), whole])
    assert predictions[0] == predictions[-1]
    assert predictions[0].error is None
    for (words, _), prediction in zip(bad.items(), predictions[1:-1], strict=True):
        assert (prediction.probability, prediction.label) == (None, None)
        assert prediction.error is not None
        assert words.lower() in prediction.error.lower()
        assert "\n" not in prediction.error


def test_within_a_server_a_text_is_no_path_and_the_table_has_no_nan(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret.jpeg"
    path.write_bytes(encoded())
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    (row,) = small.served._pyfunc.predict([str(path)]).to_dict("records")
    assert row["probability"] is None
    assert row["error"].startswith("not base64")
    json.dumps(row, allow_nan=False)


def test_it_is_loaded_where_this_project_is_not_imported(small: Small, tmp_path: Path) -> None:
    paths = []
    for seed in range(4):
        paths.append(tmp_path / f"{seed}.jpeg")
        paths[-1].write_bytes(encoded(seed))
    subprocess.run([sys.executable, "-c", LOAD, small.store.uri, *map(str, paths)], check=True, cwd=tmp_path)
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    expected = small.served.predict(paths)
    assert [row["probability"] for row in predictions] == [each.probability for each in expected]
    assert [row["label"] for row in predictions] == [each.label for each in expected]


def test_the_network_is_the_trials_own_file(small: Small) -> None:
    ours, theirs = (
        zipfile.ZipFile(path) for path in (small.served.networks[0], small.network / "data" / "model.keras")
    )
    assert {name: ours.read(name) for name in ours.namelist()} == {
        name: theirs.read(name) for name in theirs.namelist()
    }


def test_it_carries_its_decoder_its_requirements_and_an_example(small: Small) -> None:
    folder = small.served.networks[0].parents[3]
    carried = {path.name: path.read_bytes() for path in (folder / "artifacts" / "decoding").iterdir() if path.is_file()}
    assert carried == {path.name: path.read_bytes() for path in DECODER.glob("*.py")}
    requirements = (folder / "requirements.txt").read_text().split()
    packages = ("mlflow", "tensorflow", "keras", "numpy", "pandas", "pillow", "pydicom", "pylibjpeg")
    assert {f"{package}=={version(package)}" for package in packages} <= set(requirements)
    example = json.loads((folder / "serving_input_example.json").read_text())
    assert small.served._pyfunc.predict(example["inputs"]).error.tolist() == [None]
    assert not list(folder.rglob("*.pkl"))


def test_temperature_and_threshold_are_those_of_the_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = [encoded(seed) for seed in range(12)]
    plain = register(tmp_path, Decision(("a", "b"), 0.5, 1.0, (Member("", 1.0, SIDE, 1),)), "plain", seed=4)
    probabilities = np.array([each.probability for each in plain.served.predict(pictures)])
    scaled = scale_probabilities(probabilities, 2.5)
    threshold = float(np.median(scaled))
    other = register(tmp_path, Decision(("a", "b"), threshold, 2.5, (Member("", 1.0, SIDE, 1),)), "other", seed=4)
    predictions = other.served.predict(pictures)
    np.testing.assert_allclose([each.probability or 0 for each in predictions], scaled, rtol=1e-12)
    assert [each.label for each in predictions] == [
        "ab"[int((each.probability or 0) >= threshold)] for each in predictions
    ]
    assert {each.label for each in predictions} == {"a", "b"}
    # Both models are in one process, and each keeps its own decision.
    assert [each.probability for each in plain.served.predict(pictures)] == probabilities.tolist()


def test_another_kind_of_model_is_refused(small: Small, tmp_path: Path) -> None:
    run = small.store.client.get_run(small.trial_run)
    assert run.outputs is not None
    trained = f"models:/{run.outputs.model_outputs[0].model_id}"
    for uri, predictions in {
        trained: "takes no pictures",
        "models:/nobody@champion": "models:/nobody@champion",
        "models:/small/99": "models:/small/99",
        "models:/small@nobody": "models:/small@nobody",
        str(tmp_path): "neither a registered model",
    }.items():
        with pytest.raises(RequestError, match=predictions):
            load_served(small.store, uri)
