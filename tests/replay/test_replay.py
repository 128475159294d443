"""python -m pneumo.replay: equal metrics, differences from the record, and runs that cannot be replayed."""

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
from pneumo.spec.cores import THREADS_VARIABLE, usable_cores
from pneumo.spec.errors import RequestError
from pneumo.training import provenance
from tests.conftest import ROOT
from tests.support.pictures import archive_files, write_folder
from tests.support.program import EQUAL, LONGEST, SAME, STRESS, client, runs, search, write

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
    """Run `python -m pneumo.replay` in a folder."""
    return subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, timeout=LONGEST, check=False)


def differences(output: str) -> dict[str, float]:
    """Return the last column of the table of metrics, by metric."""
    compared = output.partition("Speed, not compared")[0]
    rows = [line.strip("│").split("│") for line in compared.splitlines() if line.startswith("│")]
    return {row[0].strip(): float(row[-1]) for row in rows}


def whole_record(folder: Path) -> tuple[list[dict[str, object]], list[str]]:
    """Return all that is recorded: every run with its tags, parameters and metrics, and the id of every logged model."""
    store = client(folder)
    experiments = [experiment.experiment_id for experiment in store.search_experiments(ViewType.ALL)]
    all_runs = store.search_runs(experiments, run_view_type=ViewType.ALL, max_results=1000)
    models = store.search_logged_models(experiments)
    return [run.to_dictionary() for run in all_runs], sorted(model.model_id for model in models)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of a complete trial, a pruned trial and confirmations."""
    folder = tmp_path_factory.mktemp("recorded")
    write_folder(folder / "data", archive_files(patients=12))
    data = {"source": "kaggle", "path": "data", "validation": 0.3}
    done = search(write(folder, data=data, hyperparameters=SPACE, search=SEARCH), folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def trials(study: Path) -> list[Run]:
    _, trial_runs = runs(study, "small")
    assert [run.data.tags["pneumo.state"] for run in trial_runs] == ["complete", "pruned"]
    return trial_runs


@pytest.fixture
def tagged(study: Path, trials: list[Run]) -> Iterator[Run]:
    """The complete trial's run. Its tags are restored after the test."""
    (run, _), store = trials, client(study)
    yield run
    for key, value in run.data.tags.items():
        store.set_tag(run.info.run_id, key, value)


def test_a_complete_trial_has_equal_metrics_and_nothing_is_recorded(study: Path, trials: list[Run]) -> None:
    before = whole_record(study)
    done = replay(trials[0].info.run_id, folder=study)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == (
        "Trial 0 of study small: optimizer=sgd momentum=0.9 learning_rate=0.01; seed 0; 3 epochs"
    )
    assert done.stdout.index(SAME) < done.stdout.index("Largest differences, over 3 epochs and 16")
    compared = differences(done.stdout)
    final_metrics = {
        "best_epoch",
        "best_val_auc",
        "best_val_loss",
        "best_val_accuracy",
        "threshold",
        "val_f1",
        *STRESS,
        "parameters",
    }
    assert set(compared) >= final_metrics | {
        "loss",
        "accuracy",
        "auc",
        "val_loss",
        "val_accuracy",
        "val_auc",
        "probability",
    }
    assert set(compared.values()) == {0.0}
    assert re.search(
        r"took [\d.]+ s with deterministic operations; the record has [\d.]+ s \(ratio [\d.]+\)", done.stdout
    )
    assert done.stdout.rstrip().endswith(EQUAL)
    assert whole_record(study) == before


@pytest.mark.slow
def test_a_pruned_trial_is_trained_up_to_the_epoch_where_it_was_pruned(study: Path, trials: list[Run]) -> None:
    done = replay(trials[1].info.run_id, folder=study)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0].endswith("epochs 1 to 1 of 3, then pruned")
    assert SAME in done.stdout
    assert EQUAL in done.stdout


@pytest.mark.slow
def test_differences_from_the_record_are_printed_before_the_training(study: Path, tagged: Run) -> None:
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
    before, _, compared = done.stdout.partition("Largest differences")
    assert SAME not in before
    assert re.search(
        r"^  validation pictures: \w{32} \(16 .*\) → \w{32} \(15 .*; the metrics will differ$", before, re.M
    )
    assert "training pictures:" not in before
    assert f"  code: 0123456789ab → {provenance.code_digest()}\n" in before
    now = re.search(r"keras [\w.]+", libraries)
    assert now
    assert f"  libraries: keras 3.0.5 → {now[0]}\n" in before
    assert re.search(r"^  device: Abacus → \S", before, re.M)
    assert "threads:" not in before  # the trial was trained with one thread
    assert "15 validation pictures in common" in compared
    assert differences(done.stdout)["val_loss"] != 0
    assert re.search(r"^\d+ of \d+ metrics differ; the largest difference is \S+: \w+( \(.+\))?\.$", compared, re.M)


