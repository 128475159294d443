"""Race pneumo against what people search hyperparameters with today.

    python -m venv peers && peers/bin/pip install -r benchmarks/peers/requirements.txt
    python benchmarks/race.py --data chest-xray-pneumonia.zip --peers peers/bin/python --picture race.png

Every contestant searches the same space on the same training and validation pictures for the same number of seconds, one
after another, with each seed: pneumo with its defaults, and the programs in `benchmarks/peers`, which do what the guides of
their libraries show. A seed also chooses the split. The space: 1 to 4 layers, 16, 32 or 64 filters, pictures of 64 or 96
pixels, a dropout of 0 to 0.5, a learning rate of 0.0001 to 0.01; at most 10 epochs. Pictures are mirrored at random and
otherwise not augmented, because Keras' layers and the tutorial's generator zoom and shear in different ways, which moves the
AUC by more than a search does. Let nothing else run meanwhile.

A contestant's time starts with its process: imports, reading the pictures and creating databases are part of it. At the end
it is sent Ctrl-C, then killed if it is not gone after a minute. Only epochs that ended in time count.

Prints the best validation AUC of each (mean over the seeds); the seconds until it reached the value that all reached with
that seed; the trainings, epochs and memory (of all its processes, shared pages counted once) at the end; and what MLflow has
of the trainings afterwards. `--picture` draws the best AUC so far over the seconds. Runs are kept in the file of `--results`:
the same command continues an interrupted race.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import psutil
import yaml
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Run

from pneumo.data.sources import source_at
from pneumo.data.split import split

VALIDATION = 0.12
"""Share of the training pool's patients that validate."""

PATIENCE = 60
"""Seconds that a contestant has after Ctrl-C before it is killed."""

PEERS = {
    "Optuna, MLflow autologging": "optuna_mlflow.py",
    "Keras Tuner Hyperband, MLflow autologging": "keras_tuner_mlflow.py",
    "random search, Keras alone": "random_keras.py",
    "Ray Tune ASHA, MLflow callback": "ray_tune_asha.py",
}
PNEUMO = "pneumo"

SPACE = {
    "layers": {"low": 1, "high": 4},
    "filters": [16, 32, 64],
    "image_size": [64, 96],
    "dropout": {"low": 0.0, "high": 0.5},
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "zoom": 0.0,
    "shear": 0.0,
}


@dataclass(frozen=True)
class Event:
    """The end of an epoch.

    Attributes:
        seconds: Time since the contestant's start.
        trial: Identifies the training.
        auc: Validation AUC after the epoch.
    """

    seconds: float
    trial: str
    auc: float


@dataclass(frozen=True)
class Outcome:
    """What one contestant did with one seed.

    Attributes:
        events: The epochs that ended in time, in that order.
        megabytes: Memory of all its processes just before the end.
        record: Number of the runs in MLflow by what they have.
    """

    contestant: str
    seed: int
    seconds: int
    events: tuple[Event, ...]
    megabytes: float
    record: dict[str, int]

    def best(self, seconds: float) -> float:
        """Return the best AUC up to that time, or nan if no epoch has ended by then."""
        return max((event.auc for event in self.events if event.seconds <= seconds), default=float("nan"))

    def until(self, auc: float) -> float:
        """Return the seconds after which an epoch reached the AUC."""
        return next(event.seconds for event in self.events if event.auc >= auc)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="the archive: a zip or a folder")
    parser.add_argument("--peers", required=True, type=Path, help="the Python of the peers' environment")
    parser.add_argument("--seconds", type=int, default=1200, help="time of each contestant with each seed")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--results", type=Path, default=Path("race.jsonl"), help="file of the runs so far")
    parser.add_argument("--picture", type=Path, help="PNG file to draw")
    options = parser.parse_args()
    # A shell starts background jobs with Ctrl-C ignored, and the contestants would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    outcomes = read_outcomes(options.results, options.seconds)
    finished = {(outcome.contestant, outcome.seed) for outcome in outcomes}
    for seed in range(options.seeds):
        names = [PNEUMO, *PEERS]
        for name in names[seed % len(names) :] + names[: seed % len(names)]:
            if (name, seed) in finished:
                continue
            print(f"seed {seed}: {name}", file=sys.stderr, flush=True)
            outcome = race(name, seed, options)
            with options.results.open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
            outcomes.append(outcome)
    print_tables(outcomes)
    if options.picture:
        draw(outcomes, options.picture)


