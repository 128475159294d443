"""The code of a registered model, which takes pictures and returns a table of probabilities and labels.

MLflow stores this file with the model and runs it when the model is loaded (models from code). Nothing is pickled, and pneumo
need not be installed. The model's other artifacts are the trials' Keras models (`network`, and of an ensemble `network_1`,
`network_2` and so on) and the decoder (`decoding`, a copy of `pneumo.data.decoding`). `model_config` has the operating point
and the weights.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd

EXPECTED = "expected a picture file, such as a JPEG, PNG or DICOM, in base64, or an array of whole numbers"
"""The kinds of pictures that a served model takes."""

EXPECTED_HERE = (
    "expected a picture file (JPEG, PNG, DICOM or another) as bytes or base64, its path, or an array of whole numbers"
)
"""The kinds of pictures that a model takes in a process of its own."""

LOGIT_EPSILON = 1e-7
"""Probabilities are clipped this far from 0 and 1 before the temperature is applied."""

LONGEST_PATH = 4096
"""Number of letters from which on a text is not a path."""


class PictureModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    """A model that takes pictures of any sizes: a list, a frame with one column, or an array.

    The kinds of pictures are `EXPECTED_HERE`. The result is a frame with a row for each picture: `probability` (of the second
    class), `label`, `threshold`, and `error`, the reason if there is no probability. In `mlflow models serve`, a text is not
    taken for a path.
    """

    _skip_type_hint_validation = True
    """Keep MLflow from advising type hints for `predict`, with which it would refuse arrays of different sizes."""

    def load_context(self, context: Any) -> None:
        """Load the networks and the decoder."""
        config = context.model_config
        self.classes: list[str] = list(config["classes"])
        self.threshold, self.temperature = float(config["threshold"]), float(config["temperature"])
        self.members: list[dict[str, Any]] = list(config["members"])
        self.sizes: list[int] = list(dict.fromkeys(int(member["image_size"]) for member in self.members))
        self.decoding = _folder_as_module(Path(context.artifacts["decoding"]))
        names = ["network", *(f"network_{row}" for row in range(1, len(self.members)))]
        self.networks = [mlflow.tensorflow.load_model(context.artifacts[name]) for name in names]
        # Keras does not promise that several threads, such as the server's, can call a model at once.
        self.lock = threading.Lock()
        self.probability(
            [np.zeros((size, size), np.uint8) for size in self.sizes]
        )  # the first call traces the networks

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Return the frame of predictions for an input of any supported form."""
        serving = os.environ.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT") == "true"
        rows = []
        for squares in self.squares(pictures_in(model_input), paths=not serving):
            row: dict[str, Any] = {"probability": np.nan, "label": None, "threshold": self.threshold, "error": None}
            if isinstance(squares, str):
                row["error"] = squares
            else:
                row["probability"] = self.probability(squares)
                row["label"] = self.classes[int(row["probability"] >= self.threshold)]
            rows.append(row)
        table = pd.DataFrame(rows, columns=["probability", "label", "threshold", "error"])
        # JSON has no NaN.
        return table.astype(object).where(table.notna(), None) if serving else table

    def probability(self, squares: Sequence[np.ndarray[Any, Any]]) -> float:
        """Return the probability of one picture, given in each of the sizes.

        In a batch, the last digits would depend on the other pictures.
        """
        probability = 0.0
        for member, network in zip(self.members, self.networks, strict=True):
            square = squares[self.sizes.index(member["image_size"])]
            batch = np.repeat(square[None, :, :, None].astype(np.float32), member["channels"], axis=-1)
            with self.lock:
                probability += member["weight"] * float(network.predict_on_batch(batch)[0, 0])
        if self.temperature == 1.0:
            return probability
        clipped = min(max(probability, LOGIT_EPSILON), 1 - LOGIT_EPSILON)
        logit = np.log(clipped) - np.log1p(-clipped)
        return float(1 / (1 + np.exp(-logit / self.temperature)))

    def squares(self, pictures: list[Any], *, paths: bool) -> Iterator[Sequence[np.ndarray[Any, Any]] | str]:
        """Yield each picture decoded to each of the sizes, or the reason why it cannot be, in order.

        Decodes with a thread for each core.
        """
        if len(pictures) == 1:
            yield self.squares_of(pictures[0], paths=paths)
            return
        with ThreadPoolExecutor(usable_cores()) as pool:
            yield from pool.map(lambda picture: self.squares_of(picture, paths=paths), pictures)

    def squares_of(self, picture: Any, *, paths: bool) -> Sequence[np.ndarray[Any, Any]] | str:
        try:
            if isinstance(picture, np.ndarray | list):
                return [self.decoding.square_of(np.asarray(picture), size) for size in self.sizes]
            encoded, name = self.encoded(picture, paths=paths)
            return self.decoding.decode(encoded, self.sizes, name).squares  # type: ignore[no-any-return]
        except (self.decoding.UnreadableError, ImportError) as error:
            return " ".join(str(error).split())
        except MemoryError:
            return "not enough memory to decode it"
        except (OSError, ValueError) as error:  # a path that cannot be read, a ragged list
            return " ".join(f"cannot be read: {getattr(error, 'strerror', None) or error}".split())

    def encoded(self, picture: Any, *, paths: bool) -> tuple[bytes, str | None]:
        """Return the bytes of an encoded picture, and its file's name if it has one."""
        expected = EXPECTED_HERE if paths else EXPECTED
        if isinstance(picture, bytes | bytearray | memoryview):
            return bytes(picture), None
        if isinstance(picture, os.PathLike) and paths:
            return Path(picture).read_bytes(), os.fspath(picture)
        if not isinstance(picture, str):
            raise self.decoding.UnreadableError(f"not a picture but {type(picture).__name__}; {expected}")
        if paths and len(picture) < LONGEST_PATH and "\0" not in picture and Path(picture).is_file():
            return Path(picture).read_bytes(), picture
        text = picture.partition(",")[2] if picture.startswith("data:") else picture
        if not text.strip():
            raise self.decoding.UnreadableError(f"an empty text; {expected}")
        try:
            return base64.b64decode("".join(text.split()), validate=True), None
        except ValueError:
            problem = "neither base64 nor the path of a file" if paths else "not base64"
            raise self.decoding.UnreadableError(f"{problem}: {text[:40]!r}; {expected}") from None


