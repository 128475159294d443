"""python -m pneumo.search --check: a line for each fault of a study's record, and none if it is complete."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pneumo.engines.engine_table import stored_studies
from pneumo.engines.stored import StoredStudy
from pneumo.engines.study_lock import lock_study
from pneumo.search.integrity import IntegrityReport, check_study, compare_records
from pneumo.search.run_faults import STRESS_FILES, TRAINING_FILES
from pneumo.spec.names import Tags
from pneumo.spec.run import RecordedRun
from pneumo.tracking.inventory import Inventory, RunContents, read_inventory
from pneumo.tracking.store import Store, connect
from tests.support.program import STRESS, called, client, search, write

pytestmark = pytest.mark.slow

SPACE = {
    "layers": [1, 2],
    "filters": [2, 4, 8],
    "learning_rate": [0.001, 0.003, 0.01, 10.0],
    "batch_size": [1, 32],
    "optimizer": ["adam", "sgd"],
    "momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
    "weight_decay": [0.0, 1.0],
    "epochs": 3,
}

DIVERGING = {"optimizer": "sgd", "learning_rate": 10.0, "weight_decay": 1.0, "batch_size": 1}
"""A candidate that fails: each step multiplies the weights by 1 - 10, so that they grow without bound."""


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study with complete, pruned and failed trials, a confirmed trial and a forced promotion."""
    folder = tmp_path_factory.mktemp("studied")
    options = {"trials": 9, "pruner": "percentile", "algorithm": "random", "confirm": {"top": 1, "seeds": 2}}
    options |= {"pruner_settings": {"percentile": 10.0, "n_startup_trials": 1, "n_warmup_steps": 0}, "try": [DIVERGING]}
    done = search(write(folder, hyperparameters=SPACE, search=options), folder=folder)
    assert done.returncode == 0, done.stderr
    promoted = called("promote", "small", "--force", "to have one", folder=folder)
    assert promoted.returncode == 0, promoted.stderr
    return folder


def storage(folder: Path) -> str:
    return f"sqlite:///{folder}/mlruns/studies.db"


def store(folder: Path) -> Store:
    return Store(f"sqlite:///{folder}/mlflow.db")


@pytest.fixture(scope="module")
def read(studied: Path) -> tuple[StoredStudy, Inventory]:
    """The study as the engine stores it, and as MLflow does."""
    (engine,) = stored_studies("small", storage(studied))
    inventory = read_inventory(store(studied), "small")
    assert inventory is not None
    states = {trial.result.state for trial in engine.trials}
    assert states == {"complete", "pruned", "failed"}, "space and seed were chosen to give all three"
    return engine, inventory


def test_a_whole_record_is_said_to_be_whole(studied: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in studied.rglob("*")}
    done = search("--check", "small", folder=studied)
    assert (done.returncode, done.stdout) == (0, "Study small: 9 trials, 13 runs, no faults.\n"), done.stdout
    assert {path: path.stat().st_mtime_ns for path in studied.rglob("*")} == before


def test_a_study_that_is_not_there_is_status_2_and_nothing_is_made(studied: Path, tmp_path: Path) -> None:
    done = search("--check", "large", folder=studied)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--check large: there is no such study" in done.stderr
    elsewhere = search("--check", "small", folder=tmp_path)
    assert (elsewhere.returncode, elsewhere.stderr.count("\n")) == (2, 1)
    assert list(tmp_path.iterdir()) == []


def test_faults_are_status_1_a_line_each(studied: Path) -> None:
    mlflow = client(studied)
    inventory = read_inventory(store(studied), "small")
    assert inventory is not None
    run = inventory.trials[0].run
    run_id, before = run.run_id, run.metrics["threshold"]
    mlflow.log_metric(run_id, "threshold", before + 1)
    mlflow.update_run(run_id, status="RUNNING")
    try:
        done = search("--check", "small", folder=studied)
        assert done.returncode == 1
        assert f"trial 0: run {run_id[:8]} is RUNNING, and no search is at work on the study\n" in done.stdout
        assert f"trial 0: run {run_id[:8]}: threshold is {before + 1}, and {before} in the engine\n" in done.stdout
        assert done.stdout.endswith("Study small: 9 trials, 13 runs, 3 faults.\n")
    finally:
        mlflow.log_metric(run_id, "threshold", before)
        mlflow.update_run(run_id, status="FINISHED")


def test_a_run_that_a_search_works_on_is_a_note(studied: Path) -> None:
    mlflow, inventory = client(studied), read_inventory(store(studied), "small")
    assert inventory is not None
    study_run = inventory.studies[0].run.run_id
    mlflow.update_run(study_run, status="RUNNING")
    try:
        with lock_study("small", storage(studied)):
            report = check_study(store(studied), "small", storage(studied))
        assert report.faults == ()
        assert "a search is at work on it" in report.notes[0]
        assert len(check_study(store(studied), "small", storage(studied)).faults) == 1
    finally:
        mlflow.update_run(study_run, status="FINISHED")


