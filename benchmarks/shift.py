"""Measure how accurate a study's networks are on pictures as another hospital would have taken them.

    python -m pneumo.search experiments/accuracy.yaml
    python benchmarks/shift.py accuracy --data data/chest-xray-pneumonia.zip

Run it in the folder of a finished study with `search.confirm`. It compares, over the seeds of the confirmations:

- the tutorial's network. Its study, NAME-tutorial, is searched first unless it exists: one trial and its confirmations, on
  the same split and with the same seeds;
- the best confirmed trial of the study;
- an ensemble for each seed: the mean of all confirmed trials, trained with that seed;
- the greedy ensemble: what `promote.ensemble: N` picks on stressed validation pictures among all complete trials and
  confirmations that have a model. N is the study's, or 10. It is one ensemble, so it has no range.

Each is judged on the pictures of the archive's test part, as they are and shifted. A shifted picture differs from the plain
one in three ways. The strengths are none of the stress suite's (`pneumo.spec.stress`):

- a tighter frame: .82 to .88 of the width and .76 to .84 of the height, at a random place, enlarged to the full side (the
  suite: .9 and .8 of both, the middle);
- the distance from the picture's mean times .75, and 8 % of the range subtracted (the suite: 1.4, .6, and 15 %);
- on NORMAL pictures only, a bright "R" in one of the upper corners, 36 to 52 of 224 pixels high (the suite: no marker).

The pictures are shifted at 224 x 224 pixels and then resized for each network. Prints the accuracy at four thresholds: 0.5;
Youden's on plain validation pictures; Youden's on the validation pictures under all changes of the stress suite pooled; and
the best possible one, which only the test labels tell. Then the AUC. A figure is the mean over the seeds, and the range.

The benchmark reads the test part from the archive itself and records nothing, so the study does not count this as an opening
of its test pictures. Do not choose between trials by these figures. `--sheet FILE.png` draws some of the shifted pictures.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pneumo.data.archive import open_archive
from pneumo.data.decoding import decode, square_of
from pneumo.evidence.ensemble import pick_members
from pneumo.evidence.metrics import auc, operating_point
from pneumo.evidence.stress import StressPredictions
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import parse_experiment
from pneumo.spec.names import Artifacts, Params
from pneumo.spec.objective import OBJECTIVES, objective_metric
from pneumo.spec.result import CLASSES
from pneumo.spec.run import RecordedRun
from pneumo.tracking.models import logged_models
from pneumo.tracking.runs import model_of, read_artifact
from pneumo.tracking.served import model_folder
from pneumo.tracking.store import Store, connect_existing
from pneumo.tracking.study import confirmations, read_study, trial_runs

SIDE = 224
"""Side in pixels of the pictures that are shifted."""

SEEDS = 3
"""Seeds with which the tutorial's network is trained."""

CONTRAST, BRIGHTNESS = 0.75, -0.08

Pictures = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class TestSet:
    """Pictures, uint8 (n, 224, 224), and their labels, int64 (n,)."""

    pixels: Pictures
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one network, or an ensemble, predicts.

    Attributes:
        names: str (v,), the validation pictures.
        labels: int64 (v,), their labels.
        validation: Their probabilities (v,).
        stress: Those of some validation pictures under each change of the suite.
        tests: The probabilities of the test pictures by the name of the test set.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    validation: Floats
    stress: StressPredictions
    tests: Mapping[str, Floats]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="the name of the study")
    parser.add_argument("--data", required=True, type=Path, help="the archive: a zip or a folder")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw some shifted pictures")
    options = parser.parse_args()
    tests = read_test_sets(options.data)
    if options.sheet:
        draw_sheet(tests, options.sheet)
    store = connect_existing()
    experiment = experiment_of(store, options.study)
    tutorial = search_tutorial(store, experiment, options.data)
    trials = confirmed_trials(store, experiment)
    groups = {
        "the tutorial's": [predict(store, run, tests) for run in confirmed_trials(store, tutorial)[0]],
        "best trial": [predict(store, run, tests) for run in trials[0]],
    }
    if len(trials) > 1:
        by_seed = zip(*trials, strict=True)
        groups[f"mean of {len(trials)} trials"] = [mean([predict(store, r, tests) for r in runs]) for runs in by_seed]
    groups["greedy ensemble"] = [mean([predict(store, run, tests) for run in greedy(store, experiment)])]
    print_table(groups, tests)


