"""Compare a recorded trial with the same trial trained again: first their environments, then their metrics."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pneumo.spec.names import Metrics, Tags
from pneumo.spec.result import PARTS
from pneumo.training import provenance

if TYPE_CHECKING:
    from pneumo.data.prepare import Prepared
    from pneumo.tracking.recorded import RecordedTraining
    from pneumo.training.task import TrainingResult

NOT_RECORDED = "not recorded"

SPEED_METRICS = (Metrics.TRAIN_SECONDS, Metrics.IMAGES_PER_SECOND, Metrics.PREDICT_MS)
"""Metrics of the machine's speed, which are never equal in two trainings."""

PER_CONTINUATION_METRICS = (Metrics.TRAIN_SECONDS, Metrics.EPOCHS_TRAINED)
"""Metrics that a trial which continued another one records for its own epochs only."""


LATER_METRICS = (Metrics.VAL_ACCURACY_AT_THRESHOLD, Metrics.VAL_ATTENTION_INSIDE)
"""Metrics that earlier versions did not record, nor do pruned trials."""


@dataclass(frozen=True)
class Change:
    """A difference from the record that can change the metrics. If it is `certain`, the metrics will differ."""

    what: str
    recorded: str
    now: str
    certain: bool = False


@dataclass(frozen=True)
class MetricPair:
    """A recorded and a replayed value of one metric.

    A metric with several values, one for each epoch or picture, is represented by the two values that differ most, or by
    the last ones if none differ. `where` is that epoch or picture.
    """

    name: str
    recorded: float
    replayed: float
    where: str = ""

    @property
    def equal(self) -> bool:
        """Whether both values are equal to the last bit. NaN equals NaN."""
        return self.recorded == self.replayed or (math.isnan(self.recorded) and math.isnan(self.replayed))

    @property
    def distance(self) -> float:
        """The absolute difference; infinite if one of the two values is NaN."""
        if self.equal:
            return 0.0
        difference = abs(self.replayed - self.recorded)
        return math.inf if math.isnan(difference) else difference

    @property
    def ratio(self) -> float:
        """The replayed value divided by the recorded one; NaN if that is 0, as the speed of a trial that trained nothing."""
        return self.replayed / self.recorded if self.recorded else math.nan


@dataclass(frozen=True)
class Comparison:
    """A recorded and a replayed training side by side.

    Attributes:
        metrics: The metrics that must be equal.
        speed: The metrics of speed; the first is the sum of the epochs' seconds.
        epochs: Number of epochs of both trainings.
        common_pictures: Number of validation pictures that both trainings predicted.
    """

    metrics: list[MetricPair]
    speed: list[MetricPair]
    epochs: int
    common_pictures: int

    @property
    def different(self) -> list[MetricPair]:
        """The metrics that are not equal."""
        return [pair for pair in self.metrics if not pair.equal]


def environment_changes(recorded: RecordedTraining, data: Prepared, device: str) -> list[Change]:
    """Return what differs between the record and this machine, pictures first; empty if nothing does.

    Args:
        recorded: The recorded trial.
        data: The pictures that are about to be trained with.
        device: Name of the device that is about to train.
    """
    changes = []
    for part in PARTS:
        digest, recorded_part = data.digest(part), recorded.pictures.get(part)
        if recorded_part is None:
            changes.append(Change(f"{part} pictures", NOT_RECORDED, digest))
        elif recorded_part.digest != digest:
            before = _describe_pictures(recorded_part.digest, recorded_part.pictures)
            now = _describe_pictures(digest, len(getattr(data, part)))
            changes.append(Change(f"{part} pictures", before, now, certain=True))
    current_tags = provenance.tags() | {Tags.DEVICE: device}
    compared = {"code": Tags.CODE, "libraries": Tags.LIBRARIES, "device": Tags.DEVICE, "threads": Tags.THREADS}
    for what, tag in compared.items():
        before, now = recorded.run.tags.get(tag, NOT_RECORDED), current_tags[tag]
        if before == now:
            continue
        if what == "libraries" and before != NOT_RECORDED:
            before, now = _different_entries(before, now)
        changes.append(Change(what, before, now))
    return changes


