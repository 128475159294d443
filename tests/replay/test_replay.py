"""A trial trained again from its run: the same bits, what differs from the record, what cannot be replayed."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import Run, ViewType

from pneumo.replay.__main__ import main
from pneumo.spec.errors import RequestError
from pneumo.training import provenance
from tests.conftest import ROOT
from tests.support.pictures import archive_files, write_folder
from tests.support.program import EQUAL, LONGEST, SAME, client, runs, search, write

POOR = {"optimizer": "adam", "learning_rate": 1.0}
GOOD = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.01}
SPACE = {
    "optimizer": ["adam", "sgd"],
    "momentum": {"low": 0.5, "high": 0.95},
    "learning_rate": {"low": 1e-3, "high": 1.0, "log": True},
    "dropout": 0.3,
    "class_weight": "balanced",
    "schedule": "cosine",
    "batch_size": 8,
    "epochs": 3,
}
SEARCH = {
    "objective": "val_loss",
    "pruner": "median",
    "pruner_settings": {"n_startup_trials": 1, "n_warmup_steps": 1},
    "baseline": False,
    "try": [GOOD, POOR],
    "trials": 2,
    "confirm": {"top": 1, "seeds": 2},
}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pneumo.replay", *map(str, arguments)]


def replay(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """`python -m pneumo.replay` with these arguments, in this folder."""
    return subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, timeout=LONGEST, check=False)


def differences(said: str) -> dict[str, float]:
    """The last column of the table of metrics, by metric."""
    compared = said.partition("Speed, which is not compared")[0]
    rows = [line.strip("│").split("│") for line in compared.splitlines() if line.startswith("│")]
    return {row[0].strip(): float(row[-1]) for row in rows}


def everything(folder: Path) -> tuple[list[dict[str, object]], list[str]]:
    """All that is recorded: every run with its tags, parameters and metrics, and every logged model."""
    store = client(folder)
    experiments = [one.experiment_id for one in store.search_experiments(ViewType.ALL)]
    found = store.search_runs(experiments, run_view_type=ViewType.ALL, max_results=1000)
    models = store.search_logged_models(experiments)
    return [run.to_dictionary() for run in found], sorted(model.model_id for model in models)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of a complete and a pruned trial, and a confirmation."""
    folder = tmp_path_factory.mktemp("recorded")
    write_folder(folder / "data", archive_files(patients=12))
    data = {"source": "kaggle", "path": "data", "validation": 0.3}
    done = search(write(folder, data=data, hyperparameters=SPACE, search=SEARCH), folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def trials(study: Path) -> list[Run]:
    _, found = runs(study, "small")
    assert [run.data.tags["pneumo.state"] for run in found] == ["complete", "pruned"]
    return found


@pytest.fixture
def tagged(study: Path, trials: list[Run]) -> Iterator[Run]:
    """The complete trial's run; its tags are put back afterwards."""
    (run, _), store = trials, client(study)
    yield run
    for key, value in run.data.tags.items():
        store.set_tag(run.info.run_id, key, value)


def test_a_complete_trial_comes_out_the_same_and_nothing_is_recorded(study: Path, trials: list[Run]) -> None:
    before = everything(study)
    done = replay(trials[0].info.run_id, folder=study)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == (
        "Trial 0 of study small: optimizer=sgd momentum=0.9 learning_rate=0.01; seed 0; 3 epochs"
    )
    assert done.stdout.index(SAME) < done.stdout.index("Where it differs most, of 3 epochs and 16 validation pictures")
    found = differences(done.stdout)
    once = {"best_epoch", "best_val_auc", "best_val_loss", "best_val_accuracy", "threshold", "val_f1", "parameters"}
    assert set(found) >= once | {"loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc", "probability"}
    assert set(found.values()) == {0.0}
    assert re.search(r"took [\d.]+ s with deterministic operations, recorded [\d.]+ s: [\d.]+ times", done.stdout)
    assert done.stdout.rstrip().endswith(EQUAL)
    assert everything(study) == before


@pytest.mark.slow
def test_a_pruned_trial_is_trained_to_where_it_was_pruned(study: Path, trials: list[Run]) -> None:
    done = replay(trials[1].info.run_id, folder=study)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0].endswith("epochs 1 to 1 of 3, after which it was pruned")
    assert SAME in done.stdout
    assert EQUAL in done.stdout


