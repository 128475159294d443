"""python -m pneumo.promote: what it evaluates, when it refuses, what it records, and what a kill leaves."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow.entities import Run
from sklearn import metrics

from pneumo.evidence.scaling import scale_probabilities
from pneumo.spec.errors import RequestError
from pneumo.spec.promotion import FIGURES
from tests.support.databases import copy_database
from tests.support.new_stores import new_database
from tests.support.program import LONGEST, PHANTOMS, client, command, runs, search, write
from tests.support.promotions import STUDY, PromoteHere, aliases, openings, promote, promotion_runs

TEST_PLOTS = {"confusion_matrix", "roc", "precision_recall", "calibration", "mistakes"}


@pytest.mark.slow
def test_a_promotion_leaves_its_evidence(study: Path, promote_here: PromoteHere) -> None:
    done = promote_here(study, STUDY, "--force", "a test of the record")
    (run,) = promotion_runs(study)
    assert run.info.status == "FINISHED"
    parent, trials = runs(study, STUDY)
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    best = trials[int(parent.data.metrics["best_trial"])]
    assert run.data.tags["pneumo.run"] == best.info.run_id
    for figure in FIGURES:
        low, value, high = (run.data.metrics[f"test_{figure}{end}"] for end in ("_low", "", "_high"))
        assert figure == "calibration_error" or low <= value <= high
    store = client(study)
    assert {f"plots/{name}.png" for name in TEST_PLOTS} == {
        f.path for f in store.list_artifacts(run.info.run_id, "plots")
    }
    assert run.inputs is not None
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == parent.data.tags["pneumo.data.test"]
    check_metrics(study, run)

    version = store.get_model_version_by_alias(STUDY, "champion")
    assert version.run_id == run.info.run_id
    assert version.tags["pneumo.run"] == best.info.run_id
    assert version.tags["pneumo.data.training"] == parent.data.tags["pneumo.data.training"]
    assert {f"test_{figure}" for figure in FIGURES} <= set(version.tags)
    for text in ("phantoms", "Limits", "95 %", "Study `small`"):
        assert text in (version.description or "")
    assert "generated phantoms" in done.stdout
    assert "models:/small@champion" in done.stdout
    assert aliases(study) == {"champion": 1}
    (opening,) = openings(study)
    assert opening["run_id"] == best.info.run_id
    assert opening["promotion"] == run.info.run_id
    assert opening["who"]
    assert "This study opened the test pictures 1 time:" in done.stdout
    assert "Warning" not in done.stdout


def check_metrics(folder: Path, run: Run) -> None:
    """Compute the metrics with scikit-learn from the recorded predictions, and compare them with the recorded metrics."""
    file = client(folder).download_artifacts(run.info.run_id, "predictions.csv")
    rows = list(csv.DictReader(Path(file).read_text().splitlines()))
    labels = [int(row["label"] == "PNEUMONIA") for row in rows]
    probabilities = [float(row["probability"]) for row in rows]
    predicted = [int(p >= float(run.data.params["threshold"])) for p in probabilities]
    expected = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "sensitivity": metrics.recall_score(labels, predicted),
        "specificity": metrics.recall_score(labels, predicted, pos_label=0),
        "auc": metrics.roc_auc_score(labels, probabilities),
        "average_precision": metrics.average_precision_score(labels, probabilities),
        "brier": metrics.brier_score_loss(labels, probabilities),
    }
    assert {name: run.data.metrics[f"test_{name}"] for name in expected} == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_the_baseline_does_not_beat_itself_and_force_stores_its_reason(study: Path, promote_here: PromoteHere) -> None:
    _, trials = runs(study, STUDY)
    baseline, other = trials[0].info.run_id, trials[1].info.run_id
    refused = promote_here(study, baseline, status=3)
    assert "refused" in refused.stdout
    assert "the study's baseline, trial 0, the same trial" in refused.stdout
    assert aliases(study) == {"challenger": 1}
    assert len(openings(study)) == 1

    repeated = promote_here(study, baseline, status=3)
    assert "Refused: version 1 of small" in repeated.stdout
    assert len(openings(study)) == len(promotion_runs(study)) == 1, "the same promotion was evaluated twice"

    forced = promote_here(study, baseline, "--force", "nothing else is there yet")
    assert "forced: nothing else is there yet" in forced.stdout
    assert aliases(study) == {"champion": 1}
    assert len(openings(study)) == 1
    tags = client(study).get_model_version(STUDY, "1").tags
    assert (tags["pneumo.forced"], tags["pneumo.gate"]) == ("nothing else is there yet", "forced")

    second = promote_here(study, other, "--force", "to have two")
    assert "Compared with the champion, version 1:" in second.stdout
    assert "were opened 2 times" in second.stdout
    assert aliases(study) == {"champion": 2, "previous": 1}
    assert len(openings(study)) == 2

    settled = promote_here(study, other)
    assert "Already promoted: version 2 of small is champion, forced: to have two." in settled.stdout
    assert len(openings(study)) == 2

    rolled_back = promote_here(study, "--rollback", STUDY)
    assert "version 1 has the alias champion again; version 2 is now previous" in rolled_back.stdout
    assert aliases(study) == {"champion": 1, "previous": 2}


@pytest.mark.slow
def test_the_operating_point_comes_from_validation_and_floors_refuse(study: Path, promote_here: PromoteHere) -> None:
    settings = ["--set", "promote.threshold=sensitivity>=0.99", "--set", "promote.calibration=temperature"]
    settings += ["--set", "promote.on=validation"]
    floors = ["--set", "promote.floors={specificity: 1.0}"]
    done = promote_here(study, STUDY, *settings, *floors, status=3)
    assert "floor 1" in done.stdout
    (run,) = promotion_runs(study)
    assert run.data.params["threshold_rule"] == "sensitivity>=0.99"
    temperature, threshold = float(run.data.params["temperature"]), float(run.data.params["threshold"])
    assert temperature != 1.0
    file = client(study).download_artifacts(run.data.tags["pneumo.run"], "predictions.csv")
    rows = list(csv.DictReader(Path(file).read_text().splitlines()))
    cases = [float(row["probability"]) for row in rows if row["label"] == "PNEUMONIA"]
    sensitivity = float(np.mean(scale_probabilities(np.array(cases, np.float32), temperature) >= threshold))
    assert sensitivity >= 0.99
    assert aliases(study) == {"challenger": 1}


@pytest.mark.slow
def test_other_pictures_kinds_and_classes_are_refused_before_the_test_set_is_opened(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promote_here: PromoteHere
) -> None:
    monkeypatch.chdir(study)  # MLflow looks for a version's model in the store of the current folder
    other = write(
        tmp_path, name="other", data=PHANTOMS | {"phantom": {"patients": 26, "size": 64}}, search={"trials": 1}
    )
    assert search(other, folder=tmp_path).returncode == 0
    store = client(study)
    store.create_registered_model("xrays", tags={"pneumo.data": "kaggle"})
    done = promote_here(study, STUDY, "--model", "xrays", status=2)
    assert done.stderr.count("\n") == 1
    assert "its versions are trained on X-rays, this study on phantoms" in done.stderr
    model = runs(study, STUDY)[1][0].outputs.model_outputs[0].model_id  # type: ignore[union-attr]
    store.create_registered_model("covid", tags={"pneumo.data": "phantom"})
    store.create_model_version("covid", f"models:/{model}", tags={"pneumo.classes": "NORMAL and COVID"})
    store.set_registered_model_alias("covid", "champion", "1")
    differs = promote_here(study, STUDY, "--model", "covid", status=2)
    assert "version 1 distinguishes NORMAL and COVID, this study NORMAL and PNEUMONIA" in differs.stderr
    changed = promote_here(study, STUDY, "--data", tmp_path / "nothing.zip", status=2)
    assert "nothing.zip" in changed.stderr
    assert openings(study) == []
    assert promotion_runs(study) == []


KILLED = """
import os, signal, sys
import mlflow.tracking.client as tracking
from pneumo.promote.__main__ import app

