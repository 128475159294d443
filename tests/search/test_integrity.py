"""python -m pneumo.search --check: what is whole, and a line for each thing that is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pneumo.engines.engine_table import stored_studies
from pneumo.engines.stored import StoredStudy
from pneumo.engines.study_lock import lock_study
from pneumo.search.integrity import IntegrityReport, check_study, compare_records
from pneumo.tracking.inventory import Inventory, RunEntry, inventory
from pneumo.tracking.store import Store
from tests.support.program import called, client, search, write

pytestmark = pytest.mark.slow

SPACE = {
    "layers": [1, 2, 6],  # 6 cannot be built
    "filters": [2, 4, 8],
    "learning_rate": {"low": 0.001, "high": 0.01},
    "optimizer": ["adam", "sgd"],
    "momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
    "epochs": 3,
}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with complete, pruned and failed trials, one that was trained again, and a promotion by force."""
    folder = tmp_path_factory.mktemp("studied")
    options = {"trials": 9, "pruner": "median", "algorithm": "random", "confirm": {"top": 1, "seeds": 2}}
    options |= {"pruner_settings": {"n_startup_trials": 1}}
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
    """What the engine keeps of the study, and what MLflow has."""
    (engine,) = stored_studies("small", storage(studied))
    found = inventory(store(studied), "small")
    assert found is not None
    states = {trial.result.state for trial in engine.trials}
    assert states == {"complete", "pruned", "failed"}, "the space and the seed are chosen so that all are there"
    return engine, found


def test_a_whole_record_is_said_to_be_whole(studied: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in studied.rglob("*")}
    done = search("--check", "small", folder=studied)
    assert (done.returncode, done.stdout) == (0, "Study small: 9 trials, 13 runs, whole.\n"), done.stdout
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
    found = inventory(store(studied), "small")
    assert found is not None
    run_id, before = found.trials[0].run_id, found.trials[0].metrics["threshold"]
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
    mlflow, found = client(studied), inventory(store(studied), "small")
    assert found is not None
    mlflow.update_run(found.studies[0].run_id, status="RUNNING")
    try:
        with lock_study("small", storage(studied)):
            held = check_study(store(studied), "small", storage(studied))
        assert held.faults == ()
        assert "a search is at work on it" in held.notes[0]
        assert len(check_study(store(studied), "small", storage(studied)).faults) == 1
    finally:
        mlflow.update_run(found.studies[0].run_id, status="FINISHED")


def test_what_waits_for_mlflow_is_said_and_nothing_else_of_its_runs(read: tuple[StoredStudy, Inventory]) -> None:
    engine, found = read
    first, *others = found.trials
    half = replace(found, trials=(replace(first, status="RUNNING", metrics={}), *others))
    assert len(compare_records("small", engine, engine.trials, half).faults) > 1
    waiting = {first.run_id: 30, found.studies[0].run_id: 4, "pending-of-the-next": 1}
    left = compare_records("small", engine, engine.trials, half, waiting=waiting)
    wait = "writes not sent to MLflow yet: 35 (mlruns/outbox/small)"
    assert (left.faults, left.notes) == ((f"{wait}; the same search again sends them",), ())
    at_work = compare_records("small", engine, engine.trials, half, "process 7", waiting)
    assert (at_work.faults, at_work.notes) == ((), (f"{wait}: a search is at work on it (process 7)",))


def test_a_trial_that_began_while_mlflow_was_away_is_known_by_its_key(read: tuple[StoredStudy, Inventory]) -> None:
    engine, found = read
    told = engine.trials[2]
    key = next(run.tags["pneumo.key"] for run in found.trials if run.run_id == told.result.run_id)
    began = replace(told, result=replace(told.result, run_id=key))
    trials = (*engine.trials[:2], began, *engine.trials[3:])
    assert compare_records("small", replace(engine, trials=trials), trials, found).faults == ()
    waiting = compare_records("small", engine, trials, found, waiting={told.result.run_id: 1})
    assert [fault.partition(":")[0] for fault in waiting.faults] == ["writes not sent to MLflow yet"]


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
    found = inventory(store(copied), "small")
    assert found is not None
    run = next(run for run in found.trials if run.state == "complete")
    client(copied).delete_logged_model(run.models[0].model_id)
    done = search("--check", "small", folder=copied)
    said = f"trial {run.number}: run {run.run_id[:8]}: its model {run.models[0].model_id} is DELETED\n"
    assert (done.returncode, done.stdout) == (1, said + "Study small: 9 trials, 13 runs, 1 fault.\n")


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
    assert any(trial.candidate.resume_from is not None for trial in engine.trials), "one goes on from another"
    assert check_study(store(tmp_path), "small", storage(tmp_path)) == IntegrityReport("small", (), (), 6, 7)
    client(tmp_path).set_tag(engine.trials[0].result.run_id, "pneumo.state", "pruned")
    assert len(check_study(store(tmp_path), "small", storage(tmp_path)).faults) == 1


Change = Callable[[StoredStudy, Inventory], tuple[StoredStudy, Inventory]]


def changed(number: int, **values: object) -> Change:
    """A change of the run of the first trial of a state: 0 complete, 1 pruned, 2 failed."""

    def change(engine: StoredStudy, found: Inventory) -> tuple[StoredStudy, Inventory]:
        state = ("complete", "pruned", "failed")[number]
        run = next(run for run in found.trials if run.state == state)
        return engine, replace(found, trials=tuple(altered(one, values) if one is run else one for one in found.trials))

    return change


def altered(run: RunEntry, values: dict[str, object]) -> RunEntry:
    """The run with other fields; what is given of parameters, metrics and tags is laid over those that are there."""
    laid = {
        name: {**getattr(run, name), **value} if isinstance(value, dict) and name != "steps" else value
        for name, value in values.items()
    }
    return replace(run, **laid)  # type: ignore[arg-type]