def test_what_differs_is_said_before_the_training(study: Path, tagged: Run) -> None:
    store, run_id = client(study), tagged.info.run_id
    other = study / "fewer"
    shutil.copytree(study / "data", other)
    picture = next(row for row in validation_names(study, run_id) if "IM-" in row)
    (other / "chest_xray" / picture).unlink()
    libraries = tagged.data.tags["pneumo.libraries"]
    older = re.sub(r"keras [\w.]+", "keras 3.0.5", libraries)
    for key, value in {"code": "0123456789ab", "libraries": older, "device": "Abacus", "threads": "1"}.items():
        store.set_tag(run_id, f"pneumo.{key}", value)
    store.delete_tag(run_id, "pneumo.precision")
    done = replay(run_id, "--data", other, folder=study)
    assert done.returncode == 1, done.stderr
    told, _, compared = done.stdout.partition("Where it differs most")
    assert SAME not in told
    assert re.search(r"^  validation pictures: \w{32} \(16 .*\) → \w{32} \(15 .*; the figures will differ$", told, re.M)
    assert "training pictures:" not in told
    assert f"  code: 0123456789ab → {provenance.code()}\n" in told
    now = re.search(r"keras [\w.]+", libraries)
    assert now
    assert f"  libraries: keras 3.0.5 → {now[0]}\n" in told
    assert re.search(r"^  device: Abacus → \S", told, re.M)
    assert "threads:" not in told  # it was trained with one
    assert "15 validation pictures in common" in compared
    assert differences(done.stdout)["val_loss"] != 0
    assert re.search(r"^\d+ of \d+ metrics differ, the largest difference is \S+: \w+( of .+)?\.$", compared, re.M)


def validation_names(folder: Path, run_id: str) -> list[str]:
    table = client(folder).download_artifacts(run_id, "predictions.csv", str(folder))
    return [line.partition(",")[0] for line in Path(table).read_text(encoding="utf-8").splitlines()[1:]]


def test_what_is_no_trained_trial_is_refused(study: Path, trials: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study)
    before = everything(study)
    store, (parent, _) = client(study), runs(study, "small")
    own, ended = trials[0].info.experiment_id, {"pneumo.role": "trial", "pneumo.study": "small", "pneumo.trial": "9"}
    wrong = {
        "f" * 32: "there is no such run in sqlite:",
        "../x": "there is no such run in sqlite:",
        parent.info.run_id: "is the run of the study small; give the run of one of its trials",
    }
    made = []
    for tags, status, said in (
        ({}, "FINISHED", "is no run of a trial"),
        (ended, "RUNNING", "is still running, or was left so"),
        (ended | {"pneumo.state": "failed", "pneumo.error": "no\nspace"}, "FAILED", "the trial failed (no space)"),
        (ended, "KILLED", r"was ended before its end (KILLED)"),
        (ended | {"pneumo.state": "complete"}, "FINISHED", "its artifact experiment.yaml cannot be had"),
    ):
        run = store.create_run(own, tags=tags)
        if status != "RUNNING":
            store.set_terminated(run.info.run_id, status)
        wrong[run.info.run_id] = said
        made.append(run.info.run_id)
    for run_id, said in wrong.items():
        with pytest.raises(RequestError, match=f"^{re.escape(f'{run_id}: {said}')}"):
            main(run_id)
    with pytest.raises(RequestError, match=r"^gone\.zip: there is no such file or folder; give --data"):
        main(trials[0].info.run_id, "gone.zip")
    done = replay("abc", folder=study)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"pneumo\.replay: abc: there is no such run in .*; a trial's run id is on .*\n", done.stderr)
    for run_id in made:
        store.delete_run(run_id)
    assert [run for run in everything(study)[0] if run["info"]["run_id"] not in made] == before[0]  # type: ignore[index]


def test_no_database_is_made_where_there_is_none(project: Path) -> None:
    with pytest.raises(RequestError, match=r"mlflow\.db: there are no runs here; go to the folder of the search"):
        main("abc")
    assert list(project.iterdir()) == []


def test_the_code_of_a_training_is_told_by_its_files_and_not_by_their_place(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "pneumo", copy, ignore=shutil.ignore_patterns("__pycache__"))
    own = provenance.code()
    assert provenance.code(copy) == own
    assert re.fullmatch(r"[0-9a-f]{12}", own)
    for pattern in provenance.TRAINING:
        for path in copy.glob(pattern):
            text = path.read_bytes()
            path.write_bytes(text.replace(b"\n", b"\r\n"))
            assert provenance.code(copy) == own, path
            path.write_bytes(text + b"# changed\n")
            assert provenance.code(copy) != own, path
            path.write_bytes(text)
    (copy / "cnn" / "explain.py").write_text("")
    assert provenance.code(copy) == own


APART = {
    "cnn.device": "what precision auto came to is a tag of its own",
    "cnn.save": "after the training",
    "compute.place": "how processes speak",
    "data.pictures": "the digests tell it",
    "data.prepare": "the digests tell it",
    "evidence.plots": "after the training",
    "evidence.tables": "after the training",
    "training.provenance": "says it",
    "compute.disk": "what a full disk is",
    "spec.candidate": "hands the parameters on",
    "spec.errors": "messages",
    "spec.masking": "messages",
    "spec.promotion": "types",
    "spec.result": "hands the metrics on",
    "tracking.outbox": "where what a training says waits",
    "tracking.trial_log": "after the training",
}
"""What the code of a training imports without following from it."""


