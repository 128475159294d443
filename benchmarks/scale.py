"""Measure how many trials a second one driver can take, with trials that need no time.

    python -m benchmarks.scale --trials 1000 --workers 16 --reports 1
    python -m benchmarks.scale --table

Runs a study with the real loop, engine, recorder, outbox and sender. Only the place is made up: its trials return at once,
and write into their runs what a worker writes, without a model and plots. `--storage postgresql` starts a PostgreSQL of its
own, and `--mlflow http` an MLflow server.

Prints a row for each study:

    ask, report, tell   calls a second of the engine
    ask ms              CPU milliseconds of a proposal in the first tenth of the study, and in the last
    driver ms           CPU milliseconds of the driver for a trial, without the sender and what workers write
    sender ms           CPU milliseconds for a trial of the thread that writes to MLflow
    MB                  largest resident memory of the process
    SQL                 statements of the engine for a trial
    calls               calls of MLflow's client for a trial
    writes              operations of the outbox that MLflow took in a second
    wall s              seconds until the last trial ended, and until MLflow had taken everything
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from mlflow import MlflowClient
from rich.console import Console

from pneumo.engines.engine_table import open_engine, reopen_engine
from pneumo.engines.retrying import RetryingEngine
from pneumo.search.loop import TrainingLoop
from pneumo.search.recorder import StudyRecorder
from pneumo.search.schedule import Study
from pneumo.search.screen import TrialListener
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import build_experiment
from pneumo.tracking.outbox import OUTBOXES, Outbox, open_outbox
from pneumo.tracking.sender import Sender
from pneumo.tracking.store import connect
from tests.support.mlflow_server import serve
from tests.support.postgres import programs, running
from tests.support.scripted_place import ScriptedPlace, no_pictures

SPACE = {
    "layers": {"low": 1, "high": 4},
    "filters": {"low": 8, "high": 64},
    "dropout": {"low": 0.0, "high": 0.6},
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
}

TABLE = [
    (storage, mlflow, workers, trials, reports)
    for storage, mlflow in (("sqlite", "sqlite"), ("postgresql", "http"))
    for trials in (100, 1000)
    for workers in (1, 16, 64, 256)
    for reports in (1, 10)
]
"""Storage, MLflow, simulated workers, trials and reports a trial of each row of the table."""

HEADER = (
    "| storage | MLflow | workers | trials | reports | ask /s | report /s | tell /s | ask ms, first to last | driver ms "
    "| sender ms | MB | SQL | calls | writes /s | wall s |"
)


class Figures:
    """What the calls of a study cost: seconds of the clock by call, CPU of proposals, statements, calls of MLflow."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self.proposals: list[float] = []
        self.sender_seconds = 0.0

    def read_sender(self) -> float:
        """Return the CPU seconds of the sender's thread until now."""
        for thread in threading.enumerate():
            if thread.name == "pneumo-sender" and thread.ident:
                self.sender_seconds = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        return self.sender_seconds

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the SQL statements of the engine, and the calls of MLflow's client, while the context lasts."""

        def count_statement(*_: Any) -> None:
            if threading.current_thread().name != "pneumo-sender":
                self.counts["sql"] += 1

        original = {name: getattr(MlflowClient, name) for name in CALLS}

        def counting(name: str) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                self.counts["calls"] += 1
                self.counts[f"mlflow {name}"] += 1
                return original[name](*arguments, **options)

            return call

        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", count_statement)
        for name in CALLS:
            setattr(MlflowClient, name, counting(name))
        try:
            yield
        finally:
            for name in CALLS:
                setattr(MlflowClient, name, original[name])
            sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", count_statement)


CALLS = (
    "create_run",
    "get_run",
    "log_artifacts",
    "log_batch",
    "log_inputs",
    "search_logged_models",
    "search_runs",
    "set_terminated",
)
"""The calls of MLflow's client by which an outbox is sent."""


class MeasuredEngine:
    """An `Engine` that measures the calls of another one."""

    def __init__(self, engine: Any, figures: Figures) -> None:
        self._engine, self._figures = engine, figures

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._engine, name)
        return self._measured(name, value) if callable(value) else value

    def _measured(self, name: str, method: Any) -> Any:
        def call(*arguments: Any) -> Any:
            figures = self._figures
            start, cpu = time.perf_counter(), time.process_time() - figures.read_sender()
            answer = method(*arguments)
            figures.seconds[name] += time.perf_counter() - start
            figures.counts[name] += 1
            if name == "ask":
                figures.proposals.append(time.process_time() - figures.read_sender() - cpu)
            return answer

        return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="run every row of the table, each in a process of its own")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", type=int, default=16, help="simulated workers")
    parser.add_argument("--reports", type=int, default=1, help="reports of a trial, one an epoch")
    parser.add_argument("--storage", choices=("sqlite", "postgresql"), default="sqlite", help="the study's database")
    parser.add_argument("--mlflow", choices=("sqlite", "http"), default="sqlite", help="MLflow's store, or a server")
    parser.add_argument("--algorithm", default="tpe")
    parser.add_argument("--pruner", default="none")
    parser.add_argument("--profile", action="store_true", help="print where the driver's time went")
    options = parser.parse_args()
    if options.table:
        print_table()
    else:
        print(HEADER, f"|{' --: |' * 16}", sep="\n")
        print(measure(options))


