"""Drills: the study's database is away or the disk is full, and the real program runs on a real database and file system."""

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
    """The search in a child process. Its output is read line by line while it runs."""

    def __init__(self, *arguments: object, folder: Path, **environment: str) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (open as long as the process runs)
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
        self.output = ""

    def read_until(self, start: str) -> None:
        """Read the output up to a line that starts with `start`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if line.strip().startswith(start):
                return
        pytest.fail(f"the program ended before it printed {start!r}:\n{self.output}\n{self.errors}")

    def wait(self) -> int:
        """Read the remaining output, wait for the end and return the exit status."""
        assert self.process.stdout is not None
        self.output += self.process.stdout.read()
        return self.process.wait(LONGEST)

    @property
    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()


def complete_trials(folder: Path, trials: int = 4) -> list[tuple[dict[str, str], float]]:
    """Check that the record is complete, and return the parameters and the value of every trial, by number.

    A complete record has one finished run for each trial. All other runs are closed as killed.
    """
    parent, children = runs(folder, "small")
    assert parent.info.status == "FINISHED"
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}
    finished = [run for run in children if run.info.status == "FINISHED"]
    assert [int(run.data.tags["pneumo.trial"]) for run in finished] == list(range(trials))
    assert parent.data.metrics["trials_complete"] == trials
    return [(dict(run.data.params), run.data.metrics["best_val_auc"]) for run in finished]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, str], float]]:
    """Return the trials of a search of the same study that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = search(write(folder, hyperparameters=SPACE, search=SMALL), folder=folder)
    assert done.returncode == 0, done.stderr
    return complete_trials(folder)


def test_a_database_that_goes_away_is_waited_for_and_the_study_is_whole(
    postgres: Postgres, tmp_path: Path, undisturbed: list[tuple[dict[str, str], float]]
) -> None:
    storage = postgres.create("outages")
    experiment = write(tmp_path, hyperparameters=SPACE, search=SMALL)
    is_stopped = False

    def stop_database_after(trials: int, *options: str) -> Program:
        """Start the search, stop the database after so many finished trials, and wait until the search notices."""
        nonlocal is_stopped
        program = Program(experiment, "--storage", storage, *options, folder=tmp_path)
        program.read_until(f"{trials} of 4 done")
        postgres.stop()
        is_stopped = True
        program.read_until("Waiting for the study's database postgresql+psycopg://pneumo:***@/outages")
        return program

    try:
        # Ctrl-C ends the wait.
        waiting = stop_database_after(1)
        os.killpg(waiting.process.pid, signal.SIGINT)
        assert waiting.wait() == 130, waiting.errors
        assert "run the same command again" in waiting.output
        # No search starts while the database is away.
        refused = search(experiment, "--storage", storage, folder=tmp_path)
        assert refused.returncode == 2
        postgres.start()
        # The database does not come back within search.outage.
        ended = stop_database_after(2, "--set", "search.outage=3s")
        assert ended.wait() == 3, ended.errors
        assert "run the same command again" in ended.output
        assert ended.errors.count("\n") == 1
        assert "was unreachable for 3 s (search.outage)" in ended.errors
        postgres.start()
        # The database comes back in time.
        back = stop_database_after(3)
        postgres.start()
        is_stopped = False
        assert back.wait() == 0, back.errors
    finally:
        if is_stopped:
            postgres.start()
    assert "It is back after" in back.output
    assert back.output.count("Waiting for") == 1
    for program in (waiting, ended, back):
        assert postgres.password not in program.output + program.errors
    assert complete_trials(tmp_path) == undisturbed