def validation_names(folder: Path, run_id: str) -> list[str]:
    table = client(folder).download_artifacts(run_id, "predictions.csv", str(folder))
    return [line.partition(",")[0] for line in Path(table).read_text(encoding="utf-8").splitlines()[1:]]


def test_a_run_that_is_not_a_trained_trial_is_refused(
    study: Path, trials: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(study)
    before = whole_record(study)
    store, (parent, _) = client(study), runs(study, "small")
    experiment_id, trial_tags = (
        trials[0].info.experiment_id,
        {"pneumo.role": "trial", "pneumo.study": "small", "pneumo.trial": "9"},
    )
    wrong = {
        "f" * 32: "there is no such run in sqlite:",
        "../x": "there is no such run in sqlite:",
        parent.info.run_id: "this is the run of the study small; give the run of one of its trials",
    }
    made = []
    for tags, status, message in (
        ({}, "FINISHED", "is not the run of a trial"),
        (trial_tags, "RUNNING", "is still running, or was left so"),
        (trial_tags | {"pneumo.state": "failed", "pneumo.error": "no\nspace"}, "FAILED", "the trial failed (no space)"),
        (trial_tags, "KILLED", r"was ended before its end (KILLED)"),
        (trial_tags | {"pneumo.state": "complete"}, "FINISHED", "its artifact experiment.yaml cannot be read"),
    ):
        run = store.create_run(experiment_id, tags=tags)
        if status != "RUNNING":
            store.set_terminated(run.info.run_id, status)
        wrong[run.info.run_id] = message
        made.append(run.info.run_id)
    for run_id, message in wrong.items():
        with pytest.raises(RequestError, match=f"^{re.escape(f'{run_id}: {message}')}"):
            main(run_id)
    with pytest.raises(RequestError, match=r"^gone\.zip: there is no such file or folder; give --data"):
        main(trials[0].info.run_id, "gone.zip")
    done = replay("abc", folder=study)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"pneumo\.replay: abc: there is no such run in .*; a trial's run id is on .*\n", done.stderr)
    for run_id in made:
        store.delete_run(run_id)
    assert [run for run in whole_record(study)[0] if run["info"]["run_id"] not in made] == before[0]  # type: ignore[index]


def test_no_database_is_created_if_there_is_none(project: Path) -> None:
    with pytest.raises(RequestError, match=r"mlflow\.db: there are no runs here; go to the folder of the search"):
        main("abc")
    assert list(project.iterdir()) == []


def test_the_code_of_a_training_is_identified_by_its_files_and_not_by_their_folder(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "pneumo", copy, ignore=shutil.ignore_patterns("__pycache__"))
    expected = provenance.code_digest()
    assert provenance.code_digest(copy) == expected
    assert re.fullmatch(r"[0-9a-f]{12}", expected)
    for pattern in provenance.TRAINING_FILES:
        for path in copy.glob(pattern):
            text = path.read_bytes()
            path.write_bytes(text.replace(b"\n", b"\r\n"))
            assert provenance.code_digest(copy) == expected, path
            path.write_bytes(text + b"# changed\n")
            assert provenance.code_digest(copy) != expected, path
            path.write_bytes(text)
    (copy / "evidence" / "plots.py").write_text("")
    assert provenance.code_digest(copy) == expected


IGNORED_IMPORTS = {
    "cnn.device": "frees memory, and says how much of it pictures may take",
    "compute.place": "messages between processes",
    "data.pictures": "digests identify the pictures",
    "evidence.tables": "writes figures as text",
    "spec.cores": "how many batches are prepared at once, in the same order",
    "spec.errors": "messages",
    "spec.experiment": "settings of the pictures, which digests identify",
    "spec.names": "names in MLflow",
    "spec.promotion": "types",
    "spec.result": "passes metrics on",
    "training.task": "passes hyperparameters on",
}
"""Modules that the code of a training imports and whose code cannot change its metrics, with the reason."""


def test_the_code_of_a_training_is_complete() -> None:
    package = ROOT / "pneumo"
    files = {path for pattern in provenance.TRAINING_FILES for path in package.glob(pattern)}
    assert all(list(package.glob(pattern)) for pattern in provenance.TRAINING_FILES)
    imported = {
        name.removeprefix("pneumo.")
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pneumo"
        for name in modules(node)
    }
    hashed = {path.relative_to(package).as_posix().removesuffix(".py").replace("/", ".") for path in files}
    folders = {name.removesuffix(".__init__") for name in hashed if name.endswith(".__init__")}
    assert {name for name in imported if name.rpartition(".")[0] not in folders} - hashed == set(IGNORED_IMPORTS)


