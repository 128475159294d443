"""A study whose MLflow experiment was renamed is found; of one that was deleted, each verb says what happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pneumo.engines.protocol import Engine
from pneumo.search.integrity import check_study
from pneumo.search.preflight import check_same_study
from pneumo.spec.errors import RequestError
from pneumo.tracking.inventory import read_inventory
from pneumo.tracking.models import logged_models
from pneumo.tracking.promotions import find_request
from pneumo.tracking.store import Store, connect
from pneumo.tracking.study import experiment_id, read_study, trial_runs
from tests.support.new_stores import new_store
from tests.support.recorded import begun
from tests.support.stores import Written, absolute, write_store

STORAGE, ID = "sqlite:///mlruns/studies.db", "5" * 32


def search(store: Store) -> str | None:
    """Read the study as a search does that has its trials, and return the id of its run."""
    recorded = read_study(store, "small", ID)
    check_same_study(store, recorded, "small", cast(Engine, SimpleNamespace(id=ID)), finished=1)
    return recorded.run_id if recorded else None


def promote(store: Store) -> str | None:
    return find_request(store, "small").recorded.run_id


def check(store: Store) -> str | None:
    assert check_study(store, "small", STORAGE).runs == 2
    inventory = read_inventory(store, "small", ID)
    return inventory.studies[0].run.run_id if inventory else None


VERBS = pytest.mark.parametrize("verb", [search, promote, check])


@pytest.fixture
def written(project: Path) -> Written:
    return write_store(project)


@pytest.fixture
def store(written: Written) -> Store:
    store = connect(absolute("sqlite:///mlflow.db"))
    store.client.set_tag(written.study, "pneumo.id", ID)
    return store


def rename(store: Store, name: str = "ren") -> str:
    """Rename the study's MLflow experiment, and return its id."""
    experiment = store.client.get_experiment_by_name("small")
    assert experiment is not None
    store.client.rename_experiment(experiment.experiment_id, name)
    return str(experiment.experiment_id)


@VERBS
def test_a_renamed_experiment(store: Store, written: Written, verb: Callable[[Store], str | None]) -> None:
    renamed = rename(store)
    assert verb(store) == written.study
    assert experiment_id(store, "small") == renamed
    assert [run.run_id for run in trial_runs(store, "small")] == [written.trial]
    assert list(logged_models(store, "small")) == [written.trial]
    assert find_request(store, "ren").recorded.run_id == written.study
    assert find_request(store, written.trial).recorded.run_id == written.study


def test_a_search_goes_by_the_id_if_another_study_has_the_name(store: Store, written: Written, project: Path) -> None:
    rename(store)
    other = begun(store, "small", tags={"pneumo.id": "6" * 32})
    assert search(store) == written.study
    recorded = read_study(store, "small", "6" * 32)
    assert recorded is not None
    assert recorded.run_id == other.run_id


def test_a_new_study_may_have_the_name_that_was_freed(store: Store) -> None:
    rename(store)
    assert read_study(store, "small", "7" * 32) is None


@VERBS
@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_deleted_run(store: Store, written: Written, is_renamed: bool, verb: Callable[[Store], str | None]) -> None:
    if is_renamed:
        rename(store)
    store.client.delete_run(written.study)
    with pytest.raises(RequestError, match=f"is deleted in .*`mlflow runs restore --run-id {written.study}`"):
        verb(store)
    store.client.restore_run(written.study)
    assert verb(store) == written.study


@VERBS
@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_deleted_experiment(
    store: Store, written: Written, is_renamed: bool, verb: Callable[[Store], str | None]
) -> None:
    experiment = rename(store, "ren" if is_renamed else "small")
    store.client.delete_experiment(experiment)
    with pytest.raises(RequestError, match=f"`mlflow experiments restore --experiment-id {experiment}`"):
        verb(store)
    store.client.restore_experiment(experiment)
    assert verb(store) == written.study


@VERBS
def test_a_run_that_was_deleted_for_good(store: Store, written: Written, verb: Callable[[Store], str | None]) -> None:
    """As `mlflow gc` does."""
    store.client.delete_run(written.study)
    store.client._tracking_client.store._hard_delete_run(written.study)
    with pytest.raises(RequestError, match=f"its run {written.study} was deleted for good"):
        verb(store)


@VERBS
def test_another_store(project: Path, verb: Callable[[Store], str | None]) -> None:
    with pytest.raises(RequestError, match=r"not in this MLflow store|neither a study nor a run|no such study"):
        verb(new_store(project))