def usable_cores() -> int:
    """Return how many cores this process may use. This file is alone, so it cannot ask `pneumo.spec.cores`."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pictures_in(model_input: Any) -> list[Any]:
    """Return the pictures of an input of any supported form.

    Raises:
        MlflowException: A table has several columns, none of them `picture`. A server answers with status 400.
    """
    if isinstance(model_input, dict):
        model_input = pd.DataFrame(model_input)
    if isinstance(model_input, pd.DataFrame):
        column = (
            "picture" if "picture" in model_input else model_input.columns[0] if model_input.shape[1] == 1 else None
        )
        if column is None:
            got = ", ".join(map(str, model_input.columns))
            raise mlflow.exceptions.MlflowException.invalid_parameter_value(f"expected one column, picture; got {got}")
        return list(model_input[column])
    if isinstance(model_input, str | bytes | bytearray | os.PathLike):
        return [model_input]
    if isinstance(model_input, np.ndarray) and model_input.dtype.kind in "OSU":
        return [str(text) if isinstance(text, np.str_) else text for text in model_input.ravel()]
    if isinstance(model_input, np.ndarray):
        shape = model_input.shape
        return [model_input] if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)) else list(model_input)
    return list(model_input)


def _folder_as_module(folder: Path) -> ModuleType:
    """Import the model's decoder under a name of its own, so that models in one process do not share a decoder."""
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
