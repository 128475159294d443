"""What a study stores in MLflow, for both kinds of MLflow: a database in the folder, and a server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pneumo.spec.errors import RequestError
from pneumo.tracking.find import named_study
from pneumo.tracking.outbox import Outbox
from pneumo.tracking.pages import listen
from pneumo.tracking.sender import Sender
from pneumo.tracking.store import Store
from pneumo.tracking.study import (
    DatasetPart,
    StudyRun,
    close_left_over,
    end_study,
    end_trial,
    open_study,
    read_study,
    start_trial,
    trial_runs,
)
from pneumo.tracking.trial_log import TrialLog
from pneumo.tracking.views import STUDY_VIEW, study_page_address
from tests.support.outboxes import send, sent

pytest_plugins = ["tests.support.mlflow_server"]

EPOCH = ("loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc", "epoch_seconds")
PICTURES = [
    DatasetPart("training", "phantoms", "0123456789abcdef" * 4, "phantom:seed=0", {"num_rows": 90, "NORMAL": 30}),
    DatasetPart("validation", "phantoms", "fedcba9876543210" * 4, "phantom:seed=0", {"num_rows": 10, "NORMAL": 3}),
]


def opened(store: Store, outbox: Outbox, name: str, experiment: str = "name: it\n") -> StudyRun:
    return open_study(
        store,
        outbox,
        name=name,
        engine="optuna",
        algorithm="tpe",
        version="0.1.0",
        objectives=["val_auc"],
        searched=["layers"],
        experiment_yaml=experiment,
        description="Phantoms, not patients.",
        extra_tags={"pneumo.data.training": "0123"},
    )


def trained(study: StudyRun, number: int) -> str:
    """Record a complete trial as a worker does, and return its run's id."""
    key = start_trial(study, number, {"layers": 1 + number, "batch_norm": False, "pooling": "max"}, 7, PICTURES)
    log = TrialLog(study.outbox, key)
    for epoch in (1, 2):
        log.epoch(dict.fromkeys(EPOCH, epoch / 10), epoch)
    log.tag({"pneumo.device": "CPU"})
    log.finish({"best_epoch": 2, "best_val_auc": 0.2 + number, "parameters": 3_937_409})
    log.artifacts({"plots/roc.png": b"\x89PNG", "history.csv": "epoch,loss\n"})
    end_trial(study, key, "complete")
    return sent(study.outbox, study.store, key)


def run(store: Store, run_id: str) -> Run:
    return store.client.get_run(run_id)