def test_a_database_that_another_process_locks_is_waited_for(
    tmp_path: Path, undisturbed: list[tuple[dict[str, str], float]]
) -> None:
    program = Program(write(tmp_path, hyperparameters=SPACE, search=SMALL), folder=tmp_path)
    program.read_until("1 of 4 done")
    with closing(sqlite3.connect(tmp_path / "mlruns" / "studies.db", timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        program.read_until("Waiting for the study's database")
        connection.execute("ROLLBACK")
    assert program.wait() == 0, program.errors
    assert "(database is locked)" in program.output
    assert "It is back after" in program.output
    assert complete_trials(tmp_path) == undisturbed


@pytest.fixture
def mount_small(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return a function that mounts a small file system, or changes its options, and returns its folder."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(*options: str) -> Path:
        remount = ["remount"] if folder.is_mount() else []
        arguments = ["mount", "-t", "tmpfs", "-o", ",".join([*remount, *options]), "tmpfs", str(folder)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
        return folder

    if shutil.which("mount") is None:
        pytest.skip("no small file system can be mounted here: there is no mount")
    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("full", ["everything", "all but the study's database"])
def test_a_full_disk_ends_the_search_and_the_same_command_resumes_the_study(
    full: str, mount_small: Callable[..., Path], tmp_path: Path, undisturbed: list[tuple[dict[str, str], float]]
) -> None:
    folder = mount_small("size=40m")
    storage_elsewhere = ["--storage", f"sqlite:///{tmp_path}/elsewhere/studies.db"]
    options = ["--set", "search.outage=3s", *(storage_elsewhere if full != "everything" else [])]
    program = Program(write(folder, hyperparameters=SPACE, search=SMALL), *options, folder=folder)
    program.read_until("1 of 4 done")
    while not is_second_trial_training(folder):
        assert program.process.poll() is None
    fill_disk(folder / "ballast")
    assert program.wait() == 3, program.errors
    assert program.errors.count("\n") == 1
    assert f"the file system at {folder} is full" in program.errors
    assert "run the same command again" in program.output
    (folder / "ballast").unlink()
    _, children = runs(folder, "small")
    assert "pneumo.error" not in {tag for run in children for tag in run.data.tags}

    done = search("experiment.yaml", *options, folder=folder)
    assert done.returncode == 0, done.stderr
    assert complete_trials(folder) == undisturbed


def test_a_cache_that_is_full_is_refused_before_anything_begins(
    mount_small: Callable[..., Path], tmp_path: Path
) -> None:
    cache = mount_small("size=64k")
    experiment = write(tmp_path, hyperparameters={"image_size": 96}, search={"trials": 1, "baseline": False})
    refused = search(experiment, folder=tmp_path, PNEUMO_CACHE=str(cache))
    assert refused.returncode == 2
    assert f"disk: {cache} has 66 KB free, and this study writes at least" in refused.stderr
    assert "set PNEUMO_CACHE to a folder on another file system" in refused.stderr
    dry_run = search(experiment, "--dry-run", folder=tmp_path, PNEUMO_CACHE=str(cache))
    assert f"under {cache}, where 66 KB are free (decoded pictures" in dry_run.stdout

    # Enough bytes are free, but no inode: the search notices only when it writes the first decoded picture.
    used = os.statvfs(cache)
    mount_small("size=4m", f"nr_inodes={used.f_files - used.f_ffree}")
    ended = search(experiment, folder=tmp_path, PNEUMO_CACHE=str(cache))
    assert ended.returncode == 2
    assert "the cache cannot be written: No space left on device; make room there, or set PNEUMO_CACHE" in ended.stderr
    assert client(tmp_path).get_experiment_by_name("small") is None

    mount_small("nr_inodes=100")
    done = search(experiment, folder=tmp_path, PNEUMO_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    complete_trials(tmp_path, 1)


def test_only_the_best_models_are_kept_and_none_that_is_registered_is_lost(project: Path) -> None:
    import mlflow

    experiment = write(project, hyperparameters=SPACE, search={"trials": 3})
    assert search(experiment, folder=project).returncode == 0
    store = client(project)
    _, first_trials = runs(project, "small")
    registered = min(first_trials[1:], key=objective)
    store.create_registered_model("somebody's")
    store.create_model_version("somebody's", f"models:/{model_id(registered)}")

    keep = ("--set", "search.keep.best=2", "--trials", 6)
    done = search(experiment, *keep, folder=project)
    assert done.returncode == 0, done.stderr
    _, trials = runs(project, "small")
    best = sorted(trials, key=lambda run: (-objective(run), int(run.data.tags["pneumo.trial"])))[:2]
    stored = {model_id(run) for run in (trials[0], registered, *best)}  # the baseline's model stays too
    removed = [run for run in trials if model_id(run) not in stored]
    assert removed
    assert registered.info.run_id not in {run.info.run_id for run in best}
    logged = store.search_logged_models([trials[0].info.experiment_id])
    assert {model.model_id for model in logged} == stored
    files = {path.parent.parent.name for path in project.glob("mlruns/*/models/*/artifacts/MLmodel")}
    assert files == stored
    for model in stored:
        mlflow.pyfunc.load_model(f"models:/{model}")
    for run in removed:
        assert "not among the best 2 (search.keep)" in run.data.tags["pneumo.model_removed"]
        assert {file.path for file in store.list_artifacts(run.info.run_id)} >= {
            "plots",
            "history.csv",
            "predictions.csv",
        }
    assert "pneumo.model_removed" not in {tag for run in (trials[0], registered, *best) for tag in run.data.tags}

    checked = search("--check", "small", folder=project)
    assert (checked.returncode, checked.stdout) == (0, "Study small: 6 trials, 7 runs, no faults.\n")
    refused = called("promote", removed[0].info.run_id, folder=project)
    assert refused.returncode == 2
    assert "was removed: not among the best 2 (search.keep)" in refused.stderr


def is_second_trial_training(folder: Path) -> bool:
    """Return whether a trial after the first one has finished an epoch."""
    last = runs(folder, "small")[1][-1]
    return int(last.data.tags["pneumo.trial"]) > 0 and "val_auc" in last.data.metrics


def objective(run: Run) -> float:
    return float(run.data.metrics["best_val_auc"])


def model_id(run: Run) -> str:
    """Return the id of the model that a trial logged, even if the model was removed."""
    assert run.outputs is not None
    (output,) = run.outputs.model_outputs
    return str(output.model_id)


def fill_disk(ballast: Path) -> None:
    """Write to a file until its file system is full."""
    with ballast.open("wb") as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    os.write(file.fileno(), bytes(size))
            except OSError:
                continue
