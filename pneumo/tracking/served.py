"""Save, log and load a registered model that takes pictures. The model's own code is `served_model.py`."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow.artifacts
import mlflow.pyfunc
import numpy as np
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from pneumo.spec.errors import RequestError
from pneumo.tracking.failures import failure_reason, is_final
from pneumo.tracking.model_packages import packages_are_named
from pneumo.tracking.models import model_name, upload
from pneumo.tracking.store import Store

PACKAGES = ("tensorflow", "keras", "numpy", "pandas", "pillow")
"""Packages that a loaded model needs besides MLflow, pinned to the versions that it was judged with."""

DICOM_PACKAGES = ("pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg")
"""Packages for DICOM, pinned too if they are installed. Without them, the model takes no DICOM."""

_CODE = Path(__file__).with_name("served_model.py")
_NETWORK = "network"
_MODEL_TYPE = "pneumo"


@dataclass(frozen=True)
class Member:
    """A network of a model that takes pictures.

    Attributes:
        run_id: The run that logged it.
        weight: Its weight in the mean of the probabilities. The weights of a model sum to 1.
        image_size: Side of its input, in pixels.
        channels: Channels of its input.
    """

    run_id: str
    weight: float
    image_size: int
    channels: int


@dataclass(frozen=True)
class Decision:
    """How the output of a network, or of several, becomes a label.

    Attributes:
        classes: Names of the labels 0 and 1.
        threshold: Least probability of the second class.
        temperature: Temperature by which the weighted mean of the probabilities is scaled.
        members: The networks. A single one has the weight 1.
        phantom: Whether the networks were trained on generated pictures.
    """

    classes: tuple[str, str]
    threshold: float
    temperature: float
    members: tuple[Member, ...]
    phantom: bool = False

    @property
    def image_sizes(self) -> list[int]:
        """Sides of the networks' inputs in pixels, each once."""
        return list(dict.fromkeys(member.image_size for member in self.members))


@dataclass(frozen=True)
class Prediction:
    """The prediction for a picture: the probability of the second class and the label, or the error."""

    probability: float | None
    label: str | None
    error: str | None


@dataclass(frozen=True)
class Served:
    """A loaded model that takes pictures.

    Attributes:
        uri: The address that it was loaded from.
        decision: How its output becomes a label.
        networks: Files of its Keras models, in the order of the decision's members.
    """

    uri: str
    decision: Decision
    networks: tuple[Path, ...]
    _pyfunc: Any = field(repr=False)

    @property
    def decoding(self) -> ModuleType:
        """The model's own copy of `pneumo.data.decoding`, as it was when the model was promoted."""
        module: ModuleType = self._pyfunc.unwrap_python_model().decoding
        return module

    def predict(self, pictures: Sequence[bytes | str | Path | np.ndarray[Any, Any]]) -> list[Prediction]:
        """Return the prediction for each picture: encoded bytes, a path, or an array of whole numbers."""
        if not pictures:
            return []
        table = self._pyfunc.predict(list(pictures))
        return [
            Prediction(None if row.error else float(row.probability), row.label or None, row.error or None)
            for row in table.fillna({"error": "", "label": ""}).itertuples()
        ]


def save_served(networks: Sequence[Path], decoding: Path, decision: Decision, example: str, to: Path) -> Path:
    """Write a model that takes pictures into a new folder, and return the folder.

    Args:
        networks: Folders of trials' MLflow models, which are copied, in the order of the decision's members.
        decoding: Folder of the decoder, which is copied.
        decision: How the networks' output becomes a label.
        example: A picture in base64, stored as the example of a request.
        to: The new folder.
    """
    with tempfile.TemporaryDirectory() as folder, packages_are_named():
        decoder = Path(folder, "decoding")
        shutil.copytree(decoding, decoder, ignore=shutil.ignore_patterns("__pycache__"))
        # MLflow names its copy by the last part of the path. The pickle beside a network is never loaded.
        artifacts = {"decoding": str(decoder)}
        for name, (network, _) in zip(
            _network_names(decision), zip(networks, decision.members, strict=True), strict=True
        ):
            artifacts[name] = str(Path(folder, name))
            shutil.copytree(network, artifacts[name], ignore=shutil.ignore_patterns("*.cloudpickle"))
        mlflow.pyfunc.save_model(
            str(to),
            python_model=str(_CODE),
            artifacts=artifacts,
            model_config=asdict(decision)
            | {"classes": list(decision.classes), "members": [asdict(member) for member in decision.members]},
            pip_requirements=_requirements(),
            # There is no schema of the input: it would refuse arrays of different sizes, or a path beside bytes.
            signature=ModelSignature(
                outputs=Schema(
                    [
                        ColSpec(DataType.double, "probability"),
                        ColSpec(DataType.string, "label"),
                        ColSpec(DataType.double, "threshold"),
                        ColSpec(DataType.string, "error", required=False),
                    ]
                )
            ),
            input_example=[example],
        )
    return to