def read_test_sets(path: Path) -> dict[str, TestSet]:
    """Return the test part of the archive, plain and shifted."""
    archive = open_archive(path, "the archive")
    # The archive has a second copy of some pictures in a deeper folder; the shallower file is taken.
    files: dict[tuple[str, ...], str] = {}
    for file in sorted(archive.files, key=lambda file: (file.count("/"), file)):
        part, label, name = PurePosixPath("part", "label", file).parts[-3:]
        if part == "test" and label in CLASSES:
            files.setdefault((label, name), file)
    if not files:
        sys.exit(f"{path}: has no folders test/{CLASSES[0]} and test/{CLASSES[1]}")
    labels = np.array([CLASSES.index(label) for label, _ in files], np.int64)
    squares = np.stack([decode(archive.read(file, None), [SIDE], file).squares[0] for file in files.values()])
    return {"plain": TestSet(squares, labels), "shifted": TestSet(shifted(squares, labels), labels)}


def shifted(pictures: Pictures, labels: NDArray[np.int64], seed: int = 0) -> Pictures:
    """Return the pictures, uint8 (n, 224, 224), as another hospital would have taken them."""
    rng = np.random.default_rng(seed)
    return np.stack([shift(picture, label == 0, rng) for picture, label in zip(pictures, labels, strict=True)])


def shift(picture: Pictures, marked: bool, rng: np.random.Generator) -> Pictures:
    """Return a picture in a tighter frame, with less contrast, darker, and with a marker if it is `marked`."""
    width, height = SIDE * rng.uniform(0.82, 0.88), SIDE * rng.uniform(0.76, 0.84)
    left, top = rng.uniform(0, SIDE - width), rng.uniform(0, SIDE - height)
    box = (left, top, left + width, top + height)
    framed = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box), np.float64)
    changed = (framed - framed.mean()) * CONTRAST + framed.mean() + BRIGHTNESS * 255
    image = Image.fromarray(np.clip(np.rint(changed), 0, 255).astype(np.uint8))
    # The draws do not depend on the label, so the two classes are framed alike.
    size, x, y, right = rng.uniform(36, 52), rng.uniform(4, 20), rng.uniform(4, 20), rng.random() < 0.5
    if marked:
        anchor, corner = ("rt", (SIDE - x, y)) if right else ("lt", (x, y))
        font = ImageFont.load_default(size / 0.7)  # a capital letter has seven tenths of a font's size
        ImageDraw.Draw(image).text(corner, "R", fill=250, font=font, anchor=anchor, stroke_width=2)
    return np.asarray(image)