def test_the_code_of_a_training_is_whole() -> None:
    package = ROOT / "pneumo"
    files = {path for pattern in provenance.TRAINING for path in package.glob(pattern)}
    assert all(list(package.glob(pattern)) for pattern in provenance.TRAINING)
    imported = {
        name.removeprefix("pneumo.")
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pneumo"
        for name in modules(node)
    }
    own = {path.relative_to(package).as_posix().removesuffix(".py").replace("/", ".") for path in files}
    folders = {name.removesuffix(".__init__") for name in own if name.endswith(".__init__")}
    assert {name for name in imported if name.rpartition(".")[0] not in folders} - own == set(APART)


def modules(node: ast.ImportFrom) -> list[str]:
    """`from pneumo.cnn import fit` names a module, `from pneumo.cnn.fit import fit` a function of it."""
    module = node.module or ""
    if (ROOT / f"{module.replace('.', '/')}.py").is_file():
        return [module]
    return [f"{module}.{alias.name}" for alias in node.names]


@pytest.mark.parametrize(("asked", "threads"), [("3", 3), ("0", None), ("", None), ("many", None)])
def test_threads_are_those_that_tensorflow_takes(
    asked: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(provenance.THREADS, asked)
    assert provenance.threads() == (threads or len(os.sched_getaffinity(0)))


@pytest.mark.slow
def test_a_confirmation_comes_out_the_same(study: Path) -> None:
    experiment = client(study).get_experiment_by_name("small")
    assert experiment
    run, *_ = client(study).search_runs([experiment.experiment_id], "tags.`pneumo.role` = 'confirm'")
    done = replay(run.info.run_id, folder=study)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("Trial 0 of study small, trained once more to confirm it: ")
    assert f"; seed {run.data.params['seed']}; 3 epochs\n" in done.stdout
    assert SAME in done.stdout
    assert EQUAL in done.stdout


@pytest.mark.slow
def test_rungs_come_out_the_same_from_their_first_epoch_and_a_schedule_counts_by_all(tmp_path: Path) -> None:
    options = {"engine": "keras-tuner", "algorithm": "hyperband", "algorithm_settings": {"factor": 2}, "trials": 8}
    space = {"filters": [4, 8, 16], "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}, "dropout": 0.2}
    space |= {"schedule": "cosine", "epochs": 4, "optimizer": "sgd", "momentum": 0.9}
    done = search(write(tmp_path, hyperparameters=space, search=options), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    _, trials = runs(tmp_path, "small")
    rung = next(run for run in trials if "pneumo.resumed_from" in run.data.tags)
    below = next(run for run in trials if run.data.tags["pneumo.trial"] == rung.data.tags["pneumo.resumed_from"])
    for run in (below, rung):
        last = int(run.data.params["epochs"])
        done = replay(run.info.run_id, folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        head = done.stdout.splitlines()[0]
        assert f"; seed {below.data.params['seed']}; " in head
        assert ("; 4 epochs" if last == 4 else f"; epochs 1 to {last} of 4") in head
        assert SAME in done.stdout
        assert EQUAL in done.stdout
    assert f"(the record goes on from trial {below.data.tags['pneumo.trial']})" in head
    assert int(below.data.params["epochs"]) < last
    assert "epochs_trained" not in differences(done.stdout)  # of the rung they are its own


@pytest.mark.slow
def test_an_interruption_ends_it_and_leaves_nothing(study: Path, trials: list[Run]) -> None:
    before = everything(study)
    program = subprocess.Popen(
        command(trials[0].info.run_id), cwd=study, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline().startswith("Trial 0")
    program.send_signal(signal.SIGINT)
    said, error = program.communicate(timeout=LONGEST)
    assert program.returncode == 130
    assert said.endswith("\nInterrupted; nothing was recorded.\n")
    assert error == ""
    assert everything(study) == before


@pytest.mark.slow
def test_trials_of_real_pictures_by_two_workers_come_out_the_same(archive: Path, tmp_path: Path) -> None:
    """In a worker of two an operation has half the cores, and so other bits than in one that has them all."""
    path = tmp_path / "away.zip"
    path.symlink_to(archive)
    space = {"layers": [1, 2], "image_size": 64, "dense_units": 32, "dropout": 0.3, "precision": "auto"}
    data, options = {"source": "kaggle", "path": "away.zip"}, {"trials": 3, "workers": 2}
    done = search(write(tmp_path, data=data, hyperparameters=space, search=options), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    path.unlink()
    _, trials = runs(tmp_path, "small")
    run = trials[-1]
    assert int(run.data.tags["pneumo.threads"]) == max(1, (os.cpu_count() or 1) // 2)
    missing = replay(run.info.run_id, folder=tmp_path)
    assert missing.returncode == 2
    assert re.fullmatch(r"pneumo\.replay: away\.zip: there is no such file .*; give --data .*\n", missing.stderr)
    done = replay(run.info.run_id, "--data", archive, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert SAME in done.stdout
    assert "561 validation pictures in common" in done.stdout
    assert EQUAL in done.stdout