def test_what_waits_for_mlflow_is_said_and_nothing_else_of_its_runs(read: tuple[StoredStudy, Inventory]) -> None:
    engine, inventory = read
    first, *others = inventory.trials
    partly_sent = replace(first, run=replace(first.run, status="RUNNING", metrics={}))
    incomplete = replace(inventory, trials=(partly_sent, *others))
    assert len(compare_records("small", engine, engine.trials, incomplete).faults) > 1
    waiting = {first.run.run_id: 30, inventory.studies[0].run.run_id: 4, "pending-of-the-next": 1}
    report = compare_records("small", engine, engine.trials, incomplete, waiting=waiting)
    line = "writes not sent to MLflow yet: 35 (mlruns/outbox/small)"
    assert (report.faults, report.notes) == ((f"{line}; the same search again sends them",), ())
    report = compare_records("small", engine, engine.trials, incomplete, "process 7", waiting)
    assert (report.faults, report.notes) == ((), (f"{line}: a search is at work on it (process 7)",))


def test_a_trial_that_began_while_mlflow_was_away_is_known_by_its_key(read: tuple[StoredStudy, Inventory]) -> None:
    engine, inventory = read
    run_id = engine.trials[2].result.run_id
    key = next(contents.run.tags["pneumo.key"] for contents in inventory.trials if contents.run.run_id == run_id)
    with_key = replace(engine.trials[2], result=replace(engine.trials[2].result, run_id=key))
    trials = (*engine.trials[:2], with_key, *engine.trials[3:])
    assert compare_records("small", replace(engine, trials=trials), trials, inventory).faults == ()
    report = compare_records("small", engine, trials, inventory, waiting={run_id: 1})
    assert [fault.partition(":")[0] for fault in report.faults] == ["writes not sent to MLflow yet"]


def test_a_model_whose_files_are_gone_is_found(studied: Path) -> None:
    path = next(studied.glob("mlruns/*/models/*/artifacts/data/model.keras"))
    hidden = path.rename(path.with_suffix(".hidden"))
    try:
        faults = check_study(store(studied), "small", storage(studied)).faults
        assert [fault.split(" lacks ")[1] for fault in faults] == ["data/model.keras"]
    finally:
        hidden.rename(path)


def test_a_model_that_somebody_deleted_is_named(studied: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(studied, tmp_path / "copied"))
    inventory = read_inventory(connect(f"sqlite:///{copied}/mlflow.db"), "small")
    assert inventory is not None
    contents = next(contents for contents in inventory.trials if contents.run.state == "complete")
    run, model_id = contents.run, contents.models[0].model_id
    client(copied).delete_logged_model(model_id)
    done = search("--check", "small", folder=copied)
    fault = f"trial {run.number}: run {run.run_id[:8]}: its model {model_id} is DELETED\n"
    assert (done.returncode, done.stdout) == (1, fault + "Study small: 9 trials, 13 runs, 1 fault.\n")