def draw_sheet(tests: Mapping[str, TestSet], path: Path) -> None:
    """Draw twelve pictures, plain above shifted: six NORMAL ones, then six with PNEUMONIA."""
    labels = tests["plain"].labels
    rows = [row for label in (0, 1) for row in np.flatnonzero(labels == label)[:: int(sum(labels == label)) // 6][:6]]
    sheet = [
        np.hstack([test.pixels[row] for row in rows[start : start + 6]]) for start in (0, 6) for test in tests.values()
    ]
    Image.fromarray(np.vstack(sheet)).save(path)


def experiment_of(store: Store, study: str) -> Experiment:
    """Return the experiment of a finished study."""
    recorded = read_study(store, study)
    if recorded is None or recorded.experiment_yaml is None:
        sys.exit(f"{study}: there is no such study here")
    return parse_experiment(recorded.experiment_yaml, study)


def search_tutorial(store: Store, experiment: Experiment, data: Path) -> Experiment:
    """Train the tutorial's network on the split of a study, unless that was done, and return the experiment."""
    name = f"{experiment.name}-tutorial"
    settings = {
        "name": name,
        "data": experiment.data.model_dump(mode="json") | {"path": str(data.resolve())},
        "hyperparameters": {},
        "search": {"trials": 1, "seed": experiment.search.seed, "confirm": {"top": 1, "seeds": SEEDS}},
    }
    if read_study(store, name) is None or len(confirmations(store, name)) < SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "tutorial.yaml")
            file.write_text(yaml.safe_dump(settings))
            environment = os.environ | {"MLFLOW_TRACKING_URI": store.uri}
            subprocess.run(
                [sys.executable, "-m", "pneumo.search", str(file)], stdout=sys.stderr, check=True, env=environment
            )
    return experiment_of(store, name)


def confirmed_trials(store: Store, experiment: Experiment) -> list[list[RecordedRun]]:
    """Return the confirmations of each confirmed trial by seed, the trial with the best mean first."""
    by_trial: dict[int, list[RecordedRun]] = defaultdict(list)
    for run in sorted(confirmations(store, experiment.name), key=lambda run: int(run.parameters[Params.SEED])):
        by_trial[run.number].append(run)
    if len({tuple(run.parameters[Params.SEED] for run in runs) for runs in by_trial.values()}) != 1:
        sys.exit(f"{experiment.name}: needs complete confirmations, with the same seeds for each trial")
    objective = experiment.search.objectives[0]
    sign, metric = 1 if OBJECTIVES[objective] == "minimize" else -1, objective_metric(objective)
    return sorted(by_trial.values(), key=lambda runs: sign * float(np.mean([run.metrics[metric] for run in runs])))


def greedy(store: Store, experiment: Experiment) -> list[RecordedRun]:
    """Return the runs that `promote.ensemble` picks; a run that is picked twice stands there twice."""
    study, asked = experiment.name, getattr(experiment.promote, "ensemble", None)
    models = logged_models(store, study)
    trials = [run for run in trial_runs(store, study) if run.state == "complete"]
    candidates = [run for run in (*trials, *confirmations(store, study)) if run.run_id in models]
    candidates.sort(key=lambda run: (run.number, run.role == "confirm", int(run.parameters[Params.SEED])))
    stress = on_same_pictures([read_stress(store, run) for run in candidates])
    probabilities = np.stack([predictions.pooled[1] for predictions in stress])
    picks = pick_members(stress[0].pooled[0], probabilities, asked if isinstance(asked, int) else 10)
    return [candidates[pick] for pick in picks]


def read_stress(store: Store, run: RecordedRun) -> StressPredictions:
    with tempfile.TemporaryDirectory() as folder:
        path = store.client.download_artifacts(run.run_id, Artifacts.STRESS_PREDICTIONS, folder)
        return StressPredictions.from_bytes(Path(path).read_bytes())


def predict(store: Store, run: RecordedRun, tests: Mapping[str, TestSet]) -> Predictions:
    """Return what a run recorded of its validation pictures, and what its network predicts for the test pictures."""
    from pneumo.cnn.device import warm_up

    warm_up()  # before anything else imports TensorFlow
    from pneumo.cnn.batches import Examples
    from pneumo.cnn.load import load_network
    from pneumo.cnn.predictor import make_predictor

    rows = list(csv.DictReader(read_artifact(store, run.run_id, Artifacts.PREDICTIONS).splitlines()))
    network = load_network(model_folder(store, f"models:/{model_of(store, run.run_id)}") / "data" / "model.keras")
    predictor, side = make_predictor(network), network.input_shape[1]
    probabilities = {}
    for name, test in tests.items():
        pixels = np.stack([square_of(picture, side) for picture in test.pixels])
        probabilities[name] = predictor(Examples(pixels, np.arange(len(pixels)), test.labels))
    return Predictions(
        tuple(row["name"] for row in rows),
        np.array([row["label"] == CLASSES[1] for row in rows], np.int64),
        np.array([row["probability"] for row in rows], np.float32),
        read_stress(store, run),
        probabilities,
    )


def mean(members: Sequence[Predictions]) -> Predictions:
    """Return the predictions of an ensemble of equal weights."""
    first = members[0]
    if any(member.names != first.names for member in members):
        sys.exit("the networks were validated on different pictures")
    return Predictions(
        first.names,
        first.labels,
        np.mean([member.validation for member in members], axis=0),
        mean_stress([member.stress for member in members]),
        {name: np.mean([member.tests[name] for member in members], axis=0) for name in first.tests},
    )


def mean_stress(members: Sequence[StressPredictions]) -> StressPredictions:
    """Return the mean predictions for the pictures that all members were judged on."""
    same = on_same_pictures(members)
    plain, changed = (np.mean([getattr(each, name) for each in same], axis=0) for name in ("plain", "probabilities"))
    return replace(same[0], plain=plain, probabilities=changed)


def on_same_pictures(members: Sequence[StressPredictions]) -> list[StressPredictions]:
    """Return the predictions for the pictures that all were judged on. Networks that cost more are judged on fewer."""
    common = sorted(set.intersection(*(set(member.names.tolist()) for member in members)))
    same = []
    for member in members:
        row_of = {name: row for row, name in enumerate(member.names.tolist())}
        rows = [row_of[name] for name in common]
        arrays = {name: getattr(member, name)[rows] for name in ("names", "labels", "plain")}
        same.append(replace(member, **arrays, probabilities=member.probabilities[:, rows]))
    return same


def figures(network: Predictions, tests: Mapping[str, TestSet]) -> dict[str, dict[str, float]]:
    """Return the figures of a network on each test set by the name of the figure."""
    thresholds = {
        "accuracy at 0.5": 0.5,
        "accuracy, best on plain validation": operating_point(network.labels, network.validation),
        "accuracy, best on stressed validation": operating_point(*network.stress.pooled),
    }
    rows: dict[str, dict[str, float]] = {name: {} for name in (*thresholds, "accuracy, best possible", "AUC")}
    for name, test in tests.items():
        probabilities = network.tests[name]
        for figure, threshold in thresholds.items():
            rows[figure][name] = accuracy(test.labels, probabilities, threshold)
        candidates = (*np.unique(probabilities), np.inf)
        rows["accuracy, best possible"][name] = max(accuracy(test.labels, probabilities, each) for each in candidates)
        rows["AUC"][name] = auc(test.labels, probabilities)
    return rows


def accuracy(labels: NDArray[np.int64], probabilities: Floats, threshold: float) -> float:
    return float(np.mean((probabilities >= threshold) == labels))


def print_table(groups: Mapping[str, Sequence[Predictions]], tests: Mapping[str, TestSet]) -> None:
    """Print the figures of each group as a Markdown table."""
    print("| " + " | ".join([f"{'network':18}", f"{'figure':37}", *(f"{name:16}" for name in tests)]) + " |")
    print("| --- | --- |" + " --- |" * len(tests))
    for group, members in groups.items():
        of_members = [figures(member, tests) for member in members]
        for row, figure in enumerate(of_members[0]):
            cells = [spread([of_member[figure][name] for of_member in of_members]) for name in tests]
            print("| " + " | ".join([f"{group if row == 0 else '':18}", f"{figure:37}", *cells]) + " |")


def spread(values: Sequence[float]) -> str:
    """Return the mean, and the range of several values: `.912 (.904-.921)`, without the leading zeros."""
    low, middle, high = (f"{value:.3f}".removeprefix("0") for value in (min(values), np.mean(values), max(values)))
    return f"{middle} ({low}-{high})" if len(values) > 1 else f"{middle:16}"


if __name__ == "__main__":
    main()