def print_table() -> None:
    """Print all rows, each from a process of its own, so that the memory is its own."""
    print(HEADER, f"|{' --: |' * 16}", sep="\n")
    for storage, mlflow, workers, trials, reports in TABLE:
        command = [sys.executable, "-m", "benchmarks.scale", f"--storage={storage}", f"--mlflow={mlflow}"]
        command += [f"--workers={workers}", f"--trials={trials}", f"--reports={reports}"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(done.stdout.splitlines()[-1], flush=True)


def measure(options: argparse.Namespace) -> str:
    """Run one study and return its row of the table."""
    experiment = build_experiment(
        {
            "name": "scale",
            "data": {"source": "phantom"},
            "hyperparameters": SPACE | {"epochs": options.reports},
            "search": {"trials": options.trials, "algorithm": options.algorithm, "pruner": options.pruner},
        },
        "benchmark",
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        storage = f"sqlite:///{folder}/studies.db"
        if options.storage == "postgresql":
            binaries = programs()
            assert binaries is not None, "PostgreSQL's server is not installed"
            storage = stack.enter_context(running(binaries)).create("scale")
        uri = stack.enter_context(serve(folder)) if options.mlflow == "http" else f"sqlite:///{folder}/mlflow.db"
        stack.enter_context(chdir(folder))
        return run_study(experiment, storage, uri, options)


def run_study(experiment: Experiment, storage: str, uri: str, options: argparse.Namespace) -> str:
    """Run the study in the current folder, and return its row of the table."""
    figures, console = Figures(), Console(file=Path("output").open("w"), width=160)  # noqa: SIM115
    store, outbox = connect(uri), open_outbox(OUTBOXES / experiment.name)
    engine: Any = RetryingEngine(
        open_engine(experiment, storage),
        lambda: reopen_engine(experiment, storage, engine.id),
        "the study's database",
        60.0,
        print,
    )
    engine = MeasuredEngine(engine, figures)
    place, profile = ScriptedPlace(options.workers), cProfile.Profile()
    with Sender(outbox, store, say=print, complain=print) as sender, figures.counted():
        recorder = StudyRecorder(store, outbox, sender, experiment, no_pictures(Path.cwd()), engine, ())
        sender.flush(60)
        figures.counts.clear()
        figures.seconds.clear()
        start, cpu = time.perf_counter(), time.process_time() - figures.read_sender()
        if options.profile:
            profile.enable()
        with TrialListener(experiment, console) as listener:
            TrainingLoop(Study(experiment.search, engine), place, recorder, listener).run(lambda: False)
        profile.disable()
        trained = time.perf_counter() - start
        used = time.process_time() - figures.read_sender() - cpu - place.worker_seconds
        sent = count_operations(outbox)
        sender.flush(600)
        arrived = time.perf_counter() - start
        figures.read_sender()
    assert len(engine.trials()) == options.trials
    if options.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(40)
        print({name: round(count / options.trials, 2) for name, count in sorted(figures.counts.items())})
    tenth = max(1, options.trials // 10)
    first, last = (sum(part) / tenth * 1000 for part in (figures.proposals[:tenth], figures.proposals[-tenth:]))
    cells: list[object] = [
        options.storage,
        options.mlflow,
        options.workers,
        options.trials,
        options.reports,
        *(f"{figures.counts[name] / max(figures.seconds[name], 1e-9):,.0f}" for name in ("ask", "report", "tell")),
        f"{first:.0f} to {last:.0f}",
        f"{used / options.trials * 1000:.0f}",
        f"{figures.sender_seconds / options.trials * 1000:.0f}",
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f}",
        f"{figures.counts['sql'] / options.trials:.1f}",
        f"{figures.counts['calls'] / options.trials:.1f}",
        f"{sent / arrived:.0f}",
        f"{trained:.1f} / {arrived:.1f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def count_operations(outbox: Outbox) -> int:
    """Return how many operations were ever appended to an outbox."""
    with outbox._database() as database:
        return int(database.execute("SELECT coalesce(max(number), 0) FROM operations").fetchone()[0] or 0)


if __name__ == "__main__":
    main()
