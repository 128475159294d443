"""A registered model: pictures in, a table of probabilities and labels out.

MLflow keeps this file with the model and runs it when the model is loaded (models from code); nothing is pickled, and
nothing of the project has to be installed. Beside it lie the trial's own Keras model (`network`) and the decoder
(`decoding`, a copy of `pneumo.data.decoding`); `model_config` has the operating point.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd

WANTED = "wants a JPEG, PNG or DICOM in base64, or an array of uint8"
WANTED_HERE = "wants a JPEG, PNG or DICOM as bytes or base64, the path of one, or an array of uint8 or uint16"
LOGIT_EPSILON = 1e-7
LONGEST_PATH = 4096


class PictureModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    """Takes a list, a one-column frame or an array of pictures of any sizes, of the kinds that `WANTED_HERE` names.

    Gives a frame with a row for each: `probability` (of the second class), `label`, `threshold`, and `error`, which says
    why a picture has no probability. Within `mlflow models serve` a text is never taken for a path.
    """

    _skip_type_hint_validation = True
    """Else MLflow advises, at every load, to give `predict` a type, by which it would refuse arrays of several sizes."""

    def load_context(self, context: Any) -> None:
        config = context.model_config
        self.classes: list[str] = list(config["classes"])
        self.threshold, self.temperature = float(config["threshold"]), float(config["temperature"])
        self.size, self.channels = int(config["image_size"]), int(config["channels"])
        self.decoding = _folder_as_module(Path(context.artifacts["decoding"]))
        self.network = mlflow.tensorflow.load_model(context.artifacts["network"])
        # Keras does not promise that a model may be called from several threads, as the server's are.
        self.lock = threading.Lock()
        self.probability(np.zeros((self.size, self.size), np.uint8))  # the first call traces the network

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        serving = os.environ.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT") == "true"
        rows = []
        for square in self.squares(pictures_in(model_input), paths=not serving):
            row: dict[str, Any] = {"probability": np.nan, "label": None, "threshold": self.threshold, "error": None}
            if isinstance(square, str):
                row["error"] = square
            else:
                row["probability"] = self.probability(square)
                row["label"] = self.classes[int(row["probability"] >= self.threshold)]
            rows.append(row)
        table = pd.DataFrame(rows, columns=["probability", "label", "threshold", "error"])
        # JSON has no NaN.
        return table.astype(object).where(table.notna(), None) if serving else table

    def probability(self, square: np.ndarray[Any, Any]) -> float:
        """Of one picture at a time: within a batch the last digits depend on the other pictures."""
        batch = np.repeat(square[None, :, :, None].astype(np.float32), self.channels, axis=-1)
        with self.lock:
            probability = float(self.network.predict_on_batch(batch)[0, 0])
        if self.temperature == 1.0:
            return probability
        clipped = min(max(probability, LOGIT_EPSILON), 1 - LOGIT_EPSILON)
        logit = np.log(clipped) - np.log1p(-clipped)
        return float(1 / (1 + np.exp(-logit / self.temperature)))

    def squares(self, pictures: list[Any], *, paths: bool) -> Iterator[np.ndarray[Any, Any] | str]:
        """Each picture decoded, or why it cannot be, in order; decoded by as many threads as there are cores."""
        if len(pictures) == 1:
            yield self.square(pictures[0], paths=paths)
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield from pool.map(lambda picture: self.square(picture, paths=paths), pictures)

    def square(self, picture: Any, *, paths: bool) -> np.ndarray[Any, Any] | str:
        try:
            if isinstance(picture, np.ndarray | list):
                return self.decoding.square_of(np.asarray(picture), self.size)  # type: ignore[no-any-return]
            encoded, name = self.encoded(picture, paths=paths)
            return self.decoding.decode(encoded, [self.size], name).squares[0]  # type: ignore[no-any-return]
        except (self.decoding.UnreadableError, ImportError) as error:
            return " ".join(str(error).split())
        except MemoryError:
            return "not enough memory to decode it"
        except (OSError, ValueError) as error:  # a path that cannot be read, a ragged list
            return " ".join(f"cannot be read: {getattr(error, 'strerror', None) or error}".split())

    def encoded(self, picture: Any, *, paths: bool) -> tuple[bytes, str | None]:
        """The bytes of an encoded picture, and its file's name where it has one."""
        wanted = WANTED_HERE if paths else WANTED
        if isinstance(picture, bytes | bytearray | memoryview):
            return bytes(picture), None
        if isinstance(picture, os.PathLike) and paths:
            return Path(picture).read_bytes(), os.fspath(picture)
        if not isinstance(picture, str):
            raise self.decoding.UnreadableError(f"no picture but {type(picture).__name__}; {wanted}")
        if paths and len(picture) < LONGEST_PATH and "\0" not in picture and Path(picture).is_file():
            return Path(picture).read_bytes(), picture
        text = picture.partition(",")[2] if picture.startswith("data:") else picture
        if not text.strip():
            raise self.decoding.UnreadableError(f"an empty text; {wanted}")
        try:
            return base64.b64decode("".join(text.split()), validate=True), None
        except ValueError:
            said = "neither base64 nor the path of a file" if paths else "no base64"
            raise self.decoding.UnreadableError(f"{said}: {text[:40]!r}; {wanted}") from None


def pictures_in(model_input: Any) -> list[Any]:
    """The pictures of an input in whatever form it comes. Raises `MlflowException`, which a server answers with status 400,
    where a table has no one column for them."""
    if isinstance(model_input, dict):
        model_input = pd.DataFrame(model_input)
    if isinstance(model_input, pd.DataFrame):
        column = (
            "picture" if "picture" in model_input else model_input.columns[0] if model_input.shape[1] == 1 else None
        )
        if column is None:
            got = ", ".join(map(str, model_input.columns))
            raise mlflow.exceptions.MlflowException.invalid_parameter_value(f"wants one column, picture; got {got}")
        return list(model_input[column])
    if isinstance(model_input, str | bytes | bytearray | os.PathLike):
        return [model_input]
    if isinstance(model_input, np.ndarray) and model_input.dtype.kind in "OSU":
        return [str(one) if isinstance(one, np.str_) else one for one in model_input.ravel()]
    if isinstance(model_input, np.ndarray):
        shape = model_input.shape
        return [model_input] if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)) else list(model_input)
    return list(model_input)


def _folder_as_module(folder: Path) -> ModuleType:
    """The decoder of this very model: under a name of its own, so that two models of one process keep theirs apart."""
    name = f"decoding_{abs(hash(folder)):x}"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


mlflow.models.set_model(PictureModel())