def paths(client: MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
    files = client.list_artifacts(run_id, folder)
    return {file.path for file in files if not file.is_dir}.union(
        *(paths(client, run_id, file.path) for file in files if file.is_dir)
    )


def test_a_study_of_two_trials_leaves_every_name(store: Store, outbox: Outbox) -> None:
    study = opened(store, outbox, "two-trials")
    first, second = trained(study, 0), trained(study, 1)
    end_study(
        study,
        "FINISHED",
        metrics={"best_trial": 1, "best_value": 1.2, "trials_complete": 2, "trials_pruned": 0, "trials_failed": 0},
        artifacts={"plots/history.html": "<html>", "trials.csv": "number\n"},
        description="Best so far: trial 1.",
        best_run_id=second,
    )
    send(outbox, store)

    parent = run(store, study.run_id)
    assert parent.info.run_name == "two-trials"
    assert parent.info.status == "FINISHED"
    shared = {
        "pneumo.study": "two-trials",
        "pneumo.engine": "optuna",
        "pneumo.algorithm": "tpe",
        "pneumo.version": "0.1.0",
        "mlflow.source.name": "pneumo.search",
    }
    assert parent.data.tags.items() >= (shared | {"pneumo.role": "study", "pneumo.data.training": "0123"}).items()
    assert parent.data.tags["mlflow.note.content"] == "Best so far: trial 1."
    assert parent.data.tags["pneumo.best_run"] == second
    assert parent.data.metrics == {
        "best_trial": 1,
        "best_value": 1.2,
        "trials_complete": 2,
        "trials_pruned": 0,
        "trials_failed": 0,
    }
    assert paths(store.client, study.run_id) == {"experiment.yaml", "plots/history.html", "trials.csv"}

    child = run(store, first)
    assert child.info.run_name == "trial-0000"
    assert child.info.status == "FINISHED"
    own = {
        "pneumo.role": "trial",
        "pneumo.trial": "0",
        "pneumo.state": "complete",
        "pneumo.device": "CPU",
        "mlflow.parentRunId": study.run_id,
    }
    assert child.data.tags.items() >= (shared | own).items()
    assert child.data.params == {"layers": "1", "batch_norm": "false", "pooling": "max", "seed": "7"}
    assert child.data.metrics.items() >= {"best_epoch": 2, "best_val_auc": 0.2, "parameters": 3_937_409}.items()
    for name in EPOCH:
        points = [(point.step, point.value) for point in store.client.get_metric_history(first, name)]
        assert points == [(1, 0.1), (2, 0.2)]
    assert paths(store.client, first) == {"plots/roc.png", "history.csv"}
    assert [trial.number for trial in trial_runs(study.store, study.tags["pneumo.study"])] == [0, 1]


def test_a_trial_names_its_pictures(store: Store, outbox: Outbox) -> None:
    study = opened(store, outbox, "pictures")
    inputs = run(store, sent(outbox, store, start_trial(study, 0, {}, 0, PICTURES))).inputs
    assert inputs is not None
    recorded = {
        used.tags[0].value: (used.dataset.digest, json.loads(used.dataset.profile or "{}")["num_rows"])
        for used in inputs.dataset_inputs
    }
    assert recorded == {
        "training": (("0123456789abcdef" * 4)[:36], 90),
        "validation": (("fedcba9876543210" * 4)[:36], 10),
    }


def test_taking_a_study_up_finds_its_run(store: Store, outbox: Outbox) -> None:
    assert read_study(store, "taken-up") is None
    first = opened(store, outbox, "taken-up", "name: taken-up\n")
    end_study(first, "KILLED", metrics={}, artifacts={})
    send(outbox, store)
    recorded = read_study(store, "taken-up")
    assert recorded is not None
    assert (recorded.run_id, recorded.experiment_yaml) == (first.run_id, "name: taken-up\n")
    assert recorded.tags["pneumo.data.training"] == "0123"
    again = opened(store, outbox, "taken-up")
    assert (again.run_id, again.experiment_id, again.resumed) == (first.run_id, first.experiment_id, True)
    assert run(store, again.run_id).info.status == "RUNNING"


def test_what_a_dead_process_left_running_is_closed(store: Store, outbox: Outbox) -> None:
    study = opened(store, outbox, "left-over")
    finished, killed, ended = (sent(outbox, store, start_trial(study, number, {}, 0)) for number in range(3))
    end_trial(study, ended, "failed", "out of memory")
    send(outbox, store)
    assert set(close_left_over(study, {finished: ("complete", None)})) == {finished, killed}
    send(outbox, store)
    ends = {trial.run_id: (trial.status, trial.state) for trial in trial_runs(study.store, study.tags["pneumo.study"])}
    assert ends == {finished: ("FINISHED", "complete"), killed: ("KILLED", None), ended: ("FAILED", "failed")}
    assert run(store, study.run_id).info.status == "RUNNING"
    assert close_left_over(study, {}) == []


def test_an_error_is_kept_however_long(store: Store, outbox: Outbox) -> None:
    study = opened(store, outbox, "long-error")
    key = start_trial(study, 0, {}, 0)
    end_trial(study, key, "failed", "x" * 100_000)
    stored = run(store, sent(outbox, store, key)).data.tags["pneumo.error"]
    assert len(stored) >= 1000
    assert set(stored) == {"x"}


def test_a_deleted_study_says_how_to_bring_it_back(store: Store, outbox: Outbox) -> None:
    study = opened(store, outbox, "deleted")
    store.client.delete_experiment(study.experiment_id)
    with pytest.raises(RequestError, match=rf"restore --experiment-id {study.experiment_id}.*--name"):
        opened(store, outbox, "deleted")


def test_a_study_is_found_by_its_name_for_its_page(store: Store, outbox: Outbox) -> None:
    study = opened(store, outbox, "shown")
    assert named_study(store, "shown") == study.experiment_id
    with pytest.raises(RequestError, match=r"nobody: no study in .*; there is shown"):
        named_study(store, "nobody")


def test_a_taken_port_is_passed_over() -> None:
    with listen(20_000) as first, listen(first.getsockname()[1]) as second:
        assert second.getsockname()[1] > first.getsockname()[1]


def test_pages_lead_to_views_that_the_experiment_holds(store: Store, outbox: Outbox) -> None:
    study = opened(store, outbox, "views")
    tags = store.client.get_experiment(study.experiment_id).tags
    (key,) = re.findall(r"viewStateShareKey=([\w-]+)", study_page_address(study.experiment_id))
    view = json.loads(tags[f"mlflow.sharedViewState.{key}"])
    assert view["name"] == "Trials, best first"
    best_first = json.loads(view["state"])
    assert best_first["selectedColumns"] == ["metrics.`best_val_auc`", "params.`layers`"]
    curves, hyperparameters = best_first["compareRunCharts"]
    assert (curves["metricKey"], hyperparameters["selectedParams"]) == ("val_auc", ["layers"])
    assert f"mlflow.sharedViewState.{STUDY_VIEW}" in tags


def test_system_metrics_leave_the_run_as_it_is(store: Store, outbox: Outbox, capfd: pytest.CaptureFixture[str]) -> None:
    study = opened(store, outbox, "system")
    with Sender(outbox, store, say=print, complain=print) as sender:
        run_id = sender.run_id(start_trial(study, 0, {}, 0))
        log = TrialLog(outbox, run_id, first="val_auc")
        with log.system_metrics():
            log.epoch({"loss": 0.5, "val_auc": 0.6}, 1)
            while "system/cpu_utilization_percentage" not in run(store, run_id).data.metrics:
                pass
        assert sender.flush(0)
    recorded = run(store, run_id)
    assert recorded.data.metrics["system/system_memory_usage_megabytes"] > 0
    assert list(recorded.data.metrics)[:2] == ["val_auc", "loss"]  # *Compare* opens on the first
    assert recorded.info.status == "RUNNING"
    assert capfd.readouterr() == ("", "")


def test_server_artifacts_arrive_as_they_were(store: Store, outbox: Outbox, tmp_path: Path) -> None:
    study = opened(store, outbox, "bytes")
    key = start_trial(study, 0, {}, 0)
    TrialLog(outbox, key).artifacts({"plots/a.png": bytes(range(256)), "ä.csv": "name,ß\n"})
    run_id = sent(outbox, store, key)
    assert Path(store.client.download_artifacts(run_id, "plots/a.png", str(tmp_path))).read_bytes() == bytes(range(256))
    assert Path(store.client.download_artifacts(run_id, "ä.csv", str(tmp_path))).read_text("utf-8") == "name,ß\n"