def read_outcomes(path: Path, seconds: int) -> list[Outcome]:
    """Return the runs of so many seconds that the file has."""
    lines = path.read_text().splitlines() if path.exists() else []
    outcomes = [
        Outcome(**values | {"events": tuple(Event(**event) for event in values["events"])})
        for values in map(json.loads, lines)
    ]
    return [outcome for outcome in outcomes if outcome.seconds == seconds]


def race(name: str, seed: int, options: argparse.Namespace) -> Outcome:
    """Run one contestant with one seed in a new folder."""
    with tempfile.TemporaryDirectory(prefix="race-", ignore_cleanup_errors=True) as folder_name:
        folder = Path(folder_name)
        if name == PNEUMO:
            command, read_events = prepare_pneumo(folder, seed, options.data.resolve())
        else:
            command, read_events = prepare_peer(folder, seed, options, PEERS[name])
        removed = ("MLFLOW_TRACKING_URI", "PNEUMO_STORAGE", "PYTHONPATH")
        environment = {key: value for key, value in os.environ.items() if key not in removed}
        environment |= {"PNEUMO_CACHE": str(folder / "cache"), "TF_CPP_MIN_LOG_LEVEL": "2"}
        (folder / "work").mkdir()
        start = time.time()
        with (folder / "output.txt").open("w") as output:
            program = subprocess.Popen(
                command,
                cwd=folder / "work",
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            ended_early = ends_within(program, options.seconds)
            megabytes = 0.0 if ended_early else memory(program)
            stop(program)
        events = sorted(
            (event for event in read_events(start) if event.seconds <= options.seconds),
            key=lambda event: event.seconds,
        )
        if ended_early or not events:
            sys.exit(
                f"{name} ended after {time.time() - start:.0f} s, {len(events)} epochs:\n"
                + (folder / "output.txt").read_text()[-5000:]
            )
        record = what_mlflow_has(folder / "work" / "mlflow.db")
        return Outcome(name, seed, options.seconds, tuple(events), megabytes, record)


Events = Callable[[float], list[Event]]
"""Takes the start of a contestant in Unix seconds. Returns its epochs."""


def prepare_pneumo(folder: Path, seed: int, data: Path) -> tuple[list[str], Events]:
    experiment = {
        "name": "race",
        "data": {"source": "kaggle", "path": str(data), "validation": VALIDATION},
        "hyperparameters": SPACE,
        "search": {"trials": 1000, "seed": seed},
    }
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))

    def read(start: float) -> list[Event]:
        client = MlflowClient(f"sqlite:///{folder}/work/mlflow.db")
        return [
            Event(point.timestamp / 1000 - start, run.info.run_id, point.value)
            for run in all_runs(client)
            if run.data.tags["pneumo.role"] == "trial"
            for point in client.get_metric_history(run.info.run_id, "val_auc")
        ]

    return [sys.executable, "-m", "pneumo.search", str(folder / "experiment.yaml")], read


def prepare_peer(folder: Path, seed: int, options: argparse.Namespace, program: str) -> tuple[list[str], Events]:
    """Write the pictures of the split into folders, for `image_dataset_from_directory`."""
    source = source_at(str(options.data), "kaggle")
    parts = dict(zip(("train", "val"), split(source.pictures, VALIDATION, seed), strict=True))
    for part, indices in parts.items():
        for label in source.classes:
            (folder / "pictures" / part / label).mkdir(parents=True)
        for index in indices:
            picture = source.pictures[index]
            path = folder / "pictures" / part / source.classes[picture.label] / PurePosixPath(picture.name).name
            if path.exists():
                sys.exit(f"{options.data}: two pictures are named {path.name}")
            path.write_bytes(source.encoded(picture))
    events = folder / "events.jsonl"
    command = [str(options.peers.absolute()), str(Path(__file__).resolve().parent / "peers" / program)]
    command += ["--pictures", str(folder / "pictures"), "--events", str(events), "--seed", str(seed)]

    def read(start: float) -> list[Event]:
        lines = events.read_text().splitlines() if events.exists() else []
        return [Event(line["time"] - start, line["trial"], line["auc"]) for line in map(json.loads, lines)]

    return command, read


