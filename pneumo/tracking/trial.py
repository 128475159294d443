"""A worker's side: what one trial writes into its run while it trains."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.tensorflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric, RunTag
from mlflow.models import Model, ModelSignature
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.types import Schema, TensorSpec
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

from pneumo.tracking.store import client
from pneumo.tracking.study import log_files

MODEL_PACKAGES = ("tensorflow", "keras", "numpy")
"""What a loaded model needs beside MLflow, pinned to what trained it."""


def warm_up() -> None:
    """Does once, while a worker still waits for its data, what the first model would wait a second for."""
    # MLflow lists the files of every installed package to check the requirements that it is given, then remembers.
    warn_dependency_requirement_mismatches(_requirements())


@dataclass(frozen=True)
class LoggedModel:
    """A model in MLflow. `uri` is what `mlflow.pyfunc.load_model` and the registry take; `size` is in bytes."""

    model_id: str
    uri: str
    size: int


@dataclass(frozen=True)
class TrialLog:
    """Writes into one run, which its driver started and will end. Holds two strings, so it can be sent to a worker."""

    uri: str = field(repr=False)
    run_id: str

    def tag(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the run."""
        self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Logs the metrics of one epoch, counted from 1."""
        self._client.log_batch(self.run_id, metrics=_metrics(metrics, epoch))

    def finish(self, metrics: Mapping[str, float], model: LoggedModel | None = None) -> None:
        """Logs what is known once, at the end; with a model, its page shows the metrics too."""
        self._client.log_batch(self.run_id, metrics=_metrics(metrics, 0, model.model_id if model else None))

    def artifacts(self, files: Mapping[str, str | bytes]) -> None:
        """Writes files, named by their path in the run (`plots/roc.png`)."""
        log_files(self._client, self.run_id, files)

    def model(self, model: Any, example: np.ndarray[Any, np.dtype[np.uint8]]) -> LoggedModel:
        """Logs a Keras model that takes raw pictures, of type uint8 and shape (n, side, side, channels), and gives
        float32 probabilities of shape (n, 1). `example` is one such batch; one picture is enough. Registers nothing.
        """
        # The steps of mlflow.tensorflow.log_model, less what it takes from the process: the global tracking URI and
        # the active run. It would also load the model a second time to try the example.
        client = self._client
        run = client.get_run(self.run_id)
        logged = client.create_logged_model(
            run.info.experiment_id, name="model", source_run_id=self.run_id, params=run.data.params, model_type="keras"
        )
        pictures, probabilities = (-1, *example.shape[1:]), (-1, 1)
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), pictures)]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), probabilities)]),
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model")
            mlflow.tensorflow.save_model(
                model,
                str(path),
                mlflow_model=Model(
                    artifact_path=logged.artifact_location,
                    run_id=self.run_id,
                    model_uuid=logged.model_id,
                    model_id=logged.model_id,
                ),
                signature=signature,
                input_example=example,
                pip_requirements=_requirements(),
            )
            # What else this process has registered with Keras, as Keras Tuner does. A network of standard layers needs none
            # of it, and nothing pickled is loaded again.
            (path / "data" / "global_custom_objects.cloudpickle").unlink(missing_ok=True)
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            client.log_model_artifacts(logged.model_id, str(path))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        return LoggedModel(logged.model_id, f"models:/{logged.model_id}", size)

    @contextmanager
    def system_metrics(self) -> Iterator[None]:
        """Logs CPU, memory and, where there is one, GPU from a thread: first every second, in the end every 30.

        `MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL` (seconds) replaces the first interval.
        """
        monitor = _Monitor(self.run_id, self.uri)
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    @property
    def _client(self) -> MlflowClient:
        return client(self.uri)


class _Monitor(SystemMetricsMonitor):
    """MLflow's monitor, but a short trial has a few samples and a long one does not have thousands."""

    def __init__(self, run_id: str, uri: str) -> None:
        super().__init__(run_id, sampling_interval=1.0, tracking_uri=uri)

    def publish_metrics(self, metrics: dict[str, float]) -> None:
        super().publish_metrics(metrics)
        self.sampling_interval = max(self.sampling_interval, min(self.sampling_interval * 1.1, 30.0))


def _requirements() -> list[str]:
    return [f"{package}=={version(package)}" for package in MODEL_PACKAGES]


def _metrics(metrics: Mapping[str, float], step: int, model_id: str | None = None) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step, model_id=model_id) for name, value in metrics.items()]
