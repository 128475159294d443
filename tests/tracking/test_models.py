"""A model that is removed from MLflow's own store leaves no empty folder, and nothing else is removed with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pneumo.tracking import models
from pneumo.tracking.outbox import Outbox, open_outbox
from pneumo.tracking.store import Store
from pneumo.tracking.study import end_trial, start_trial
from tests.support.new_stores import new_store
from tests.support.outboxes import saved_model, sent
from tests.support.recorded import begun

MODELS = "mlruns/*/models"


def empty_folders(folder: Path) -> list[Path]:
    return [path for path in folder.glob("mlruns/**/") if not any(path.iterdir())]


def discard(store: Store, run_id: str) -> None:
    models.discard(store, run_id)


def remove(store: Store, run_id: str) -> None:
    models.remove(store, run_id, "not among the best")


def uploaded(store: Store, run_id: str) -> None:
    """Leave the model as it is."""


def interrupted_before_the_upload(store: Store, run_id: str) -> None:
    """Leave what a process leaves that is killed after MLflow created the model."""
    models.discard(store, run_id)
    experiment = store.client.get_run(run_id).info.experiment_id
    store.client.create_logged_model(experiment, name="model", source_run_id=run_id)


def interrupted_while_uploading(store: Store, run_id: str) -> None:
    """Leave what a process leaves that is killed after the first file of the model."""
    interrupted_before_the_upload(store, run_id)
    (model_id,) = models.logged_models(store, "s").values()
    store.client.log_model_artifact(model_id, __file__)


def interrupted_while_removing(store: Store, run_id: str) -> None:
    """Leave what a process of the version before leaves that is killed after it removed the model's files."""
    for folder in Path.cwd().glob(f"{MODELS}/*/artifacts"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


STATES = [uploaded, interrupted_before_the_upload, interrupted_while_uploading, interrupted_while_removing]
Call = Callable[[Store, str], None]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("end", [discard, remove])
def test_a_model_that_is_removed_leaves_no_empty_folder(project: Path, end: Call, state: Call) -> None:
    store, outbox = new_store(project), open_outbox(project / "outbox")
    run_id = trained(store, outbox)
    state(store, run_id)
    end(store, run_id)
    assert empty_folders(project) == []
    assert models.logged_models(store, "s") == {}


def test_the_model_of_a_killed_trial_leaves_no_empty_folder(project: Path) -> None:
    store, outbox = new_store(project), open_outbox(project / "outbox")
    study = begun(store, "s", outbox)
    keys = [start_trial(study, number, {}, 0) for number in range(2)]
    for key in keys:
        saved_model(outbox, key)
    end_trial(study, keys[0], "complete")
    end_trial(study, keys[1], "killed")
    kept = sent(outbox, store, keys[0])
    assert empty_folders(project) == []
    assert set(models.logged_models(store, "s")) == {kept}
    assert [path.name for path in project.glob(f"{MODELS}/*")] == list(models.logged_models(store, "s").values())


def test_what_is_not_empty_stays(project: Path) -> None:
    store, outbox = new_store(project), open_outbox(project / "outbox")
    run_id = trained(store, outbox)
    (folder,) = project.glob(f"{MODELS}/*")
    (folder / "notes.txt").write_text("mine")
    discard(store, run_id)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def trained(store: Store, outbox: Outbox) -> str:
    """Record a trial with its model, and return the id of its run."""
    key = start_trial(begun(store, "s", outbox), 0, {}, 0)
    saved_model(outbox, key)
    return sent(outbox, store, key)
