"""What the test pictures say of a trial: its operating point from validation, both networks' predictions, figures, the gate."""

from __future__ import annotations

import base64
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.promotion import parse_threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pneumo.data.pictures import Picture, Source
    from pneumo.evidence.gate import Gate
    from pneumo.evidence.intervals import Interval
    from pneumo.spec.run import TrialRun
    from pneumo.tracking.registry import Version
    from pneumo.tracking.served import Decision, Prediction, Served
    from pneumo.tracking.store import Store

MOST_UNREADABLE = 0.01
"""The share of the test pictures that may be unreadable before nothing is judged."""

AT_ONCE = 32
"""Encoded pictures that are held at a time."""

_SIDE = 96
"""Pixels of the pictures on the plot of mistakes."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What a trial is compared with. `key` tells it, `name` is what plots call it and `said` what people do; `load` gives its
    model, and may use a new folder. Without `load` there is nothing to compare with, and `said` is why."""

    key: str
    name: str
    said: str
    load: Callable[[Path], Served] | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the test pictures said: figures with intervals, the gate's answer, what was looked at, and files that show it."""

    figures: dict[str, Interval]
    gate: Gate
    counts: dict[str, int]
    unreadable: tuple[tuple[str, str], ...]
    files: dict[str, str | bytes]


def decision(store: Store, run: TrialRun, experiment: Experiment, source: Source) -> Decision:
    """The operating point of a trial's network, from its validation pictures alone."""
    from pneumo.evidence.metrics import operating_point
    from pneumo.evidence.scaling import scaled, temperature
    from pneumo.tracking.served import Decision

    labels, probabilities = _validation(store, run, source.classes)
    heat = temperature(labels, probabilities) if experiment.promote.calibration == "temperature" else 1.0
    rule = parse_threshold(experiment.promote.threshold)
    threshold = operating_point(labels, scaled(probabilities, heat), rule.kind, rule.value)
    size, channels = int(run.parameters["image_size"]), int(run.parameters["channels"])
    return Decision(source.classes, threshold, heat, size, channels, phantom=source.kind == "phantom")


def served(store: Store, run: TrialRun, decided: Decision, source: Source, to: Path) -> Served:
    """A trial's network as a model that takes pictures, in a new folder. Raises `RequestError` where the run has no model."""
    from pneumo.data import decoding
    from pneumo.tracking.models import REMOVED
    from pneumo.tracking.served import load_folder, model_folder, save_served
    from pneumo.tracking.study import model_of

    if why := run.tags.get(REMOVED):
        raise RequestError(
            f"{run.run_id}: the model of trial {run.number} was removed: {why}; train it again, or name another"
        )
    model = model_of(store, run.run_id)
    if model is None:
        raise RequestError(f"{run.run_id}: trial {run.number} has no model, so there is nothing to promote")
    network, decoder = model_folder(store, f"models:/{model}"), Path(decoding.__file__).parent
    save_served(network, decoder, decided, base64.b64encode(_example(source)).decode(), to)
    return load_folder(to, run.run_id)


def choose_reference(
    store: Store,
    experiment: Experiment,
    source: Source,
    runs: Sequence[TrialRun],
    picked: TrialRun,
    champion: Version | None,
) -> Reference:
    """The present champion, or where there is none the study's baseline, the tutorial's own network, among `runs`."""
    from pneumo.tracking.served import load_served

    if champion is not None:
        said = f"the champion, version {champion.number}"
        return Reference(f"version {champion.number}", "champion", said, lambda _: load_served(store, champion.uri))
    if not experiment.search.baseline:
        return Reference("none", "", "there is no champion yet, and the study has no baseline")
    base = next((run for run in runs if run.number == 0 and run.state == "complete"), None)
    if base is None:
        return Reference("none", "", "there is no champion yet, and the study's baseline did not complete")
    # Compared with itself it is not better, and the gate says so.
    said = "which is this very trial" if base.run_id == picked.run_id else f"trial {base.number}"
    at = decision(store, base, experiment, source)
    load = partial(served, store, base, at, source)
    return Reference(f"run {base.run_id}", "baseline", f"the study's baseline, {said}", load)


