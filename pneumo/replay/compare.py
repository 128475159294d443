"""A recorded trial and the same trained again: what they do not have in common, and how far their figures differ."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pneumo.spec.result import PARTS
from pneumo.training import provenance

if TYPE_CHECKING:
    from pneumo.data.prepare import Prepared
    from pneumo.tracking.recorded import RecordedTrial
    from pneumo.training.task import TrainingResult

NOT_RECORDED = "not recorded"

TIMES = ("train_seconds", "images_per_second", "predict_ms")
"""Metrics of the machine's speed, which no two trainings have in common."""

OF_ITS_OWN_PART = ("train_seconds", "epochs_trained")
"""Metrics that a trial which goes on from another has of its own epochs only."""


@dataclass(frozen=True)
class Change:
    """Something that a training's figures follow from, and that is not what it was. `certain`: they will differ."""

    what: str
    recorded: str
    now: str
    certain: bool = False


@dataclass(frozen=True)
class Figure:
    """One metric, recorded and replayed.

    Of one that every epoch or every picture has it is the one where the two differ most, or the last where none differs;
    `at` says which.
    """

    name: str
    recorded: float
    replayed: float
    at: str = ""

    @property
    def equal(self) -> bool:
        """To the last bit; no number and no number are equal too."""
        return self.recorded == self.replayed or (math.isnan(self.recorded) and math.isnan(self.replayed))

    @property
    def distance(self) -> float:
        """The absolute difference; infinity where one of the two is no number."""
        if self.equal:
            return 0.0
        difference = abs(self.replayed - self.recorded)
        return math.inf if math.isnan(difference) else difference


def environment_changes(recorded: RecordedTrial, data: Prepared, device: str) -> list[Change]:
    """What differs between the record and here, pictures first. Empty: all is known to be the same."""
    found = []
    for part in PARTS:
        digest, before = data.digest(part), recorded.pictures.get(part)
        if before is None:
            found.append(Change(f"{part} pictures", NOT_RECORDED, digest))
        elif before.digest != digest:
            was, now = _counted(before.digest, before.pictures), _counted(digest, len(getattr(data, part)))
            found.append(Change(f"{part} pictures", was, now, certain=True))
    here = provenance.tags() | {"pneumo.device": device}
    for what in ("code", "libraries", "device", "threads"):
        was, now = recorded.tags.get(f"pneumo.{what}", NOT_RECORDED), here[f"pneumo.{what}"]
        if was != now:
            if what == "libraries" and was != NOT_RECORDED:
                was, now = _unlike(was, now)
            found.append(Change(what, was, now))
    return found


def once(recorded: RecordedTrial, trained: TrainingResult) -> list[Figure]:
    """The metrics that are known once, as the training names them, without those of speed."""
    resumed = "pneumo.resumed_from" in recorded.tags
    return [
        Figure(name, recorded.metrics.get(name, math.nan), value)
        for name, value in trained.metrics.items()
        if name not in TIMES and not (resumed and name in OF_ITS_OWN_PART)
    ]


def by_epoch(recorded: RecordedTrial, trained: TrainingResult) -> list[Figure]:
    """The metrics of each epoch."""
    pairs = list(zip(recorded.epochs, trained.history, strict=True))
    return [
        _furthest(
            Figure(name, before.get(name, math.nan), now[name], f"epoch {epoch}")
            for epoch, (before, now) in enumerate(pairs, 1)
        )
        for name in trained.history[-1]
        if name not in ("epoch", "epoch_seconds")
    ]


def probability(recorded_csv: str, replayed_csv: str) -> tuple[list[Figure], int]:
    """The probability of the validation pictures that two tables have in common, and how many pictures these are.

    The tables are as `evidence.tables.predictions_csv` writes them. No figure: no picture in common.
    """
    before, now = _probabilities(recorded_csv), _probabilities(replayed_csv)
    common = [Figure("probability", before[name], now[name], name) for name in before if name in now]
    return [_furthest(common)] if common else [], len(common)


def times(recorded: RecordedTrial, trained: TrainingResult) -> list[Figure]:
    """The metrics of speed, and the seconds of all epochs; `epoch_seconds` is the one that every record has whole."""
    resumed = "pneumo.resumed_from" in recorded.tags
    before, now = (
        sum(epoch.get("epoch_seconds", math.nan) for epoch in of) for of in (recorded.epochs, trained.history)
    )
    return [
        Figure("epoch_seconds", before, now, "all epochs"),
        *(
            Figure(name, recorded.metrics.get(name, math.nan), trained.metrics[name])
            for name in TIMES
            if not (resumed and name in OF_ITS_OWN_PART)
        ),
    ]


def _furthest(figures: Iterable[Figure]) -> Figure:
    return max(reversed(list(figures)), key=lambda figure: figure.distance)


def _counted(digest: str, pictures: int | None) -> str:
    return digest if pictures is None else f"{digest} ({pictures:,} pictures)"


def _unlike(was: str, now: str) -> tuple[str, str]:
    """Of two lists of names and versions what is not in the other."""
    before, after = was.split(", "), now.split(", ")
    return (
        ", ".join(one for one in before if one not in after) or "none of them",
        ", ".join(one for one in after if one not in before) or "none of them",
    )


def _probabilities(table: str) -> Mapping[str, float]:
    return {row["name"]: float(row["probability"]) for row in csv.DictReader(table.splitlines())}