def test_a_study_of_another_storage_is_not_compared(studied: Path, tmp_path: Path) -> None:
    done = search("--check", "small", "--storage", f"sqlite:///{tmp_path}/none.db", folder=studied)
    assert done.returncode == 1
    assert "is of a study whose trials are not in this storage" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_keras_tuners_studies_are_checked_too(tmp_path: Path) -> None:
    space = {"filters": [2, 4, 8], "learning_rate": {"low": 0.001, "high": 0.01}, "epochs": 3}
    settings = {"factor": 3, "hyperband_iterations": 1}
    options = {"engine": "keras-tuner", "algorithm": "hyperband", "algorithm_settings": settings, "trials": 6}
    done = search(write(tmp_path, hyperparameters=space, search=options), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (engine,) = stored_studies("small", storage(tmp_path))
    assert any(trial.candidate.resume_from is not None for trial in engine.trials), "a trial continues another"
    assert check_study(store(tmp_path), "small", storage(tmp_path)) == IntegrityReport("small", (), (), 6, 7)
    client(tmp_path).set_tag(engine.trials[0].result.run_id, "pneumo.state", "pruned")
    assert len(check_study(store(tmp_path), "small", storage(tmp_path)).faults) == 1


Change = Callable[[StoredStudy, Inventory], tuple[StoredStudy, Inventory]]

RUN_FIELDS = {field.name for field in fields(RecordedRun)}


def trial(state: str, **values: object) -> Change:
    """Return a change of the run of the first trial in a state; `values` as in `altered`."""

    def change(engine: StoredStudy, inventory: Inventory) -> tuple[StoredStudy, Inventory]:
        first = next(contents for contents in inventory.trials if contents.run.state == state)
        trials = (altered(contents, **values) if contents is first else contents for contents in inventory.trials)
        return engine, replace(inventory, trials=tuple(trials))

    return change


def altered(contents: RunContents, **values: object) -> RunContents:
    """Replace fields of the run or its contents; parameters, metrics and tags are added to those that it has."""
    run_values = {
        name: {**getattr(contents.run, name), **value} if isinstance(value, dict) else value
        for name, value in values.items()
        if name in RUN_FIELDS
    }
    others = {name: value for name, value in values.items() if name not in RUN_FIELDS}
    return replace(contents, run=replace(contents.run, **run_values), **others)  # type: ignore[arg-type]


def parent(**values: object) -> Change:
    """Return a change of the study's own run."""
    return lambda engine, inventory: (
        engine,
        replace(inventory, studies=(altered(inventory.studies[0], **values),)),
    )


def promotion(**values: object) -> Change:
    """Return a change of the runs of all promotions."""
    return lambda engine, inventory: (
        engine,
        replace(inventory, promotions=tuple(altered(contents, **values) for contents in inventory.promotions)),
    )


def confirmed_twice(engine: StoredStudy, inventory: Inventory) -> tuple[StoredStudy, Inventory]:
    return engine, replace(inventory, confirmations=(*inventory.confirmations, inventory.confirmations[0]))


def run_twice(engine: StoredStudy, inventory: Inventory) -> tuple[StoredStudy, Inventory]:
    again = altered(inventory.trials[0], run_id="another")
    return engine, replace(inventory, trials=(*inventory.trials, again))


def killed_twice(engine: StoredStudy, inventory: Inventory) -> tuple[StoredStudy, Inventory]:
    killed = altered(inventory.trials[0], run_id="another", status="KILLED", tags={"pneumo.state": ""})
    return engine, replace(inventory, trials=(killed, killed, *inventory.trials))


def without_alias_figures(engine: StoredStudy, inventory: Inventory) -> tuple[StoredStudy, Inventory]:
    assert [entry.alias for entry in inventory.aliases] == ["champion"]
    return engine, replace(inventory, aliases=(replace(inventory.aliases[0], tags={}),))


LATER_PLOTS = {f"plots/{name}.png" for name in ("gradcam", "scores", "threshold")}
"""Plots of a complete trial that earlier versions did not draw."""

BROKEN: dict[str, tuple[Change, list[str]]] = {
    "two parents": (lambda e, f: (e, replace(f, studies=f.studies * 2)), ["2 runs of its own"]),
    "a hole": (
        lambda e, f: (replace(e, numbers=(*e.numbers, 11)), f),
        ["numbering has gaps: 9, 10"],
    ),
    "a double": (lambda e, f: (replace(e, numbers=(*e.numbers, 3)), f), ["trial 3: the engine has this number 2"]),
    "a lost result": (lambda e, f: (replace(e, lost=(3,)), f), ["trial 3: the engine marks it as finished"]),
    "a trial run twice": (run_twice, ["trial 0: 2 runs that are not KILLED"]),
    "a trial lost": (
        lambda e, f: (e, replace(f, trials=f.trials[1:])),
        ["trial 0: 0 runs that are not KILLED", "trial 0: its run"],
    ),
    "unknown": (
        lambda e, f: (replace(e, numbers=e.numbers[:-1]), f),
        ["the engine does not have"],
    ),
    "status": (trial("complete", status="FAILED"), ["status is FAILED, and FINISHED in the engine"]),
    "state": (trial("pruned", tags={"pneumo.state": "complete"}), ["state is complete, and pruned in the engine"]),
    "error": (trial("failed", tags={"pneumo.error": "?"}), ["error is ?, and the loss is"]),
    "parameter": (trial("complete", parameters={"filters": "3"}), ["filters is 3, and"]),
    "seed": (trial("complete", parameters={"seed": "77"}), ["seed is 77, and"]),
    "value": (trial("complete", metrics={"best_val_auc": -1.0}), ["best_val_auc is -1.0, and"]),
    "metric": (trial("pruned", metrics={"val_f1": -1.0}), ["val_f1 is -1.0, and"]),
    "doubled step": (trial("complete", steps={"val_auc": (1, 2, 2)}), ["val_auc has the steps 1, 2, 2, expected"]),
    "missing step": (
        trial("complete", steps={"loss": (1, 3), "auc": (1, 2, 3)}),
        ["loss has the steps 1, 3, expected", "lengths: 2, 3"],
    ),
    "no curve": (trial("pruned", steps={}), ["has no learning curve"]),
    "best epoch": (
        trial("complete", metrics={"best_epoch": 9.0}),
        ["in the engine", "best_epoch is 9.0, and it has 3"],
    ),
    "artifacts": (
        trial("pruned", artifacts=frozenset({"history.csv"})),
        ["lacks experiment.yaml, plots/calibration.png"],
    ),
    "artifacts of the stress suite": (
        trial("complete", artifacts=TRAINING_FILES | LATER_PLOTS),
        ["lacks plots/stress.png, stress.csv, stress_predictions.npz"],
    ),
    "no model": (trial("complete", models=()), ["has 0 models"]),
    "ended before it began": (trial("complete", ended=1), ["ended before it began"]),
    "never ended": (trial("complete", ended=None), ["is FINISHED and has no end"]),
    "elsewhere": (trial("complete", tags={"mlflow.parentRunId": "?"}), ["is not under the study's run"]),
    "killed with a state": (
        trial("complete", status="KILLED"),
        ["0 runs", "not in MLflow, or KILLED", "its state is complete"],
    ),
    "counts": (parent(metrics={"trials_failed": 99.0}), ["study: trials_failed is 99.0"]),
    "best": (parent(metrics={"best_trial": 99.0}), ["study: best_trial is 99.0"]),
    "best run": (parent(tags={"pneumo.best_run": "?"}), ["study: pneumo.best_run is ?"]),
    "openings": (parent(metrics={"test_openings": 2.0}), ["test_openings is 2, and the openings listed are 1"]),
    "no experiment": (lambda e, f: (e, replace(f, experiment_yaml=None)), ["has no experiment.yaml"]),
    "no table": (lambda e, f: (e, replace(f, trials_csv=None)), ["has no trials.csv"]),
    "another table": (lambda e, f: (e, replace(f, trials_csv="trial,state,run_id\n")), ["trials.csv has 0 rows"]),
    "confirmed twice": (confirmed_twice, ["trained again with the seed 1000000 2 times"]),
    "not judged": (
        promotion(tags={"pneumo.judged": ""}),
        ["the test pictures were not judged", "of no promotion that was judged"],
    ),
    "no verdict": (promotion(artifacts=frozenset()), ["lacks card.md, gate.json"]),
    "alias": (without_alias_figures, ["has no figure of the test pictures", "of no promotion that was judged"]),
}


@pytest.mark.parametrize(("change", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_not_whole_is_named(read: tuple[StoredStudy, Inventory], change: Change, expected: list[str]) -> None:
    engine, inventory = change(*read)
    faults = compare_records("small", engine, engine.trials, inventory).faults
    if expected[0] == "2 runs of its own":
        faults = faults[:1]
    assert len(faults) == len(expected), faults
    for part in expected:
        assert any(part in fault for fault in faults), faults


def test_a_study_of_a_version_without_the_stress_suite_is_whole(read: tuple[StoredStudy, Inventory]) -> None:
    engine, inventory = read

    def unjudged(contents: RunContents) -> RunContents:
        tags = {
            name: value
            for name, value in contents.run.tags.items()
            if name not in (Tags.STRESS, Tags.STRESS_WORST, Tags.PLOTS)
        }
        metrics = without_stress(contents.run.metrics)
        run = replace(contents.run, tags=tags, metrics=metrics)
        return replace(contents, run=run, artifacts=contents.artifacts - STRESS_FILES)

    def without_stress(metrics: Mapping[str, float]) -> Mapping[str, float]:
        return {name: value for name, value in metrics.items() if name not in STRESS}

    trials = tuple(
        replace(trial, result=replace(trial.result, metrics=without_stress(trial.result.metrics)))
        for trial in engine.trials
    )
    inventory = replace(
        inventory,
        trials=tuple(map(unjudged, inventory.trials)),
        confirmations=tuple(map(unjudged, inventory.confirmations)),
        experiment_yaml=str(inventory.experiment_yaml).replace("  stress: true\n", ""),
    )
    assert compare_records("small", replace(engine, trials=trials), trials, inventory).faults == ()


def test_further_runs_that_were_killed_are_no_fault(read: tuple[StoredStudy, Inventory]) -> None:
    engine, inventory = killed_twice(*read)
    assert compare_records("small", engine, engine.trials, inventory).faults == ()


def test_a_study_that_was_killed_before_its_first_trial_is_whole(read: tuple[StoredStudy, Inventory]) -> None:
    engine = replace(read[0], numbers=(0,), trials=())
    assert compare_records("small", engine, (), None) == IntegrityReport("small", (), ("no trial was begun yet",), 0, 0)
    assert len(compare_records("small", read[0], read[0].trials, None).faults) == 1