killed_at, writes = int(sys.argv.pop(1)), 0
WRITES = ("create_", "log_", "set_", "update_run", "finalize_", "delete_")

def count(name, write):
    def call(self, *arguments, **named):
        global writes
        if writes == killed_at:
            print("killed before", name, file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        writes += 1
        return write(self, *arguments, **named)
    return call

for name in dir(tracking.MlflowClient):
    if name.startswith(WRITES):
        setattr(tracking.MlflowClient, name, count(name, getattr(tracking.MlflowClient, name)))
sys.argv[0] = "pneumo.promote"
from pneumo.console.command import run_command
run_command(app, "promote")
"""
STEPS = (0, 2, 4, 6, 9, 11, 13, 15, 16, 17, 19, 21)
"""Numbers of the writes before which a promotion is killed, with each kind of write among them. A promotion makes fewer writes
than the last number, so that one runs to its end."""


@pytest.fixture(scope="module")
def two(studied: Path) -> tuple[Path, str, list[str]]:
    """A study with a champion and a previous champion, the run to promote next, and the names of the writes killed so far."""
    assert search(studied / "experiment.yaml", "--trials", 3, folder=studied).returncode == 0
    _, trials = runs(studied, STUDY)
    for trial in trials[:2]:
        promote(studied, trial.info.run_id, "--force", "to have a champion")
    assert aliases(studied) == {"champion": 2, "previous": 1}
    copy_database(studied / "mlflow.db", studied / "two.db")
    return studied, trials[2].info.run_id, []


def check_registry(folder: Path) -> None:
    """Check that each version with an alias has its metrics as tags and in its run, and that its model is complete."""
    store = client(folder)
    for alias, number in store.get_registered_model(STUDY).aliases.items():
        version = store.get_model_version(STUDY, str(number))
        assert {f"test_{figure}" for figure in FIGURES} <= set(version.tags), alias
        assert version.description
        run = store.get_run(str(version.run_id))
        assert {f"test_{figure}" for figure in FIGURES} <= set(run.data.metrics)
        assert run.data.tags["pneumo.judged"] == "true"
        assert str(store.get_logged_model(str(version.source).removeprefix("models:/")).status) == "READY"


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_promotion_that_is_killed_at_a_step_is_finished_by_the_same_command(
    two: tuple[Path, str, list[str]], step: int, promote_here: PromoteHere
) -> None:
    folder, run_id, killed_writes = two
    copy_database(folder / "two.db", folder / "mlflow.db")
    script = [sys.executable, "-c", KILLED, str(step), run_id, "--force", "to finish it"]
    killed = subprocess.run(script, cwd=folder, capture_output=True, text=True, timeout=LONGEST, check=False)
    was_killed = killed.returncode == -9
    if was_killed:
        killed_writes.append(killed.stderr.rsplit("killed before ", 1)[1].strip())
    else:
        assert killed.returncode == 0, killed.stderr
    check_registry(folder)
    after_kill = aliases(folder)
    assert after_kill["champion"] in (2, 3)
    if after_kill["champion"] == 2:
        assert after_kill["previous"] == 1, "the registry is not as it was before"

    done = promote_here(folder, run_id, "--force", "to finish it")
    check_registry(folder)
    assert aliases(folder) == {"champion": 3, "previous": 2}
    assert "version 3" in done.stdout
    store = client(folder)
    assert len(store.search_model_versions(f"name = '{STUDY}'")) == 3
    assert {run.info.status for run in promotion_runs(folder)} == {"FINISHED"}
    assert len(promotion_runs(folder)) == len(openings(folder)) == 3
    assert "pneumo.moving" not in store.get_registered_model(STUDY).tags
    models = store.search_logged_models([promotion_runs(folder)[0].info.experiment_id])
    served = [model for model in models if model.name.startswith("small-promotion-")]
    assert [str(model.status) for model in served] == ["READY"] * 3
    if step == STEPS[-1]:
        assert not was_killed, "a promotion makes more writes than STEPS says"
        steps = {"create_run", "log_artifacts", "finalize_logged_model", "create_model_version", "set_terminated"}
        assert steps | {"set_registered_model_alias", "delete_registered_model_tag"} <= set(killed_writes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "nobody: neither a study nor a run"),
        (["--alias", "challenger"], "--alias challenger: expected letters"),
        (["--alias", "v3"], "--alias v3"),
        (["--set", "search.trials=3"], "a promotion accepts only settings of the promote block"),
        ([], "has no study yet; python -m pneumo.search makes one"),
        (["--rollback", "--model", "nobody"], "has no registered model 'nobody'"),
        (["f" * 32], "neither a study nor a run"),
    ],
)
def test_a_wrong_request_is_one_line(
    arguments: list[str], message: str, project: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pneumo.promote.__main__ import app

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{empty_store}")
    with pytest.raises(RequestError, match=message.replace("(", r"\(")) as error:
        app(arguments, standalone_mode=False)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    new_database(path)
    return path


def test_no_store_is_created_if_there_is_none(project: Path) -> None:
    done = subprocess.run(command(STUDY, verb="promote"), cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there are no runs here" in done.stderr
    assert not (project / "mlflow.db").exists()