def log_served(
    store: Store, run_id: str, folder: Path, tags: Mapping[str, str], params: Mapping[str, str] | None = None
) -> str:
    """Log what `save_served` wrote as the model of a run, unless the run has it already. Return the model's id.

    Args:
        store: MLflow.
        run_id: The run.
        folder: The folder that `save_served` wrote.
        tags: Tags of the model.
        params: Parameters of the model.
    """
    client = store.client
    run = client.get_run(run_id)
    experiment, outputs = run.info.experiment_id, run.outputs.model_outputs if run.outputs else []
    logged = None
    for earlier in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        if earlier.model_type != _MODEL_TYPE:
            continue
        if earlier.status == LoggedModelStatus.READY:
            logged = earlier
        else:
            client.delete_logged_model(earlier.model_id)  # A process died while it uploaded this one.
    if logged is None:
        logged = client.create_logged_model(
            experiment,
            name=model_name(run),
            source_run_id=run_id,
            tags=dict(tags),
            params=dict(params or {}),
            model_type=_MODEL_TYPE,
        )
        upload(client, logged, run_id, folder)
    if logged.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def load_folder(folder: Path, uri: str) -> Served:
    """Load what `save_served` wrote. Raises `RequestError` for another kind of model, and for a damaged one."""
    try:
        pyfunc = Model.load(str(folder)).flavors["python_function"]
        decision = _decision(pyfunc["config"])
        networks = [folder / pyfunc["artifacts"][name]["path"] for name in _network_names(decision)]
    except (KeyError, TypeError, MlflowException):
        raise RequestError(
            f"{uri}: takes no pictures; give a promoted model, such as models:/NAME@champion or models:/NAME/VERSION"
        ) from None
    try:
        with packages_are_named():
            model = mlflow.pyfunc.load_model(str(folder))
    # What Keras and zipfile raise for a damaged file depends on where it is damaged.
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, MlflowException) as error:
        raise RequestError(f"{uri}: cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    return Served(uri, decision, tuple(network / "data" / "model.keras" for network in networks), model)


def _network_names(decision: Decision) -> list[str]:
    """Return the names of the networks among the model's artifacts."""
    return [_NETWORK if row == 0 else f"{_NETWORK}_{row}" for row in range(len(decision.members))]


def _decision(config: Mapping[str, Any]) -> Decision:
    """Return the decision that a model stores. Earlier versions knew a single network."""
    fields = {**config}
    if "members" not in fields:
        fields["members"] = [
            {"run_id": "", "weight": 1.0, **{key: fields.pop(key) for key in ("image_size", "channels")}}
        ]
    members = tuple(Member(**member) for member in fields["members"])
    return Decision(**fields | {"classes": tuple(fields["classes"]), "members": members})


def load_served(store: Store, uri: str) -> Served:
    """Load the model at `models:/NAME@ALIAS` or `models:/NAME/VERSION`, or a model in a local folder.

    Raises:
        RequestError: There is no such model, its files are lost, or it takes no pictures.
        MlflowException: MLflow cannot be reached.
    """
    return load_folder(served_folder(store, uri), uri)


def served_folder(store: Store, uri: str) -> Path:
    """Return the folder of the model at `models:/NAME@ALIAS` or `models:/NAME/VERSION`, or of a model in a local folder.

    Raises:
        RequestError: There is no such model, or its files are lost.
        MlflowException: MLflow cannot be reached.
    """
    if not uri.startswith("models:/"):
        if not Path(uri, "MLmodel").is_file():
            raise RequestError(
                f"{uri}: neither a registered model, such as models:/NAME@champion, nor the folder of one"
            )
        return Path(uri)
    return model_folder(store, uri)


def model_folder(store: Store, uri: str) -> Path:
    """Return the folder of a model's files.

    A server's files are downloaded into a folder that is deleted at the end of the process.

    Raises:
        RequestError: There is no such model, or its files are lost.
        MlflowException: MLflow cannot be reached.
    """
    to = None
    if store.uri.startswith("http"):
        to = tempfile.mkdtemp(prefix="pneumo-model-")
        atexit.register(shutil.rmtree, to, ignore_errors=True)
    try:
        is_version = uri.startswith("models:/") and not uri.startswith("models:/m-")
        source = _source(store, uri) if is_version else uri
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=source, tracking_uri=store.uri, dst_path=to))
    except MlflowException as error:
        if not is_final(error, store.uri):
            raise
        raise RequestError(f"{uri}: not in {store.display_uri}: {failure_reason(error)}") from None


def _source(store: Store, uri: str) -> str:
    """Return the address of a registered version's files."""
    name, at, alias = uri.removeprefix("models:/").partition("@")
    if at:
        return str(store.client.get_model_version_by_alias(name, alias).source)
    name, _, number = name.rpartition("/")
    return str(store.client.get_model_version(name, number).source)


def _requirements() -> list[str]:
    pinned = [f"{package}=={version(package)}" for package in PACKAGES]
    for package in DICOM_PACKAGES:
        try:
            pinned.append(f"{package}=={version(package)}")
        except PackageNotFoundError:
            continue
    return pinned
