"""Searches in unusual places: odd names and locales, folders that are read-only or very large, a clock that is set back."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from pneumo.engines.engine_table import stored_studies
from tests.support.pictures import archive_files, encoded, write_folder
from tests.support.program import LONGEST, called, check_study, client, command, runs, search, write

pytestmark = pytest.mark.slow

NAME = "Röntgen 肺 data"

LOCALES = {
    "LANG=C": {"LANG": "C"},
    "ASCII only": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


def pictures(folder: Path) -> Path:
    """Write a few small pictures in the archive's layout into a folder with an odd name, and return their folder."""
    return write_folder(folder / NAME, archive_files(patients=12)) / "chest_xray"


def experiment(folder: Path, **options: object) -> Path:
    return write(
        folder, data={"source": "kaggle", "validation": 0.3}, search={"trials": 1, "baseline": False} | options
    )


@pytest.mark.parametrize("locale", LOCALES.values(), ids=LOCALES.keys())
def test_odd_names_in_odd_locales(tmp_path: Path, locale: dict[str, str]) -> None:
    project = tmp_path / f"{NAME} project"
    project.mkdir()
    data = pictures(tmp_path)
    clean = dict.fromkeys(("LANG", "LC_ALL", "LC_CTYPE"), "") | locale
    file = experiment(project)
    for arguments in (["--dry-run"], []):
        done = search(file.name, "--data", data, *arguments, folder=project, **clean)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    check_study(project, "small", 1)
    parent, (trial,) = runs(project, "small")
    stored_experiment = client(project).download_artifacts(parent.info.run_id, "experiment.yaml", str(tmp_path))
    assert yaml.safe_load(Path(stored_experiment).read_text(encoding="utf-8"))["data"]["path"] == str(data)
    assert trial.inputs is not None
    sources = [yaml.safe_load(entry.dataset.source) for entry in trial.inputs.dataset_inputs]
    assert {NAME in source["uri"] for source in sources} == {True}
    audit = called("data", "audit", data, folder=project, **clean)
    assert audit.returncode == 0, audit.stderr
    checked = search("--check", "small", folder=project, **clean)
    assert checked.stdout == "Study small: 1 trial, 2 runs, no faults.\n", checked.stderr


def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    folders = [path for path in (data, *data.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    # The file system lets root write everywhere. Without its capabilities root is an ordinary user.
    unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    try:
        touched = subprocess.run([*unprivileged, "touch", data / "a"], capture_output=True, check=False)
        if touched.returncode == 0:
            pytest.skip("this user can write everywhere, even under setpriv")
        for arguments in (
            command(experiment(tmp_path), "--data", data),
            command("audit", data, "--to", tmp_path, verb="data"),
        ):
            done = subprocess.run(
                [*unprivileged, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=LONGEST
            )
            assert done.returncode == 0, done.stdout + done.stderr
        check_study(tmp_path, "small", 1)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert sorted(path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()) == sorted(
        archive_files(patients=12)
    )


def test_a_folder_of_a_hundred_thousand_files(tmp_path: Path) -> None:
    """A dry run lists the files and computes their digests. It decodes none."""
    picture = encoded(size=(8, 8))
    for number in range(100_000):
        part, patient = ("test", 60_000 + number) if number % 10 == 0 else ("train", number // 2)
        label, stem = (
            ("PNEUMONIA", f"person{patient}_virus_{number}") if number % 3 else ("NORMAL", f"IM-{patient}-{number}")
        )
        path = tmp_path / "data" / part / label / f"{stem}.jpeg"
        if number < 30:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture + number.to_bytes(4, "big"))
    start = time.monotonic()
    first = search(experiment(tmp_path), "--data", tmp_path / "data", "--dry-run", folder=tmp_path)
    middle = time.monotonic()
    assert first.returncode == 0, first.stderr
    assert "test 10,000" in first.stdout
    second = search(experiment(tmp_path), "--data", tmp_path / "data", "--dry-run", folder=tmp_path)
    assert second.stdout == first.stdout
    print(
        f"\n--dry-run on 100,000 files: {middle - start:.1f} s, and {time.monotonic() - middle:.1f} s the second time"
    )


CLOCK = """
import os, time
_time, _time_ns = time.time, time.time_ns
_back = lambda: 3600 if os.path.exists(os.environ["CLOCK_SET_BACK"]) else 0
time.time = lambda: _time() - _back()
time.time_ns = lambda: _time_ns() - _back() * 10**9
"""
"""A `sitecustomize` module that sets the clock back by an hour as soon as a certain file exists."""


@pytest.fixture
def clock(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Return the environment of a process with this clock, and the file that sets it back."""
    folder, set_back = tmp_path / "clock", tmp_path / "set-back"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CLOCK)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "CLOCK_SET_BACK": str(set_back)}, set_back


def test_a_clock_that_is_set_back(tmp_path: Path, clock: tuple[dict[str, str], Path]) -> None:
    environment, set_back = clock
    file = write(tmp_path, hyperparameters={"filters": [2, 4, 6, 8], "epochs": 2}, search={"trials": 5, "patience": 50})
    first = search(file, "--trials", 2, folder=tmp_path, **environment)
    assert first.returncode == 0, first.stderr
    program = subprocess.Popen(
        command(file, "--timeout", "20m"),
        cwd=tmp_path,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    for line in program.stdout:
        if " complete " in line:  # the next trial is under way
            set_back.touch()
            break
    _, errors = program.communicate(timeout=LONGEST)
    assert program.returncode == 0, errors
    check_study(tmp_path, "small", 5)
    checked = search("--check", "small", folder=tmp_path)
    assert checked.stdout == "Study small: 5 trials, 6 runs, no faults.\n"
    (engine,) = stored_studies("small", f"sqlite:///{tmp_path}/mlruns/studies.db")
    times = [(trial.result.started, trial.result.ended) for trial in engine.trials]
    assert all(0 < ended - started < 600 for started, ended in times)
    assert times == sorted(times)
    for run in runs(tmp_path, "small")[1]:
        assert 0 < run.data.metrics["train_seconds"] < 600
        assert run.info.start_time <= run.info.end_time