def modules(node: ast.ImportFrom) -> list[str]:
    """Return the imported modules: `pneumo.cnn.fit` for `from pneumo.cnn import fit` and `from pneumo.cnn.fit import fit`."""
    module = node.module or ""
    if (ROOT / f"{module.replace('.', '/')}.py").is_file():
        return [module]
    return [f"{module}.{alias.name}" for alias in node.names]


@pytest.mark.parametrize(("variable", "threads"), [("3", 3), ("0", None), ("", None), ("many", None)])
def test_threads_are_those_that_tensorflow_uses(
    variable: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, variable)
    assert provenance.thread_count() == (threads or len(os.sched_getaffinity(0)))


@pytest.mark.slow
def test_a_confirmation_has_equal_metrics(study: Path) -> None:
    experiment = client(study).get_experiment_by_name("small")
    assert experiment
    run, *_ = client(study).search_runs([experiment.experiment_id], "tags.`pneumo.role` = 'confirm'")
    done = replay(run.info.run_id, folder=study)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("Trial 0 of study small (confirmation): ")
    assert f"; seed {run.data.params['seed']}; 3 epochs\n" in done.stdout
    assert SAME in done.stdout
    assert EQUAL in done.stdout


@pytest.mark.slow
def test_rungs_are_trained_from_their_first_epoch_and_a_schedule_counts_all_epochs(tmp_path: Path) -> None:
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
    assert f"(recorded as a continuation of trial {below.data.tags['pneumo.trial']})" in head
    assert int(below.data.params["epochs"]) < last
    assert "epochs_trained" not in differences(done.stdout)  # the record counts only the rung's own epochs


@pytest.mark.slow
def test_the_figures_of_the_stress_suite_are_equal_if_they_are_the_objective(tmp_path: Path) -> None:
    # The pruner lets a trial live only if its first epoch is among the best tenth.
    pruner = {"pruner": "percentile", "pruner_settings": {"percentile": 10.0, "n_startup_trials": 1}}
    options = SEARCH | pruner | {"objective": "val_stress_auc", "confirm": None, "trials": 5}
    done = search(write(tmp_path, hyperparameters=SPACE, search=options), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    _, trials = runs(tmp_path, "small")
    by_state = {run.data.tags["pneumo.state"]: run for run in reversed(trials)}
    assert set(by_state) == {"complete", "pruned"}, "space and seed were chosen to give both"
    for state, run in by_state.items():
        done = replay(run.info.run_id, folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        compared = set(differences(done.stdout))
        assert "epoch_val_stress_auc" in compared
        assert (STRESS & compared) == (STRESS if state == "complete" else set())
        assert EQUAL in done.stdout
    # A run of a version without the suite is replayed without it.
    client(tmp_path).delete_tag(trials[0].info.run_id, "pneumo.stress")
    done = replay(trials[0].info.run_id, folder=tmp_path)
    assert (done.returncode, STRESS & set(differences(done.stdout))) == (0, set())


@pytest.mark.slow
def test_an_interrupted_replay_records_nothing(study: Path, trials: list[Run]) -> None:
    before = whole_record(study)
    program = subprocess.Popen(
        command(trials[0].info.run_id), cwd=study, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline().startswith("Trial 0")
    program.send_signal(signal.SIGINT)
    output, error = program.communicate(timeout=LONGEST)
    assert program.returncode == 130
    assert output.endswith("\nInterrupted; nothing was recorded.\n")
    assert error == ""
    assert whole_record(study) == before


@pytest.mark.slow
def test_trials_of_real_pictures_by_two_workers_have_equal_metrics(archive: Path, tmp_path: Path) -> None:
    """One of two workers has half the cores, so its sums have other bits than those of a single worker."""
    path = tmp_path / "away.zip"
    path.symlink_to(archive)
    space = {"layers": [1, 2], "image_size": 64, "dense_units": 32, "dropout": 0.3, "precision": "auto"}
    data, options = {"source": "kaggle", "path": "away.zip"}, {"trials": 3, "workers": 2}
    done = search(write(tmp_path, data=data, hyperparameters=space, search=options), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    path.unlink()
    _, trials = runs(tmp_path, "small")
    run = trials[-1]
    assert int(run.data.tags["pneumo.threads"]) == max(1, usable_cores() // 2)
    missing = replay(run.info.run_id, folder=tmp_path)
    assert missing.returncode == 2
    assert re.fullmatch(r"pneumo\.replay: away\.zip: there is no such file .*; give --data .*\n", missing.stderr)
    done = replay(run.info.run_id, "--data", archive, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert SAME in done.stdout
    assert "561 validation pictures in common" in done.stdout
    assert EQUAL in done.stdout