def parent(**values: object) -> Change:
    return lambda engine, found: (engine, replace(found, studies=(altered(found.studies[0], values),)))


def confirmed_twice(engine: StoredStudy, found: Inventory) -> tuple[StoredStudy, Inventory]:
    return engine, replace(found, confirmations=(*found.confirmations, found.confirmations[0]))


def run_twice(engine: StoredStudy, found: Inventory) -> tuple[StoredStudy, Inventory]:
    return engine, replace(found, trials=(*found.trials, replace(found.trials[0], run_id="another")))


def killed_twice(engine: StoredStudy, found: Inventory) -> tuple[StoredStudy, Inventory]:
    killed = replace(
        found.trials[0], run_id="another", status="KILLED", tags={**found.trials[0].tags, "pneumo.state": ""}
    )
    return engine, replace(found, trials=(killed, killed, *found.trials))


def without_alias_figures(engine: StoredStudy, found: Inventory) -> tuple[StoredStudy, Inventory]:
    assert [one.alias for one in found.aliases] == ["champion"]
    return engine, replace(found, aliases=(replace(found.aliases[0], tags={}),))


BROKEN: dict[str, tuple[Change, list[str]]] = {
    "two parents": (lambda e, f: (e, replace(f, studies=f.studies * 2)), ["2 runs of its own"]),
    "a hole": (
        lambda e, f: (replace(e, numbers=(*e.numbers, 11)), f),
        ["numbering has holes: 9, 10"],
    ),
    "a double": (lambda e, f: (replace(e, numbers=(*e.numbers, 3)), f), ["trial 3: the engine has this number 2"]),
    "a lost result": (lambda e, f: (replace(e, lost=(3,)), f), ["trial 3: the engine holds it for finished"]),
    "a trial run twice": (run_twice, ["trial 0: 2 runs that are not KILLED"]),
    "a trial lost": (
        lambda e, f: (e, replace(f, trials=f.trials[1:])),
        ["trial 0: 0 runs that are not KILLED", "trial 0: its run"],
    ),
    "unknown": (
        lambda e, f: (replace(e, numbers=e.numbers[:-1]), f),
        ["the engine does not know"],
    ),
    "status": (changed(0, status="FAILED"), ["status is FAILED, and FINISHED in the engine"]),
    "state": (changed(1, tags={"pneumo.state": "complete"}), ["state is complete, and pruned in the engine"]),
    "error": (changed(2, tags={"pneumo.error": "?"}), ["error is ?, and layers=6"]),
    "parameter": (changed(0, parameters={"filters": "3"}), ["filters is 3, and"]),
    "seed": (changed(0, parameters={"seed": "77"}), ["seed is 77, and"]),
    "value": (changed(0, metrics={"best_val_auc": -1.0}), ["best_val_auc is -1.0, and"]),
    "metric": (changed(1, metrics={"val_f1": -1.0}), ["val_f1 is -1.0, and"]),
    "doubled step": (changed(0, steps={"val_auc": (1, 2, 2)}), ["val_auc has the steps 1, 2, 2, where"]),
    "missing step": (
        changed(0, steps={"loss": (1, 3), "auc": (1, 2, 3)}),
        ["loss has the steps 1, 3, where", "lengths: 2, 3"],
    ),
    "no curve": (changed(1, steps={}), ["has no learning curve"]),
    "best epoch": (changed(0, metrics={"best_epoch": 9.0}), ["in the engine", "best_epoch is 9.0, and it has 3"]),
    "artifacts": (changed(1, artifacts=frozenset({"history.csv"})), ["lacks experiment.yaml, plots/calibration.png"]),
    "no model": (changed(0, models=()), ["has 0 models"]),
    "ended before it began": (changed(0, ended=1), ["ended before it began"]),
    "never ended": (changed(0, ended=None), ["is FINISHED and has no end"]),
    "elsewhere": (changed(0, tags={"mlflow.parentRunId": "?"}), ["is not under the study's run"]),
    "killed with a state": (
        changed(0, status="KILLED"),
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
        lambda e, f: (
            e,
            replace(f, promotions=tuple(altered(r, {"tags": {"pneumo.judged": ""}}) for r in f.promotions)),
        ),
        ["the test pictures were not judged", "of no promotion that was judged"],
    ),
    "no verdict": (
        lambda e, f: (e, replace(f, promotions=tuple(replace(r, artifacts=frozenset()) for r in f.promotions))),
        ["lacks card.md, gate.json"],
    ),
    "alias": (without_alias_figures, ["has no figure of the test pictures", "of no promotion that was judged"]),
}


@pytest.mark.parametrize(("change", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_not_whole_is_named(read: tuple[StoredStudy, Inventory], change: Change, said: list[str]) -> None:
    engine, found = change(*read)
    faults = compare_records("small", engine, engine.trials, found).faults
    if said[0] == "2 runs of its own":
        faults = faults[:1]
    assert len(faults) == len(said), faults
    for part in said:
        assert any(part in fault for fault in faults), faults


def test_further_runs_that_were_killed_are_no_fault(read: tuple[StoredStudy, Inventory]) -> None:
    engine, found = killed_twice(*read)
    assert compare_records("small", engine, engine.trials, found).faults == ()


def test_a_study_that_was_killed_before_its_first_trial_is_whole(read: tuple[StoredStudy, Inventory]) -> None:
    engine = replace(read[0], numbers=(0,), trials=())
    assert compare_records("small", engine, (), None) == IntegrityReport("small", (), ("no trial was begun yet",), 0, 0)
    assert len(compare_records("small", read[0], read[0].trials, None).faults) == 1