def evaluate(
    model: Served,
    against: Reference,
    test: Source,
    experiment: Experiment,
    *,
    title: str,
    folder: Path,
    progress: Callable[[int, int], None],
) -> Evaluation:
    """Both models on every test picture. `test` is opened; `folder` is a new one for the other model.

    Raises `RequestError` where more than 1 % of the pictures cannot be read.
    """
    from pneumo.evidence.gate import apply_gate as gate_of
    from pneumo.evidence.intervals import figures as figures_of
    from pneumo.evidence.plots import picture_plots
    from pneumo.evidence.tables import predictions_csv

    other = against.load(folder) if against.load else None
    ours, theirs = _predictions(model, other, test, progress)
    # Of both: figures that are compared are of the same pictures.
    errors = [said.error or (theirs[row].error if other else None) for row, said in enumerate(ours)]
    unreadable = tuple((p.name, error) for p, error in zip(test.pictures, errors, strict=True) if error)
    if len(unreadable) > MOST_UNREADABLE * len(ours):
        name, reason = unreadable[0]
        raise RequestError(
            f"{len(unreadable)} of {len(ours)} test pictures cannot be read, more than 1 %: {name} ({reason})"
        )
    rows = [row for row, error in enumerate(errors) if error is None]
    pictures = [test.pictures[row] for row in rows]
    labels = np.array([picture.label for picture in pictures])
    patients = np.array([picture.patient for picture in pictures])
    probabilities = np.array([ours[row].probability for row in rows], np.float64)
    compared = np.array([theirs[row].probability for row in rows], np.float64) if other else None
    threshold, spec = model.decision.threshold, experiment.promote
    figures = figures_of(labels, probabilities, patients, threshold)
    gate = gate_of(
        labels,
        patients,
        probabilities,
        compared,
        our_threshold=threshold,
        their_threshold=other.decision.threshold if other else None,
        against=against.said,
        figures=figures,
        floors=spec.floors,
        significant=spec.gate == "significant",
    )
    plots = picture_plots(
        title=title,
        labels=labels,
        probabilities=probabilities,
        names=[picture.name for picture in pictures],
        pixels=_mistakes(test, pictures, labels, probabilities >= threshold),
        threshold=threshold,
        phantom=test.kind == "phantom",
        classes=test.classes,
        part="test",
        others={} if compared is None else {against.name: compared},
    )
    counts = {"num_rows": len(pictures), "patients": len(set(patients.tolist()))}
    counts |= {name: int((labels == label).sum()) for label, name in enumerate(test.classes)}
    names, of = [picture.name for picture in pictures], patients.tolist()
    files: dict[str, str | bytes] = {f"plots/{name}": png for name, png in plots.items()}
    files["predictions.csv"] = predictions_csv(names, of, labels, probabilities, test.classes)
    return Evaluation(figures, gate, counts, unreadable, files)


def _validation(store: Store, run: TrialRun, classes: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Labels and probabilities of the validation pictures, as the run recorded them."""
    from pneumo.evidence.tables import cell
    from pneumo.tracking.study import artifact

    rows = list(csv.DictReader(artifact(store, run.run_id, "predictions.csv").splitlines()))
    labels = np.array([row["label"] == cell(classes[1]) for row in rows], np.int64)
    return labels, np.array([row["probability"] for row in rows], np.float32)


def _example(source: Source) -> bytes:
    """A small picture of the training pool, encoded: it goes with the model as an example of a request."""
    return min(filter(None, (_bytes(source, picture) for picture in source.pictures[:AT_ONCE])), key=len)


def _predictions(
    model: Served, other: Served | None, test: Source, progress: Callable[[int, int], None]
) -> tuple[list[Prediction], list[Prediction]]:
    """What both models say of every test picture, each of which is read once."""
    ours: list[Prediction] = []
    theirs: list[Prediction] = []
    for start in range(0, len(test.pictures), AT_ONCE):
        encoded = [_bytes(test, picture) for picture in test.pictures[start : start + AT_ONCE]]
        ours += model.predict(encoded)
        theirs += other.predict(encoded) if other else []
        progress(len(ours), len(test.pictures))
    return ours, theirs


def _bytes(source: Source, picture: Picture) -> bytes:
    from pneumo.data.decoding import UnreadableError

    try:
        return source.encoded(picture)
    except UnreadableError:
        return b""  # which no decoder takes, so that it counts with the others that cannot be read


def _mistakes(
    test: Source, pictures: Sequence[Picture], labels: NDArray[np.int64], positive: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Pixels (n, side, side) of the pictures that are judged wrongly; the others, which are not shown, are black."""
    from pneumo.data.decoding import decode

    pixels = np.zeros((len(pictures), _SIDE, _SIDE), np.uint8)
    for row in np.flatnonzero(positive != labels).tolist():
        pixels[row] = decode(test.encoded(pictures[row]), [_SIDE]).squares[0]
    return pixels
