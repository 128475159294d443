"""`python -m pneumo.search` as a user runs it: the real program, on phantoms, on real pictures, and with wrong requests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.support.in_process import RunHere
from tests.support.program import LONGEST, check_study, check_trial, client, command, runs, search, write


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Return the folder of a study of two trials, its experiment file and the output of the search."""
    folder = tmp_path_factory.mktemp("a folder, ünïcode")
    space = {"layers": [1, 2], "learning_rate": {"low": 0.001, "high": 0.01}, "epochs": 2}
    experiment = write(folder, hyperparameters=space, search={"trials": 2})
    done = search(experiment, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, experiment, done.stdout


def test_a_study_is_recorded_in_mlflow(study: tuple[Path, Path, str]) -> None:
    folder, _, output = study
    children = check_study(folder, "small", 2)
    for run in children:
        check_trial(folder, run)
    # The first trial is the tutorial's network, whatever the space says.
    assert children[0].data.params["layers"] == "1"
    assert children[0].data.params["image_size"] == "64"
    assert "The best 2 of 2 trials" in output
    assert "tutorial's network" in output or "tutorial's own network" in output
    assert "phantoms" in output
    assert "mlflow ui" in output


def test_the_same_command_again_does_nothing_and_more_trials_resume_the_study(study: tuple[Path, Path, str]) -> None:
    folder, experiment, _ = study
    before = [run.info.run_id for run in runs(folder, "small")[1]]
    repeated = search(experiment, folder=folder)
    assert repeated.returncode == 0
    assert "has its 2 trials already" in repeated.stdout
    assert [run.info.run_id for run in runs(folder, "small")[1]] == before

    more = search(experiment, "--trials", 3, folder=folder)
    assert more.returncode == 0, more.stderr
    children = check_study(folder, "small", 3)
    assert [run.info.run_id for run in children][:2] == before


def test_a_study_that_was_killed_before_it_was_closed_is_closed(study: tuple[Path, Path, str]) -> None:
    folder, experiment, _ = study
    parent, children = runs(folder, "small")
    for run in (parent, children[-1]):
        client(folder).update_run(run.info.run_id, status="RUNNING")
    repeated = search(experiment, "--trials", len(children), folder=folder)
    assert repeated.returncode == 0, repeated.stderr
    check_study(folder, "small", len(children))
    assert {run.info.status for run in runs(folder, "small")[1]} == {"FINISHED"}


def test_a_changed_study_is_refused_with_the_difference(study: tuple[Path, Path, str], run_here: RunHere) -> None:
    folder, experiment, _ = study
    space = run_here("search", experiment, "--trials", 9, "--set", "layers=[1, 3]", folder=folder)
    assert space.returncode == 2
    assert "hyperparameters.layers was [1, 2], now [1, 3]" in space.stderr
    assert "; with --set search.from=small the new study learns from the trials of this one" in space.stderr
    pictures = run_here("search", experiment, "--trials", 9, "--set", "data.phantom.seed=1", folder=folder)
    assert pictures.returncode == 2
    assert "data.phantom was" in pictures.stderr
    assert "search.from" not in pictures.stderr  # it refuses other validation pictures
    store = run_here(
        "search", experiment, "--trials", 9, folder=folder, MLFLOW_TRACKING_URI=f"sqlite:///{folder}/other.db"
    )
    assert store.returncode == 2
    assert "not in this MLflow store" in store.stderr
    database = run_here(
        "search", experiment, "--trials", 9, "--storage", f"sqlite:///{folder}/other-studies.db", folder=folder
    )
    assert database.returncode == 2
    assert "whose trials are in another database" in database.stderr


def test_ctrl_c_closes_the_trial_and_the_same_command_resumes_the_study(tmp_path: Path) -> None:
    experiment = write(tmp_path, hyperparameters={"epochs": 80, "layers": [1, 2]}, search={"trials": 2})
    arguments = command(experiment, "--set", "search.baseline=false")
    program = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert program.stdout is not None
    for line in program.stdout:
        if line.startswith("MLflow"):
            break
    while not has_logged_epoch(tmp_path):
        assert program.poll() is None
    os.killpg(program.pid, signal.SIGINT)  # to the workers too, as a terminal does
    output = program.stdout.read()
    assert program.wait(60) == 130
    assert "run the same command again" in output
    parent, (killed,) = runs(tmp_path, "small")
    assert (parent.info.status, killed.info.status) == ("KILLED", "KILLED")
    assert "pneumo.state" not in killed.data.tags

    # The interrupted trial is trained to its end. With this timeout no further one starts, so that the test ends soon.
    resumed = search(experiment, "--set", "search.baseline=false", "--timeout", "1s", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    parent, children = runs(tmp_path, "small")
    assert parent.info.status == "FINISHED"
    assert [run.data.tags["mlflow.runName"] for run in children] == ["trial-0000", "trial-0000"]
    assert children[0].data.params == children[1].data.params
    assert children[1].info.status == "FINISHED"


def has_logged_epoch(folder: Path) -> bool:
    """Return whether a trial of this folder's study has logged an epoch."""
    if not (folder / "mlflow.db").exists():
        return False
    store = client(folder)
    experiment = store.get_experiment_by_name("small")
    logged_runs = store.search_runs([experiment.experiment_id]) if experiment else []
    return any("val_auc" in run.data.metrics for run in logged_runs)


@pytest.mark.slow
def test_bad_candidates_fail_with_their_reason_and_cost_themselves_only(tmp_path: Path) -> None:
    space = {"layers": [1, 5], "optimizer": "sgd", "learning_rate": [0.01, 10.0], "weight_decay": 1.0, "batch_size": 1}
    experiment = write(tmp_path, hyperparameters=space, search={"trials": 4, "algorithm": "grid", "baseline": False})
    done = search(experiment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    _, children = runs(tmp_path, "small")
    errors = {
        (run.data.params["layers"], run.data.params["learning_rate"]): run.data.tags.get("pneumo.error", "")
        for run in children
    }
    assert set(errors) == {("1", "0.01"), ("1", "10.0")}  # the others cannot be built, and are no trials
    assert errors["1", "0.01"] == ""
    assert "try a lower learning_rate" in errors["1", "10.0"]
    assert {run.info.status for run in children if errors["1", run.data.params["learning_rate"]]} == {"FAILED"}
    assert "2 proposals were not trained because the layers would pool the picture to nothing." in done.stdout


def test_nothing_fit_to_use_is_status_3(tmp_path: Path) -> None:
    # The file is accepted, since the smaller kernel with the larger picture could be built. No candidate has both.
    space = {"layers": 6, "kernel_size": [3, 9], "image_size": {"value": 256, "when": {"kernel_size": 9}}}
    experiment = write(tmp_path, hyperparameters=space, search={"baseline": False, "trials": 3})
    dry = search(experiment, "--dry-run", folder=tmp_path)
    assert "There are no more: every combination of the space was tried." in dry.stdout
    done = search(experiment, folder=tmp_path)
    assert done.returncode == 3
    assert "no trial was started: every combination of the space was tried" in done.stderr
    assert "not trained because the layers would pool the picture to nothing" in done.stdout
    parent, children = runs(tmp_path, "small")
    assert (parent.info.status, children) == ("FAILED", [])


def test_the_sealed_test_pictures_are_never_read(archive: Path, tmp_path: Path) -> None:
    """A search runs on an archive whose test pictures are damaged: reading one of them would be an error."""
    broken = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive) as original, zipfile.ZipFile(broken, "w") as copy:
        for part, pictures in (("train", 40), ("test", 5)):
            for label in ("NORMAL", "PNEUMONIA"):
                names = [n for n in original.namelist() if n.startswith(f"chest_xray/{part}/{label}/")]
                for name in names[:pictures]:
                    copy.writestr(name, original.read(name))
    content = bytearray(broken.read_bytes())
    with zipfile.ZipFile(broken) as copy:
        for member in copy.infolist():
            if "/test/" in member.filename:
                start = member.header_offset + 30 + len(member.filename.encode())
                content[start : start + member.compress_size] = bytes(member.compress_size)
    broken.write_bytes(content)
    with zipfile.ZipFile(broken) as copy:
        assert "/test/" in str(copy.testzip())  # a test picture cannot be read

    experiment = write(tmp_path, data={"source": "kaggle", "validation": 0.3}, search={"trials": 1})
    done = search(experiment, "--data", broken, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test 10 (5 NORMAL, 5 PNEUMONIA)" in done.stdout
    assert "left out" not in done.stderr


@pytest.mark.slow
def test_unreadable_pictures_are_named_and_counted(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as original:
        names = [n for n in original.namelist() if n.startswith("chest_xray/train/") and n.endswith(".jpeg")]
        for name in names[:60] + names[-60:]:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(original.read(name))
    (tmp_path / names[0]).write_bytes(b"no picture")
    experiment = write(tmp_path, data={"source": "kaggle", "validation": 0.3}, search={"trials": 1})
    done = search(experiment, "--data", tmp_path / "chest_xray", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("left out") == 1
    assert Path(names[0]).name in done.stderr
    assert runs(tmp_path, "small")[0].data.metrics["pictures_unreadable"] == 1

    for name in names[1:3]:
        (tmp_path / name).write_bytes(b"no picture either")
    refused = search(experiment, "--data", tmp_path / "chest_xray", "--name", "other", folder=tmp_path)
    assert refused.returncode == 2
    assert "3 of 120 pictures cannot be decoded" in refused.stderr


@pytest.mark.slow
def test_two_searches_of_one_study_do_not_mix(tmp_path: Path) -> None:
    experiment = write(tmp_path, hyperparameters={"epochs": 300}, search={"trials": 1})
    first = subprocess.Popen(command(experiment), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    try:
        next(line for line in first.stdout if line.startswith("Study"))
        second = search(experiment, folder=tmp_path)
        assert second.returncode == 2
        assert "another search is at work on it" in second.stderr
    finally:
        first.kill()
        first.wait()


def test_no_trial_at_all_is_status_3(tmp_path: Path) -> None:
    done = search(write(tmp_path), "--set", "search.timeout=1e-9", folder=tmp_path)
    assert done.returncode == 3
    assert "no trial was started: the time of" in done.stderr


def test_the_driver_never_imports_tensorflow(tmp_path: Path) -> None:
    """Only the workers import TensorFlow, which is slow and takes memory. Nor does the driver import Keras or Keras Tuner."""
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['search', {str(write(tmp_path, search={'trials': 1}))!r}]\n"
        "try:\n    runpy.run_module('pneumo.search', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print({'tensorflow', 'keras', 'keras_tuner', 'ray'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=LONGEST
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_a_dry_run_shows_the_search_and_writes_nothing(tmp_path: Path) -> None:
    experiment = write(tmp_path, hyperparameters={"layers": [1, 2], "filters": [8, 16]})
    done = search(experiment, "--dry-run", "--set", "dropout=0.5", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[:2] == [
        "Nothing is trained. Without --dry-run this would run:",
        "Study small: 30 trials by optuna/tpe for val_auc, pruner none; searched: layers, filters",
    ]
    assert "training" in done.stdout
    assert "  trial 0  layers=1 filters=32" in done.stdout
    resolved = search(experiment, "--dry-run", "--yaml", "--set", "dropout=0.5", folder=tmp_path)
    assert yaml.safe_load(resolved.stdout)["hyperparameters"]["dropout"] == 0.5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experiment.yaml"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


WRONG_REQUESTS: dict[str, tuple[str, list[str], str]] = {
    "bad YAML": ("name: [x", [], "experiment.yaml:2: not valid YAML"),
    "unknown key": ("name: x\nserch: {trials: 3}", [], "there is no 'serch'; did you mean 'search'?"),
    "low above high": (
        "name: x\nhyperparameters: {layers: {low: 4, high: 1}}",
        [],
        "hyperparameters.layers: low must be below",
    ),
    "log and step": (
        "name: x\nhyperparameters: {dropout: {low: 0.1, high: 0.5, log: true, step: 0.1}}",
        [],
        "hyperparameters.dropout: log and step cannot be combined",
    ),
    "a text in place of a block": (
        "name: x\ndata: a.zip",
        ["--data", "b.zip"],
        "experiment.yaml: data: needs keys with values, got 'a.zip'",
    ),
    "missing data": ("name: x", ["--data", "nowhere.zip"], "nowhere.zip: there is no such file or folder"),
    "no path of the data": ("name: x", [], "data.path: no path is given"),
    "empty class": ("name: x", ["--data", "empty"], "NORMAL"),
    "broken zip": ("name: x", ["--data", "broken.zip"], "broken.zip: is no zip, or a broken one"),
    "wrong engine": ("name: x", ["--engine", "optna"], "--engine optna: there is no 'optna'; there is optuna"),
    "unknown objective": ("name: x\nsearch: {objective: auc}", [], "search.objective: there is no 'auc'"),
    "unknown setting": (
        "name: x",
        ["--set", "layrs=3"],
        "--set layrs=3: there is no key 'layrs'; did you mean 'layers'?",
    ),
    "negative trials": ("name: x", ["--trials", "-3"], "'--trials'"),
    "unknown option": ("name: x", ["--trails", "3"], "No such option: --trails"),
    "option without a value": ("name: x", ["--name"], "'--name' requires an argument"),
    "every setting without a dry run": ("name: x", ["--yaml"], "--yaml: belongs to --dry-run"),
    "bad timeout": ("name: x", ["--timeout", "soon"], "--timeout soon: seconds, or a text"),
}
"""Wrong requests: the experiment file, the command line's arguments, and a part of the expected error."""


@pytest.mark.parametrize(("document", "arguments", "error"), WRONG_REQUESTS.values(), ids=WRONG_REQUESTS.keys())
def test_a_wrong_request_is_one_line_and_status_2(
    tmp_path: Path, document: str, arguments: list[str], error: str
) -> None:
    (tmp_path / "experiment.yaml").write_text(document + "\n")
    (tmp_path / "broken.zip").write_text("this is no zip")
    pneumonia = tmp_path / "empty" / "train" / "PNEUMONIA"
    pneumonia.mkdir(parents=True)
    (tmp_path / "empty" / "train" / "NORMAL").mkdir()
    (pneumonia / "person1_virus_1.jpeg").write_bytes(b"x")
    before = sorted(tmp_path.rglob("*"))
    done = search("experiment.yaml", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert error in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("pneumo.search: ")
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before  # nothing was written


def test_an_unreachable_tracking_server_is_one_line_and_status_2(tmp_path: Path) -> None:
    address = f"http://someone:secret@127.0.0.1:{free_port()}"
    done = search(write(tmp_path), folder=tmp_path, MLFLOW_TRACKING_URI=address)
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert done.stderr.count("\n") == 1


def test_the_projects_experiments_are_valid(tmp_path: Path) -> None:
    for experiment in sorted((ROOT / "experiments").glob("*.yaml")):
        first_line = experiment.read_text().splitlines()[0]
        assert first_line.startswith("# python -m pneumo.search"), experiment
    done = search("--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\nStudy quickstart: " in done.stdout
