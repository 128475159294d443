"""A worker's side: what one trial writes into its run while it trains."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import mlflow.tensorflow
import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.types import Schema, TensorSpec
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

from pneumo.spec.names import Metrics
from pneumo.tracking.outbox import Outbox, timed

MODEL_PACKAGES = ("tensorflow", "keras", "numpy")
"""What a loaded model needs beside MLflow, pinned to what trained it."""

_INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"


def warm_up() -> None:
    """Does once, while a worker still waits for its data, what the first model would wait a second for."""
    # MLflow lists the files of every installed package to check the requirements that it is given, then remembers.
    warn_dependency_requirement_mismatches(_requirements())


@dataclass(frozen=True)
class TrialLog:
    """Writes into one run, by its id or its key, which its driver started and will end; by the outbox, so that no training
    waits for MLflow. Can be sent to a worker. Every method raises `OSError` where the disk takes no more.
    """

    outbox: Outbox
    run: str

    def tag(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the run."""
        self.outbox.append(self.run, "log_batch", tags=dict(tags))

    def epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Logs the metrics of one epoch, counted from 1."""
        self.outbox.append(self.run, "log_batch", metrics=timed(metrics, epoch))

    def finish(self, metrics: Mapping[str, float], *, of_model: bool = False) -> None:
        """Logs what is known once, at the end; `of_model`: the page of the model that was logged shows it too."""
        self.outbox.append(self.run, "log_batch", metrics=timed(metrics, 0), of_model=of_model)

    def artifacts(self, files: Mapping[str, str | bytes]) -> None:
        """Writes files, named by their path in the run (`plots/roc.png`)."""
        self.outbox.append_files(self.run, files)

    def model(self, model: Any, example: np.ndarray[Any, np.dtype[np.uint8]]) -> int:
        """Logs a Keras model that takes raw pictures, of type uint8 and shape (n, side, side, channels), and gives
        float32 probabilities of shape (n, 1). `example` is one such batch; one picture is enough. Registers nothing.

        Returns its size in bytes.
        """
        # The steps of mlflow.tensorflow.log_model that need no MLflow to be there; the others are `delivery`'s. It would
        # also load the model a second time to try the example.
        pictures, probabilities = (-1, *example.shape[1:]), (-1, 1)
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), pictures)]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), probabilities)]),
        )
        with self.outbox.filling(self.run, "log_model") as folder:
            mlflow.tensorflow.save_model(
                model,
                str(folder),
                mlflow_model=Model(),
                signature=signature,
                input_example=example,
                pip_requirements=_requirements(),
            )
            # What else this process has registered with Keras, as Keras Tuner does. A network of standard layers needs none
            # of it, and nothing pickled is loaded again.
            (folder / "data" / "global_custom_objects.cloudpickle").unlink(missing_ok=True)
            return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    @contextmanager
    def system_metrics(self) -> Iterator[None]:
        """Logs CPU, memory and, where there is one, GPU from a thread: first every second, in the end every 30.

        `MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL` (seconds) replaces the first interval.
        """
        ended = threading.Event()
        thread = threading.Thread(target=self._monitor, args=(ended,), name="system-metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _monitor(self, ended: threading.Event) -> None:
        """MLflow's own loop asks its server before each sample whether the run goes on."""
        monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        with suppress(Exception):  # no driver, no GPU, or not the extra
            monitors.append(GPUMonitor())
        interval, step = float(os.environ.get(_INTERVAL) or 1.0), 0
        while True:
            for monitor in monitors:
                monitor.collect_metrics()
            if ended.wait(interval):
                return
            found = {
                f"{Metrics.SYSTEM}{name}": value for one in monitors for name, value in one.aggregate_metrics().items()
            }
            with suppress(OSError):  # what the trial itself writes next will say that the disk is full
                self.outbox.append(self.run, "log_batch", metrics=timed(found, step))
            for monitor in monitors:
                monitor.clear_metrics()
            # A short trial has a few samples, and a long one does not have thousands.
            interval, step = max(interval, min(interval * 1.1, 30.0)), step + 1


def _requirements() -> list[str]:
    return [f"{package}=={version(package)}" for package in MODEL_PACKAGES]
