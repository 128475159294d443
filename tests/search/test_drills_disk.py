"""Outages of the study's database and full disks: the real program, a real database, a real small file system."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.entities import Run

from tests.support.postgres import Postgres
from tests.support.program import LONGEST, called, client, command, runs, search, write

pytestmark = pytest.mark.slow

SPACE = {"filters": [2, 4, 8], "learning_rate": {"low": 0.001, "high": 0.01, "log": True}, "epochs": 3}
SMALL = {"trials": 4, "baseline": False}


class Program:
    """The program in a child process, whose lines are read while it runs."""

    def __init__(self, *arguments: object, folder: Path, **environment: str) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (as long as the process)
        self.process = subprocess.Popen(
            command(*arguments),
            cwd=folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.said = ""

    def until(self, begin: str) -> None:
        """Reads on to a line that begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line.strip().startswith(begin):
                return
        pytest.fail(f"the program ended before it said {begin!r}:\n{self.said}\n{self.errors}")

    def end(self) -> int:
        """The exit status, when all is read."""
        assert self.process.stdout is not None
        self.said += self.process.stdout.read()
        return self.process.wait(LONGEST)

    @property
    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()


def values(folder: Path, trials: int = 4) -> list[tuple[dict[str, str], float]]:
    """Parameters and value of every trial of a whole record: one finished run for each number, none left running."""
    parent, children = runs(folder, "small")
    assert parent.info.status == "FINISHED"
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}
    finished = [run for run in children if run.info.status == "FINISHED"]
    assert [int(run.data.tags["pneumo.trial"]) for run in finished] == list(range(trials))
    assert parent.data.metrics["trials_complete"] == trials
    return [(dict(run.data.params), run.data.metrics["best_val_auc"]) for run in finished]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, str], float]]:
    """What a search finds that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = search(write(folder, hyperparameters=SPACE, search=SMALL), folder=folder)
    assert done.returncode == 0, done.stderr
    return values(folder)


def test_a_database_that_goes_away_is_waited_for_and_the_study_is_whole(
    postgres: Postgres, tmp_path: Path, undisturbed: list[tuple[dict[str, str], float]]
) -> None:
    storage = postgres.create("outages")
    experiment = write(tmp_path, hyperparameters=SPACE, search=SMALL)
    stopped = False

    def interrupted_at(trial: int, *options: str) -> Program:
        nonlocal stopped
        program = Program(experiment, "--storage", storage, *options, folder=tmp_path)
        program.until(f"{trial}/4")
        postgres.stop()
        stopped = True
        program.until("Waiting for the study's database postgresql+psycopg://pneumo:***@/outages")
        return program

    try:
        # Ctrl-C while it waits.
        waiting = interrupted_at(1)
        os.killpg(waiting.process.pid, signal.SIGINT)
        assert waiting.end() == 130, waiting.errors
        assert "run the same command again" in waiting.said
        # Nothing begins while it is away.
        refused = search(experiment, "--storage", storage, folder=tmp_path)
        assert refused.returncode == 2
        postgres.start()
        # It does not come back in time.
        ended = interrupted_at(2, "--set", "search.outage=3s")
        assert ended.end() == 3, ended.errors
        assert "run the same command again" in ended.said
        assert ended.errors.count("\n") == 1
        assert "was unreachable for 3 s (search.outage)" in ended.errors
        postgres.start()
        # It does.
        back = interrupted_at(3)
        postgres.start()
        stopped = False
        assert back.end() == 0, back.errors
    finally:
        if stopped:
            postgres.start()
    assert "It is back after" in back.said
    assert back.said.count("Waiting for") == 1
    for program in (waiting, ended, back):
        assert postgres.password not in program.said + program.errors
    assert values(tmp_path) == undisturbed


def test_a_database_that_another_process_locks_is_waited_for(
    tmp_path: Path, undisturbed: list[tuple[dict[str, str], float]]
) -> None:
    program = Program(write(tmp_path, hyperparameters=SPACE, search=SMALL), folder=tmp_path)
    program.until("1/4")
    with closing(sqlite3.connect(tmp_path / "mlruns" / "studies.db", timeout=60, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        program.until("Waiting for the study's database")
        other.execute("ROLLBACK")
    assert program.end() == 0, program.errors
    assert "(database is locked)" in program.said
    assert "It is back after" in program.said
    assert values(tmp_path) == undisturbed


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a small file system, or changes the options of the one that is mounted; its folder."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(*options: str) -> Path:
        again = ["remount"] if folder.is_mount() else []
        call = ["mount", "-t", "tmpfs", "-o", ",".join([*again, *options]), "tmpfs", str(folder)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
        return folder

    if shutil.which("mount") is None:
        pytest.skip("no small file system can be mounted here: there is no mount")
    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("full", ["everything", "all but the study's database"])
def test_a_full_disk_ends_the_search_and_the_same_command_goes_on(
    full: str, small: Callable[..., Path], tmp_path: Path, undisturbed: list[tuple[dict[str, str], float]]
) -> None:
    folder = small("size=40m")
    elsewhere = f"sqlite:///{tmp_path}/elsewhere/studies.db"
    options = ["--set", "search.outage=3s", *(["--storage", elsewhere] if full != "everything" else [])]
    program = Program(write(folder, hyperparameters=SPACE, search=SMALL), *options, folder=folder)
    program.until("1/4")
    while not under_way(folder):
        assert program.process.poll() is None
    fill(folder / "ballast")
    assert program.end() == 3, program.errors
    assert program.errors.count("\n") == 1
    assert f"the file system at {folder} is full" in program.errors
    assert "run the same command again" in program.said
    (folder / "ballast").unlink()
    _, children = runs(folder, "small")
    assert "pneumo.error" not in {tag for run in children for tag in run.data.tags}

    done = search("experiment.yaml", *options, folder=folder)
    assert done.returncode == 0, done.stderr
    assert values(folder) == undisturbed


def test_a_cache_that_is_full_is_refused_before_anything_begins(small: Callable[..., Path], tmp_path: Path) -> None:
    cache = small("size=64k")
    experiment = write(tmp_path, hyperparameters={"image_size": 96}, search={"trials": 1, "baseline": False})
    refused = search(experiment, folder=tmp_path, PNEUMO_CACHE=str(cache))
    assert refused.returncode == 2
    assert f"disk: {cache} has 66 KB free, and this study writes at least" in refused.stderr
    assert "set PNEUMO_CACHE to a folder on another file system" in refused.stderr
    shown = search(experiment, "--dry-run", folder=tmp_path, PNEUMO_CACHE=str(cache))
    assert f"under {cache}, where 66 KB are free (decoded pictures" in shown.stdout

    # Room for bytes, but for no file: what free space does not tell shows while pictures are decoded.
    used = os.statvfs(cache)
    small("size=4m", f"nr_inodes={used.f_files - used.f_ffree}")
    ended = search(experiment, folder=tmp_path, PNEUMO_CACHE=str(cache))
    assert ended.returncode == 2
    assert "the cache cannot be written: No space left on device; make room there, or set PNEUMO_CACHE" in ended.stderr
    assert client(tmp_path).get_experiment_by_name("small") is None

    small("nr_inodes=100")
    done = search(experiment, folder=tmp_path, PNEUMO_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    values(tmp_path, 1)


def test_only_the_best_models_are_kept_and_none_that_is_registered_is_lost(project: Path) -> None:
    import mlflow

    experiment = write(project, hyperparameters=SPACE, search={"trials": 3})
    assert search(experiment, folder=project).returncode == 0
    store = client(project)
    _, first = runs(project, "small")
    registered = min(first[1:], key=value)
    store.create_registered_model("somebody's")
    store.create_model_version("somebody's", f"models:/{model(registered)}")

    keep = ("--set", "search.keep.best=2", "--trials", 6)
    done = search(experiment, *keep, folder=project)
    assert done.returncode == 0, done.stderr
    _, trials = runs(project, "small")
    best = sorted(trials, key=lambda run: (-value(run), int(run.data.tags["pneumo.trial"])))[:2]
    staying = {model(run) for run in (trials[0], registered, *best)}
    removed = [run for run in trials if model(run) not in staying]
    assert removed
    assert registered.info.run_id not in {run.info.run_id for run in best}
    there = store.search_logged_models([trials[0].info.experiment_id])
    assert {one.model_id for one in there} == staying
    files = {path.parent.parent.name for path in project.glob("mlruns/*/models/*/artifacts/MLmodel")}
    assert files == staying
    for one in staying:
        mlflow.pyfunc.load_model(f"models:/{one}")
    for run in removed:
        assert "not among the best 2 (search.keep)" in run.data.tags["pneumo.model_removed"]
        assert {file.path for file in store.list_artifacts(run.info.run_id)} >= {
            "plots",
            "history.csv",
            "predictions.csv",
        }
    assert "pneumo.model_removed" not in {tag for run in (trials[0], registered, *best) for tag in run.data.tags}

    checked = search("--check", "small", folder=project)
    assert (checked.returncode, checked.stdout) == (0, "Study small: 6 trials, 7 runs, whole.\n")
    refused = called("promote", removed[0].info.run_id, folder=project)
    assert refused.returncode == 2
    assert "was removed: not among the best 2 (search.keep)" in refused.stderr


def under_way(folder: Path) -> bool:
    """Whether a trial after the first one has finished an epoch."""
    last = runs(folder, "small")[1][-1]
    return int(last.data.tags["pneumo.trial"]) > 0 and "val_auc" in last.data.metrics


def value(run: Run) -> float:
    return float(run.data.metrics["best_val_auc"])


def model(run: Run) -> str:
    """The id of the model that a trial logged, there or not."""
    assert run.outputs is not None
    (output,) = run.outputs.model_outputs
    return str(output.model_id)


def fill(ballast: Path) -> None:
    """Leaves no room on the file system of a file."""
    with ballast.open("wb") as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    os.write(file.fileno(), bytes(size))
            except OSError:
                continue
