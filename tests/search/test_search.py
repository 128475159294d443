"""`python -m pneumo.search` as a user runs it: the real program, on phantoms or broken requests."""

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
from tests.support.program import LONGEST, check_study, check_trial, client, command, runs, search, write


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A folder with a study of two trials, its experiment and what the program said."""
    folder = tmp_path_factory.mktemp("a folder, ünïcode")
    space = {"layers": [1, 2], "learning_rate": {"low": 0.001, "high": 0.01}, "epochs": 2}
    experiment = write(folder, hyperparameters=space, search={"trials": 2})
    done = search(experiment, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, experiment, done.stdout


def test_a_study_leaves_all_of_it_in_mlflow(studied: tuple[Path, Path, str]) -> None:
    folder, _, said = studied
    children = check_study(folder, "small", 2)
    for run in children:
        check_trial(folder, run)
    assert children[0].data.params["layers"] == "1"
    assert children[0].data.params["image_size"] == "64"  # the tutorial's own, whatever the space says
    assert "The best 2 of 2 trials" in said
    assert "tutorial's network" in said or "tutorial's own network" in said
    assert "phantoms" in said
    assert "mlflow ui" in said


def test_the_same_command_again_does_nothing_and_more_trials_go_on(studied: tuple[Path, Path, str]) -> None:
    folder, experiment, _ = studied
    before = [run.info.run_id for run in runs(folder, "small")[1]]
    again = search(experiment, folder=folder)
    assert again.returncode == 0
    assert "has its 2 trials already" in again.stdout
    assert [run.info.run_id for run in runs(folder, "small")[1]] == before

    more = search(experiment, "--trials", 3, folder=folder)
    assert more.returncode == 0, more.stderr
    children = check_study(folder, "small", 3)
    assert [run.info.run_id for run in children][:2] == before


def test_a_study_that_was_killed_before_it_was_closed_is_closed(studied: tuple[Path, Path, str]) -> None:
    folder, experiment, _ = studied
    parent, children = runs(folder, "small")
    for run in (parent, children[-1]):
        client(folder).update_run(run.info.run_id, status="RUNNING")
    again = search(experiment, "--trials", len(children), folder=folder)
    assert again.returncode == 0, again.stderr
    check_study(folder, "small", len(children))
    assert {run.info.status for run in runs(folder, "small")[1]} == {"FINISHED"}


def test_a_changed_study_is_refused_with_the_difference(studied: tuple[Path, Path, str]) -> None:
    folder, experiment, _ = studied
    space = search(experiment, "--trials", 9, "--set", "layers=[1, 3]", folder=folder)
    assert space.returncode == 2
    assert "hyperparameters.layers was [1, 2], now [1, 3]" in space.stderr
    pictures = search(experiment, "--trials", 9, "--set", "data.phantom.seed=1", folder=folder)
    assert pictures.returncode == 2
    assert "data.phantom was" in pictures.stderr
    store = search(experiment, "--trials", 9, folder=folder, MLFLOW_TRACKING_URI=f"sqlite:///{folder}/other.db")
    assert store.returncode == 2
    assert "not in this MLflow store" in store.stderr
    database = search(experiment, "--trials", 9, "--storage", f"sqlite:///{folder}/other-studies.db", folder=folder)
    assert database.returncode == 2
    assert "whose trials are in another database" in database.stderr


def test_ctrl_c_closes_the_trial_and_the_same_command_goes_on(tmp_path: Path) -> None:
    experiment = write(tmp_path, hyperparameters={"epochs": 80, "layers": [1, 2]}, search={"trials": 2})
    arguments = command(experiment, "--set", "search.baseline=false")
    program = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert program.stdout is not None
    for line in program.stdout:
        if line.startswith("MLflow"):
            break
    while not reported(tmp_path):
        assert program.poll() is None
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    said = program.stdout.read()
    assert program.wait(60) == 130
    assert "run the same command again" in said
    parent, (killed,) = runs(tmp_path, "small")
    assert (parent.info.status, killed.info.status) == ("KILLED", "KILLED")
    assert "pneumo.state" not in killed.data.tags

    # Shorter this time, so that the test ends; the number of epochs is the only thing that may not change by itself.
    again = search(experiment, "--set", "search.baseline=false", "--timeout", "1s", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    parent, children = runs(tmp_path, "small")
    assert parent.info.status == "FINISHED"
    assert [run.data.tags["mlflow.runName"] for run in children] == ["trial-0000", "trial-0000"]
    assert children[0].data.params == children[1].data.params
    assert children[1].info.status == "FINISHED"


def reported(folder: Path) -> bool:
    """Whether a trial of this folder has logged an epoch."""
    if not (folder / "mlflow.db").exists():
        return False
    store = client(folder)
    experiment = store.get_experiment_by_name("small")
    found = store.search_runs([experiment.experiment_id]) if experiment else []
    return any("val_auc" in run.data.metrics for run in found)


@pytest.mark.slow
def test_bad_candidates_fail_with_their_reason_and_cost_themselves_only(tmp_path: Path) -> None:
    space = {"layers": [1, 5], "optimizer": "sgd", "learning_rate": [0.01, 10.0], "epochs": 2}
    experiment = write(tmp_path, hyperparameters=space, search={"trials": 4, "algorithm": "grid", "baseline": False})
    done = search(experiment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    _, children = runs(tmp_path, "small")
    errors = {
        (run.data.params["layers"], run.data.params["learning_rate"]): run.data.tags.get("pneumo.error", "")
        for run in children
    }
    assert errors["1", "0.01"] == ""
    assert "pool a picture" in errors["5", "0.01"]
    assert {run.info.status for run in children if run.data.params["layers"] == "5"} == {"FAILED"}
    assert {run.data.tags["pneumo.state"] for run in children if run.data.params["layers"] == "5"} == {"failed"}


def test_nothing_fit_to_use_is_status_3(tmp_path: Path) -> None:
    space = {"layers": [2, 6], "image_size": [32]}
    experiment = write(tmp_path, hyperparameters=space, search={"baseline": False, "algorithm": "grid", "trials": 1})
    for seed in range(10):
        arguments = [experiment, "--set", f"search.seed={seed}", "--name", f"seed-{seed}"]
        first = search(*arguments, "--dry-run", folder=tmp_path)
        if "0  layers=6" in first.stdout:
            break
    done = search(*arguments, folder=tmp_path)
    assert done.returncode == 3
    assert "none of 1 trials completed; most often: layers=6" in done.stderr
    assert runs(tmp_path, f"seed-{seed}")[0].info.status == "FAILED"


def test_the_sealed_test_pictures_are_never_read(archive: Path, tmp_path: Path) -> None:
    """An archive whose test pictures cannot even be unpacked is searched as any other."""
    broken = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive) as real, zipfile.ZipFile(broken, "w") as copy:
        for part, most in (("train", 40), ("test", 5)):
            for label in ("NORMAL", "PNEUMONIA"):
                names = [n for n in real.namelist() if n.startswith(f"chest_xray/{part}/{label}/")]
                for name in names[:most]:
                    copy.writestr(name, real.read(name))
    text = broken.read_bytes()
    with zipfile.ZipFile(broken) as copy:
        for member in copy.infolist():
            if "/test/" in member.filename:
                start = member.header_offset + 30 + len(member.filename.encode())
                text = text[:start] + bytes(member.compress_size) + text[start + member.compress_size :]
    broken.write_bytes(text)
    with zipfile.ZipFile(broken) as copy:
        assert "/test/" in str(copy.testzip())  # reading one is an error

    experiment = write(tmp_path, data={"source": "kaggle", "validation": 0.3}, search={"trials": 1})
    done = search(experiment, "--data", broken, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test 10 (5 NORMAL, 5 PNEUMONIA)" in done.stdout
    assert "left out" not in done.stderr


@pytest.mark.slow
def test_unreadable_pictures_are_named_and_counted(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as real:
        names = [n for n in real.namelist() if n.startswith("chest_xray/train/") and n.endswith(".jpeg")]
        for name in names[:60] + names[-60:]:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(real.read(name))
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
    """Not to list, decode, ask, record, draw the study's page: each trial's process pays for TensorFlow, nobody else."""
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


def test_dry_run_shows_and_leaves_nothing(tmp_path: Path) -> None:
    experiment = write(tmp_path, hyperparameters={"layers": [1, 2], "filters": [8, 16]})
    done = search(experiment, "--dry-run", "--set", "dropout=0.5", folder=tmp_path)
    assert done.returncode == 0
    resolved = yaml.safe_load(done.stdout[: done.stdout.index("\nData:")])
    assert resolved["hyperparameters"]["dropout"] == 0.5
    assert "training" in done.stdout
    assert "  0  layers=1 filters=32" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experiment.yaml"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


WRONG: dict[str, tuple[str, list[str], str]] = {
    "bad YAML": ("name: [x", [], "experiment.yaml:2: not valid YAML"),
    "unknown key": ("name: x\nserch: {trials: 3}", [], "there is no 'serch'; did you mean 'search'?"),
    "upside down": (
        "name: x\nhyperparameters: {layers: {low: 4, high: 1}}",
        [],
        "hyperparameters.layers: low must be below",
    ),
    "log and step": (
        "name: x\nhyperparameters: {dropout: {low: 0.1, high: 0.5, log: true, step: 0.1}}",
        [],
        "hyperparameters.dropout: log and step cannot be combined",
    ),
    "a text for a block": ("name: x\ndata: a.zip", ["--data", "b.zip"], "data: input should be a valid dictionary"),
    "missing data": ("name: x", ["--data", "nowhere.zip"], "nowhere.zip: there is no such file or folder"),
    "no data named": ("name: x", [], "data.path: no path is given"),
    "empty class": ("name: x", ["--data", "empty"], "NORMAL"),
    "broken zip": ("name: x", ["--data", "broken.zip"], "broken.zip: is no zip, or a broken one"),
    "wrong engine": ("name: x", ["--engine", "optna"], "search.engine: there is no 'optna'; there is optuna"),
    "unknown objective": ("name: x\nsearch: {objective: auc}", [], "search.objective: there is no 'auc'"),
    "unknown setting": (
        "name: x",
        ["--set", "layrs=3"],
        "--set layrs=3: there is no key 'layrs'; did you mean 'layers'?",
    ),
    "negative trials": ("name: x", ["--trials", "-3"], "'--trials'"),
    "unknown option": ("name: x", ["--trails", "3"], "No such option: --trails"),
    "no such experiment": ("name: x", ["--name"], "'--name' requires an argument"),
    "bad timeout": ("name: x", ["--timeout", "soon"], "search.timeout"),
}


@pytest.mark.parametrize(("document", "arguments", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_request_is_one_line_and_status_2(
    tmp_path: Path, document: str, arguments: list[str], said: str
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
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("pneumo.search: ")
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before  # nothing half-written


def test_an_unreachable_tracking_server_is_one_line_and_status_2(tmp_path: Path) -> None:
    address = f"http://someone:secret@127.0.0.1:{free_port()}"
    done = search(write(tmp_path), folder=tmp_path, MLFLOW_TRACKING_URI=address)
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert done.stderr.count("\n") == 1


def test_the_projects_experiments_are_valid(tmp_path: Path) -> None:
    for experiment in sorted((ROOT / "experiments").glob("*.yaml")):
        first = experiment.read_text().splitlines()[0]
        assert first.startswith("# python -m pneumo.search"), experiment
    done = search("--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("name: quickstart")