def ends_within(program: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        program.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def memory(program: subprocess.Popen[bytes]) -> float:
    """Return the memory of the program and its children in MB. Pages that several share count once in all."""
    process, total = psutil.Process(program.pid), 0.0
    for member in (process, *process.children(recursive=True)):
        try:
            total += member.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def stop(program: subprocess.Popen[bytes]) -> None:
    """Send Ctrl-C, and kill what is left of the program after a while."""
    if program.poll() is not None:
        return
    process = psutil.Process(program.pid)
    family = [process, *process.children(recursive=True)]
    program.send_signal(signal.SIGINT)
    ends_within(program, PATIENCE)
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    program.wait()


def all_runs(client: MlflowClient) -> list[Run]:
    experiment = client.get_experiment_by_name("race")
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id], max_results=50_000))


def what_mlflow_has(database: Path) -> dict[str, int]:
    """Return the number of the runs that trained, and how many of them have each part of a record."""
    counts = dict.fromkeys(
        ("runs", "left RUNNING", "a parent", "hyperparameters", "every epoch", "a plot", "a model"), 0
    )
    if not database.exists():
        return counts
    client = MlflowClient(f"sqlite:///{database}")
    runs = [run for run in all_runs(client) if "val_auc" in run.data.metrics]
    experiments = sorted({run.info.experiment_id for run in runs})
    models = {model.source_run_id for model in client.search_logged_models(experiments)} if experiments else set()
    for run in runs:
        files = files_of(client, run.info.run_id)
        has = {
            "runs": True,
            "left RUNNING": run.info.status == "RUNNING",
            "a parent": "mlflow.parentRunId" in run.data.tags,
            "hyperparameters": "learning_rate" in run.data.params,
            "every epoch": len(client.get_metric_history(run.info.run_id, "val_auc")) > 1,
            "a plot": any(file.endswith(".png") for file in files),
            "a model": run.info.run_id in models or "model/MLmodel" in files,
        }
        for part, present in has.items():
            counts[part] += present
    return counts


def files_of(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    """Return the paths of the artifacts of a run."""
    found: list[str] = []
    for item in client.list_artifacts(run_id, folder):
        found += files_of(client, run_id, item.path) if item.is_dir else [item.path]
    return found


def print_tables(outcomes: Sequence[Outcome]) -> None:
    names = list(dict.fromkeys(outcome.contestant for outcome in outcomes))
    seeds = sorted({outcome.seed for outcome in outcomes})
    targets = {
        seed: min(outcome.best(outcome.seconds) for outcome in outcomes if outcome.seed == seed) for seed in seeds
    }
    print("\nvalues that all reach: " + ", ".join(f"{targets[seed]:.4f} (seed {seed})" for seed in seeds))
    print(f"{'':42} best AUC  seconds until then: mean (by seed)    trainings  epochs      MB")
    for name in names:
        own = [outcome for outcome in outcomes if outcome.contestant == name]
        waits = [outcome.until(targets[outcome.seed]) for outcome in own]
        by_seed = ", ".join(f"{wait:.0f}" for wait in waits)
        trainings = statistics.mean(len({event.trial for event in outcome.events}) for outcome in own)
        epochs = statistics.mean(len(outcome.events) for outcome in own)
        best = statistics.mean(outcome.best(outcome.seconds) for outcome in own)
        megabytes = statistics.mean(outcome.megabytes for outcome in own)
        times = f"{statistics.mean(waits):.0f} ({by_seed})"
        print(f"{name:42} {best:8.4f}  {times:38} {trainings:10.1f} {epochs:7.1f} {megabytes:7.0f}")
    print("\nin MLflow afterwards, all seeds: runs that trained, and how many of them have")
    for name in names:
        records = [outcome.record for outcome in outcomes if outcome.contestant == name]
        total = {part: sum(record[part] for record in records) for part in records[0]}
        print(f"{name:42} " + ", ".join(f"{part} {count}" for part, count in total.items()))


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw the best AUC so far, mean over the seeds, over the seconds."""
    figure = Figure(figsize=(6.4, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    seconds = range(1, outcomes[0].seconds + 1)
    highest = 0.0
    for name in dict.fromkeys(outcome.contestant for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.contestant == name]
        curve = np.mean([[outcome.best(second) for second in seconds] for outcome in own], axis=0)
        style = {"linewidth": 2.5, "color": "#D55E00"} if name == PNEUMO else {"linewidth": 1.2}
        axes.plot(seconds, curve, label=name, **style)
        highest = max(highest, curve[-1])
    seeds = len({outcome.seed for outcome in outcomes})
    axes.set(xlabel="seconds", ylabel=f"best validation AUC so far, mean of {seeds} seeds")
    axes.set_ylim(highest - 0.03, highest + 0.002)  # a poor first epoch would hide the differences
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    main()
