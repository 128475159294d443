"""python -m pneumo.promote, if the model that it must be compared with is missing, and if it is asked again."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support.program import client, runs
from tests.support.promotions import STUDY, PromoteHere, aliases, openings, promotion_runs

Loss = Callable[[MlflowClient, str], object]
"""Makes a trial's run useless for a comparison, given its id. Only the database is changed."""


def ended_as(state: str) -> Loss:
    return lambda store, run_id: store.set_tag(run_id, "pneumo.state", state)


def killed(store: MlflowClient, run_id: str) -> None:
    store.delete_tag(run_id, "pneumo.state")
    store.set_terminated(run_id, "KILLED")


def model_deleted(store: MlflowClient, run_id: str) -> None:
    store.delete_logged_model(model_of(store, run_id))


def model_of(store: MlflowClient, run_id: str) -> str:
    outputs = store.get_run(run_id).outputs
    assert outputs is not None
    return str(outputs.model_outputs[0].model_id)


LOSSES: dict[str, tuple[Loss, str]] = {
    "its run is deleted": (MlflowClient.delete_run, "trial 0, is not in MLflow: it was deleted"),
    "it failed": (ended_as("failed"), "trial 0, is not complete but failed"),
    "it was pruned": (ended_as("pruned"), "trial 0, is not complete but pruned"),
    "it was killed": (killed, "trial 0, is not complete but KILLED"),
    "its model was not kept": (
        lambda store, run_id: store.set_tag(run_id, "pneumo.model_removed", "not among the best 1"),
        "trial 0, cannot be loaded: {run}: the model of trial 0 was removed: not among the best 1",
    ),
    "its model is deleted": (model_deleted, "trial 0, cannot be loaded: models:/{model}: not in"),
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_a_gate_that_cannot_compare_refuses_before_the_test_pictures_are_opened(
    study: Path, loss: str, promote_here: PromoteHere
) -> None:
    lose, message = LOSSES[loss]
    store, (_, trials) = client(study), runs(study, STUDY)
    baseline, other = trials[0].info.run_id, trials[1].info.run_id
    expected = message.format(run=baseline, model=model_of(store, baseline))
    lose(store, baseline)

    refused = promote_here(study, other, status=3)
    check_refused(study, refused.stderr, expected)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["its run is deleted", "its model is deleted"])
def test_force_promotes_without_a_comparison(study: Path, loss: str, promote_here: PromoteHere) -> None:
    store, (_, trials) = client(study), runs(study, STUDY)
    lose, _ = LOSSES[loss]
    lose(store, trials[0].info.run_id)
    forced = promote_here(study, trials[1].info.run_id, "--force", "there is nothing else")
    assert "forced: there is nothing else" in forced.stdout
    assert "Compared with nothing: " in forced.stdout
    assert aliases(study) == {"champion": 1}
    assert client(study).get_model_version(STUDY, "1").tags["pneumo.gate"] == "forced"
    assert len(openings(study)) == 1


def check_refused(study: Path, error: str, expected: str) -> None:
    """Check that a refusal is one line that says what is missing and how to go on, and that nothing was written."""
    assert error.count("\n") == 1
    assert "the gate has nothing to compare with: " in error
    assert expected in error
    assert "--force REASON" in error
    assert openings(study) == []
    assert promotion_runs(study) == []
    assert list(client(study).search_registered_models()) == []


@contextmanager
def without(path: Path) -> Iterator[None]:
    """Take a folder away for a while."""
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)


