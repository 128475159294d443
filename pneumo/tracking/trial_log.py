"""What a worker writes into the run of the trial that it trains."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.types import Schema, TensorSpec

from pneumo.spec.names import Metrics
from pneumo.tracking.model_packages import packages_are_named
from pneumo.tracking.operations import PLOT_VALUES, DrawPlots, LogBatch, LogModel, MetricPoint, metric_points
from pneumo.tracking.outbox import Outbox
from pneumo.tracking.sent_outbox import SentOutbox

MODEL_PACKAGES = ("tensorflow", "keras", "numpy")
"""Packages that a loaded model needs besides MLflow, pinned to the versions that trained it."""

_SAMPLING_INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"

_LONGEST_INTERVAL = 30.0
"""Largest number of seconds between two samples of system metrics."""


def import_model_flavor() -> None:
    """Import the part of MLflow that saves a network. It imports TensorFlow, so only a worker calls this."""
    import mlflow.tensorflow  # noqa: F401


@dataclass(frozen=True)
class TrialLog:
    """A worker's writes into the run of a trial.

    The driver starts and closes the run. Everything goes through the outbox, so that no training waits for MLflow. Every
    method raises `OSError` if the disk is full or fails.

    MLflow's pages list the metrics of a run in the order in which they were logged first, and *Compare* opens on the first
    of them. So the objective comes first, and system metrics wait until an epoch was logged.

    Attributes:
        outbox: The study's outbox, or what sends operations to it from another machine.
        run: The run's id or key.
        first: The metric of an epoch that is to be the run's first: the objective's; None to take them as they come.
    """

    outbox: Outbox | SentOutbox
    run: str
    first: str | None = None
    _begun: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self.outbox.append(self.run, LogBatch(tags=dict(tags)))

    def epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Log the metrics of an epoch, counted from 1."""
        points = metric_points(metrics, epoch)
        self.outbox.append(self.run, LogBatch(sorted(points, key=lambda point: point.name != self.first)))
        self._begun.set()

    def finish(self, metrics: Mapping[str, float], *, of_model: bool = False) -> None:
        """Log the metrics that are known at the end; with `of_model`, for the page of the run's model too."""
        self.outbox.append(self.run, LogBatch(metric_points(metrics, 0), of_model=of_model))

    def artifacts(self, files: Mapping[str, str | bytes]) -> None:
        """Log artifacts, given their contents by path in the run, such as `plots/roc.png`."""
        self.outbox.append_files(self.run, files)

    def plots(self, values: bytes) -> None:
        """Log plots, given the values that the driver draws them from, see `Sender`."""
        with self.outbox.append_folder(self.run, DrawPlots()) as folder:
            (folder / PLOT_VALUES).write_bytes(values)

    def model(self, model: Any, example: np.ndarray[Any, np.dtype[np.uint8]]) -> int:
        """Log a Keras model. It is not registered.

        Args:
            model: Takes pictures, uint8 of shape (n, side, side, channels). Returns probabilities, float32 of shape (n, 1).
            example: A batch of pictures, stored with the model; one picture is enough.

        Returns:
            The model's size in bytes.
        """
        import mlflow.tensorflow

        # These are the steps of mlflow.tensorflow.log_model that do not need MLflow; `delivery` does the others.
        # log_model would also load the model again to try the example.
        pictures, probabilities = (-1, *example.shape[1:]), (-1, 1)
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), pictures)]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), probabilities)]),
        )
        with self.outbox.append_folder(self.run, LogModel()) as folder, packages_are_named():
            mlflow.tensorflow.save_model(
                model,
                str(folder),
                mlflow_model=Model(),
                signature=signature,
                input_example=example,
                pip_requirements=_requirements(),
            )
            # MLflow pickles all objects that this process registered with Keras, also those of Keras Tuner. A network of
            # standard layers needs none of them, and no pickle is loaded again.
            (folder / "data" / "global_custom_objects.cloudpickle").unlink(missing_ok=True)
            return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    @contextmanager
    def system_metrics(self) -> Iterator[None]:
        """Log CPU, memory, disk, network and, if there is one, GPU from a thread while the context lasts.

        The first interval is a second, or `MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL` seconds; it grows to 30 seconds. Samples
        of the first epoch are logged after it.
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
        # MLflow's own loop asks the server before each sample whether the run is active.
        monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        with suppress(Exception):  # no driver, no GPU, or its package is not installed
            monitors.append(GPUMonitor())
        interval, step, waiting = float(os.environ.get(_SAMPLING_INTERVAL) or 1.0), 0, list[MetricPoint]()
        is_over = False
        while not is_over:
            for monitor in monitors:
                monitor.collect_metrics()
            is_over = ended.wait(interval)
            if not is_over:
                sample = {
                    f"{Metrics.SYSTEM}{name}": value
                    for monitor in monitors
                    for name, value in monitor.aggregate_metrics().items()
                }
                waiting += metric_points(sample, step)
                for monitor in monitors:
                    monitor.clear_metrics()
            if waiting and (is_over or self._begun.is_set()):
                with suppress(OSError):  # The trial's own next write reports a full disk.
                    self.outbox.append(self.run, LogBatch(waiting))
                waiting = []
            # The interval grows, so that a short trial has several samples and a long one does not have thousands.
            interval, step = max(interval, min(interval * 1.1, _LONGEST_INTERVAL)), step + 1


def _requirements() -> list[str]:
    return [f"{package}=={version(package)}" for package in MODEL_PACKAGES]