def compare(recorded: RecordedTraining, trained: TrainingResult, data: Prepared) -> Comparison:
    """Compare every metric of the record with the training that repeated it.

    Args:
        recorded: The recorded trial.
        trained: The training.
        data: The pictures that it was trained with.
    """
    from pneumo.evidence.tables import predictions_csv

    rows = data.validation
    names, patients = [data.names[row] for row in rows], [data.patients[row] for row in rows]
    predictions = predictions_csv(names, patients, data.labels[rows], trained.probabilities, data.classes)
    probability_pairs = _probability_pairs(recorded.predictions_csv, predictions)
    largest_probability = [_largest_difference(probability_pairs)] if probability_pairs else []
    return Comparison(
        metrics=[*_final_metrics(recorded, trained), *_epoch_metrics(recorded, trained), *largest_probability],
        speed=_speed(recorded, trained),
        epochs=len(trained.history),
        common_pictures=len(probability_pairs),
    )


def _final_metrics(recorded: RecordedTraining, trained: TrainingResult) -> list[MetricPair]:
    """Return the metrics with one value for the training, without those of speed."""
    return [
        MetricPair(name, recorded.run.metrics.get(name, math.nan), value)
        for name, value in trained.metrics.items()
        if name not in SPEED_METRICS and _is_comparable(name, recorded)
    ]


def _epoch_metrics(recorded: RecordedTraining, trained: TrainingResult) -> list[MetricPair]:
    """Return the metrics with one value for each epoch, at the epoch where they differ most."""
    epochs = list(enumerate(zip(recorded.epochs, trained.history, strict=True), 1))
    return [
        _largest_difference(
            MetricPair(name, before.get(name, math.nan), now[name], f"epoch {epoch}") for epoch, (before, now) in epochs
        )
        for name in trained.history[-1]
        if name not in ("epoch", Metrics.EPOCH_SECONDS)
    ]


def _probability_pairs(recorded_csv: str, replayed_csv: str) -> list[MetricPair]:
    """Return the probabilities of the pictures that are in both tables (see `evidence.tables.predictions_csv`)."""
    before, now = _probabilities(recorded_csv), _probabilities(replayed_csv)
    return [MetricPair("probability", before[name], now[name], name) for name in before if name in now]


def _speed(recorded: RecordedTraining, trained: TrainingResult) -> list[MetricPair]:
    """Return the sum of the epochs' seconds, which every record has for all epochs, and the metrics of speed."""
    before, now = (
        sum(epoch.get(Metrics.EPOCH_SECONDS, math.nan) for epoch in epochs)
        for epochs in (recorded.epochs, trained.history)
    )
    return [
        MetricPair(Metrics.EPOCH_SECONDS, before, now, "all epochs"),
        *(
            MetricPair(name, recorded.run.metrics.get(name, math.nan), trained.metrics[name])
            for name in SPEED_METRICS
            if _is_comparable(name, recorded)
        ),
    ]


def _is_comparable(name: str, recorded: RecordedTraining) -> bool:
    """Check that the record has the metric, and for all epochs, also if the trial continued another one."""
    if name in LATER_METRICS and name not in recorded.run.metrics:
        return False
    return Tags.RESUMED_FROM not in recorded.run.tags or name not in PER_CONTINUATION_METRICS


def _largest_difference(pairs: Iterable[MetricPair]) -> MetricPair:
    """Return the pair that differs most; the last one of several."""
    return max(reversed(list(pairs)), key=lambda pair: pair.distance)


def _describe_pictures(digest: str, count: int | None) -> str:
    return digest if count is None else f"{digest} ({count:,} pictures)"


def _different_entries(before: str, now: str) -> tuple[str, str]:
    """Return the entries of each of two lists of libraries that are not in the other, for example `keras 3.0.5`."""
    before_entries, now_entries = before.split(", "), now.split(", ")
    return (
        ", ".join(entry for entry in before_entries if entry not in now_entries) or "none of them",
        ", ".join(entry for entry in now_entries if entry not in before_entries) or "none of them",
    )


def _probabilities(table: str) -> Mapping[str, float]:
    return {row["name"]: float(row["probability"]) for row in csv.DictReader(table.splitlines())}