@contextmanager
def with_content(path: Path, content: bytes) -> Iterator[None]:
    """Replace a file's content for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["files gone", "file damaged"])
def test_a_baseline_whose_files_are_lost_is_said(study: Path, damage: str, promote_here: PromoteHere) -> None:
    store, (_, trials) = client(study), runs(study, STUDY)
    location = store.get_logged_model(model_of(store, trials[0].info.run_id)).artifact_location
    files = Path(location.removeprefix("file://"))
    lost = without(files) if damage == "files gone" else with_content(files / "data" / "model.keras", b"no zip")
    with lost:
        refused = promote_here(study, trials[1].info.run_id, status=3)
    check_refused(study, refused.stderr, "the study's baseline, trial 0, cannot be loaded: ")


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["model deleted", "files gone"])
def test_a_champion_that_cannot_be_loaded_counts_as_none_with_force(
    study: Path, loss: str, promote_here: PromoteHere
) -> None:
    store, (_, trials) = client(study), runs(study, STUDY)
    first, second = trials[0].info.run_id, trials[1].info.run_id
    promote_here(study, first, "--force", "to have a champion")
    model = str(store.get_model_version(STUDY, "1").source).removeprefix("models:/")
    location = Path(store.get_logged_model(model).artifact_location.removeprefix("file://"))
    if loss == "model deleted":
        store.delete_logged_model(model)
    shutil.rmtree(location)

    refused = promote_here(study, second, status=3)
    assert refused.stderr.count("\n") == 1
    assert "nothing to compare with: the champion, version 1, cannot be loaded: models:/" in refused.stderr
    assert len(openings(study)) == len(promotion_runs(study)) == 1

    forced = promote_here(study, second, "--force", "the champion is lost")
    assert "Compared with nothing: the champion, version 1, cannot be loaded" in forced.stdout
    assert aliases(study) == {"champion": 2, "previous": 1}
    assert len(openings(study)) == 2


@pytest.mark.slow
def test_too_few_patients_are_refused_before_the_test_pictures_are_opened(
    study: Path, promote_here: PromoteHere
) -> None:
    _, trials = runs(study, STUDY)
    refused = promote_here(study, trials[1].info.run_id, "--set", "promote.gate=significant", status=3)
    assert refused.stderr.count("\n") == 1
    assert "2 test patients of NORMAL can prove no gain (promote.gate: significant needs 10" in refused.stderr
    assert openings(study) == []
    assert promotion_runs(study) == []


def database(folder: Path) -> list[str]:
    """Return everything that MLflow's database holds."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        return list(connection.iterdump())


@pytest.mark.slow
def test_an_answer_from_the_record_writes_nothing(study: Path, promote_here: PromoteHere) -> None:
    _, trials = runs(study, STUDY)
    baseline, other = trials[0].info.run_id, trials[1].info.run_id
    promote_here(study, baseline, status=3)
    before = database(study)
    refused = promote_here(study, baseline, status=3)
    assert "Refused: version 1 of small has only the alias challenger." in refused.stdout
    assert database(study) == before

    promote_here(study, baseline, "--force", "to have a champion")
    before = database(study)
    for arguments in ([], ["--force", "again"]):
        repeated = promote_here(study, baseline, *arguments)
        assert "Already promoted: version 1 of small is champion, forced: to have a champion." in repeated.stdout
        assert "\nPromoted:" not in repeated.stdout
        assert "Roll back:" not in repeated.stdout, "no version was champion before"
        assert database(study) == before

    promoted = promote_here(study, other, "--force", "to have two")
    assert "Roll back:" in promoted.stdout
    before = database(study)
    assert "Roll back:" in promote_here(study, other).stdout
    assert database(study) == before
    assert "version 1 has the alias champion again" in promote_here(study, "--rollback").stdout


@pytest.mark.slow
def test_a_promotion_whose_run_was_deleted_is_said(study: Path, promote_here: PromoteHere) -> None:
    _, trials = runs(study, STUDY)
    promote_here(study, trials[0].info.run_id, "--force", "to have a champion")
    (run,) = promotion_runs(study)
    shutil.rmtree(run.info.artifact_uri.removeprefix("file://"))
    lost = promote_here(study, trials[0].info.run_id, status=2)
    assert lost.stderr.count("\n") == 1
    assert "version 1 has the alias champion already, but its promotion cannot be read" in lost.stderr
