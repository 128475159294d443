"""The outbox with a real MLflow: refused writes, writes while MLflow is away, and late answers."""

from __future__ import annotations

import json
import os
import queue
import socket
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.entities import ViewType

from pneumo.spec.errors import RequestError
from pneumo.tracking.operations import (
    CreateRun,
    DiscardModel,
    LogBatch,
    LogInputs,
    LogModel,
    MetricPoint,
    RemoveModel,
    SetTerminated,
    UsedDataset,
)
from pneumo.tracking.outbox import Outbox, open_outbox
from pneumo.tracking.sender import Outage, Sender, check_same_store
from pneumo.tracking.store import Store, connect
from pneumo.tracking.study import close_left_over, end_trial, start_trial
from pneumo.tracking.trial_log import TrialLog
from tests.support.new_stores import new_store
from tests.support.outboxes import files, saved_model, send, sent
from tests.support.postgres import Postgres
from tests.support.recorded import begun


def test_a_trial_that_is_taken_over_closes_the_run_that_a_dead_search_left(store: Store, outbox: Outbox) -> None:
    study = begun(store, "taken over", outbox)
    left, other = (sent(outbox, store, start_trial(study, number, {}, 0)) for number in range(2))
    taken = start_trial(study, 0, {}, 0, close_earlier=True)
    assert not outbox.has_arrived(taken)
    run_id = sent(outbox, store, taken)
    assert outbox.has_arrived(taken)
    TrialLog(outbox, run_id).epoch({"loss": 0.5}, 1)
    assert not outbox.has_arrived(taken)
    assert outbox.has_arrived(other)
    statuses = [store.client.get_run(run).info.status for run in (left, other, run_id)]
    assert statuses == ["KILLED", "RUNNING", "RUNNING"]


def test_what_is_refused_is_said_once_and_kept_while_the_rest_goes_on(store: Store, outbox: Outbox) -> None:
    study = begun(store, "refused", outbox)
    first, second = (sent(outbox, store, start_trial(study, number, {}, 0)) for number in range(2))
    store.client.delete_run(first)
    for run_id in (first, second):
        TrialLog(outbox, run_id).epoch({"loss": 0.5}, 1)
        end_trial(study, run_id, "complete")
    lines: list[str] = []
    with Sender(outbox, store, say=pytest.fail, complain=lines.append) as sender:
        assert sender.flush(0)
    assert len(lines) == 1
    assert "refuses" in lines[0]
    assert str(outbox.path) in lines[0]
    assert store.client.get_run(second).info.status == "FINISHED"
    assert store.client.get_run(first).data.metrics == {}

    store.client.restore_run(first)
    send(open_outbox(outbox.path), store)
    assert store.client.get_run(first).data.metrics == {"loss": 0.5}
    assert store.client.get_run(first).info.status == "FINISHED"


@pytest.mark.parametrize("damaged", ["", "flavors: [", "\0"])
def test_a_damaged_model_is_refused_while_the_rest_goes_on(store: Store, outbox: Outbox, damaged: str) -> None:
    study = begun(store, "damaged", outbox)
    key = start_trial(study, 0, {}, 0)
    with outbox.append_folder(key, LogModel()) as folder:
        (folder / "MLmodel").write_text(damaged)
    TrialLog(outbox, key).epoch({"loss": 0.5}, 1)
    lines: list[str] = []
    with Sender(outbox, store, say=pytest.fail, complain=lines.append) as sender:
        assert sender.flush(0)
    assert len(lines) == 1
    assert "refuses a write: log_model: " in lines[0]
    assert store.client.get_run(str(outbox.run_id(key))).data.metrics == {"loss": 0.5}
    assert outbox.remaining() == 0
    assert list(outbox.waiting().values()) == [1]


def test_a_model_that_cannot_be_removed_keeps_nobody_waiting(project: Path) -> None:
    store, outbox = new_store(project), open_outbox(project / "outbox")
    client = store.client
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        away = f"ftp://127.0.0.1:{taken.getsockname()[1]}/models"
        experiment = client.create_experiment("stuck", artifact_location=away)
        run_id = client.create_run(experiment).info.run_id
        client.create_logged_model(experiment, name="model", source_run_id=run_id)
        outbox.append(run_id, RemoveModel("not among the best"))
        TrialLog(outbox, run_id).epoch({"loss": 0.5}, 1)
        lines: list[str] = []
        with Sender(outbox, store, say=pytest.fail, complain=lines.append) as sender:
            assert sender.flush(0)
    assert len(lines) == 1
    assert f"the model of run {run_id} cannot be removed: " in lines[0]
    assert client.get_run(run_id).data.metrics == {"loss": 0.5}
    assert (outbox.remaining(), outbox.waiting()) == (0, {run_id: 1})
    assert open_outbox(outbox.path).remaining() == 1  # it is tried again
    assert len(client.search_logged_models([experiment])) == 1


def test_a_trial_whose_run_is_refused_keeps_nobody_waiting(store: Store, outbox: Outbox) -> None:
    study = begun(store, "refused-run", outbox)
    store.client.delete_experiment(study.experiment_id)
    key = start_trial(study, 0, {}, 0)
    TrialLog(outbox, key).epoch({"loss": 0.5}, 1)
    lines: list[str] = []
    with Sender(outbox, store, say=pytest.fail, complain=lines.append) as sender:
        assert sender.flush(0)
        assert sender.run_id(key) == key
    assert len(lines) == 1

    store.client.restore_experiment(study.experiment_id)
    run_id = sent(open_outbox(outbox.path), store, key)
    assert store.client.get_run(run_id).data.metrics == {"loss": 0.5}


def test_where_nobody_answers_all_is_kept_and_arrives_later(store: Store, outbox: Outbox) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        away = Store(f"http://someone:secret@127.0.0.1:{taken.getsockname()[1]}")
        study = begun(store, "away", outbox)
        lines: list[str] = []
        waited: list[Outage | None] = []
        key = start_trial(study, 0, {}, 0)
        with Sender(outbox, away, say=lines.append, complain=pytest.fail) as sender:
            assert sender.run_id(key) == key
            TrialLog(outbox, key).epoch({"loss": 0.5}, 1)
            assert not sender.flush(0.5, show_progress=waited.append)
            assert not sender.flush(1e9, interrupted=lambda: True)
            assert sender.outage is not None
            assert sender.outage.reason == "connection refused"
    assert [line.startswith("MLflow is away (connection refused)") for line in lines] == [True]
    assert [outage and outage.reason for outage in waited] == ["connection refused"]
    assert outbox.remaining() > 0
    run_id = sent(outbox, store, key)
    assert store.client.get_run(run_id).data.metrics == {"loss": 0.5}


def test_who_is_in_a_hurry_waits_for_no_server_that_hangs(store: Store, outbox: Outbox) -> None:
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen()  # nobody answers
        start_trial(begun(store, "hurry", outbox), 0, {}, 0)
        before = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
        with Sender(
            outbox, Store(f"http://127.0.0.1:{hanging.getsockname()[1]}"), say=pytest.fail, complain=pytest.fail
        ) as sender:
            assert not sender.flush(1e9, interrupted=lambda: True)
            assert sender.outage is None  # flush returned before the outage was noticed
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == before
    send(outbox, store)


def test_what_a_late_answer_doubled_is_deleted(store: Store, outbox: Outbox) -> None:
    study = begun(store, "doubled", outbox)
    key = start_trial(study, 0, {}, 0)
    saved_model(outbox, key)
    run_id, client = sent(outbox, store, key), store.client
    client.create_run(study.experiment_id, tags={"pneumo.key": key})
    client.create_logged_model(study.experiment_id, name="model", source_run_id=run_id)
    end_trial(study, key, "complete")
    send(outbox, store)
    active = client.search_runs([study.experiment_id], "tags.`pneumo.key` != ''", run_view_type=ViewType.ACTIVE_ONLY)
    assert [run.info.run_id for run in active] == [run_id]
    (model,) = client.search_logged_models([study.experiment_id])
    assert str(model.status) == "READY"

    # A run that is created even later is found when the study is resumed.
    tags = {"pneumo.key": key, "mlflow.parentRunId": study.run_id}
    later = client.create_run(study.experiment_id, tags=tags).info.run_id
    assert close_left_over(study, {key: ("complete", None)}) == [later]
    send(outbox, store)
    active = client.search_runs([study.experiment_id], "tags.`pneumo.key` != ''", run_view_type=ViewType.ACTIVE_ONLY)
    assert [(run.info.run_id, run.info.status) for run in active] == [(run_id, "FINISHED")]


def test_a_run_that_was_made_late_is_closed_as_its_trial_ended(store: Store, outbox: Outbox, tmp_path: Path) -> None:
    study = begun(store, "late", outbox)
    run_id = sent(outbox, store, key := start_trial(study, 0, {}, 0))
    other = open_outbox(tmp_path / "other")  # of a search in another folder or on another machine
    elsewhere = begun(store, "late", other)
    assert close_left_over(elsewhere, {key: ("complete", None)}) == [run_id]
    send(other, store)
    run = store.client.get_run(run_id)
    assert (run.info.status, run.data.tags["pneumo.state"]) == ("FINISHED", "complete")


@pytest.mark.slow
def test_a_database_that_is_locked_is_away_like_a_server(
    outbox: Outbox, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = connect(f"sqlite:///{project}/locked.db")
    key = start_trial(begun(store, "locked", outbox), 0, {}, 0)
    lines: queue.Queue[str] = queue.Queue()
    capfd.readouterr()
    with Sender(outbox, store, say=lines.put, complain=pytest.fail) as sender:
        with closing(sqlite3.connect(project / "locked.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert "database is locked" in lines.get(timeout=120)
        assert lines.get(timeout=120) == "MLflow is back"
        assert sender.flush(0)
    assert store.client.get_run(outbox.run_id(key) or "").data.params == {"seed": "0"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_database_without_a_free_connection_refuses_nothing(
    outbox: Outbox, project: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking._tracking_service.utils import _get_store

    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "1")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", "1")
    store = connect(postgres.create("crowded"))
    key = start_trial(begun(store, "crowded", outbox), 0, {}, 0)
    lines: queue.Queue[str] = queue.Queue()
    with Sender(outbox, store, say=lines.put, complain=pytest.fail) as sender:
        engine = _get_store(store.uri).engine  # type: ignore[no-untyped-call]
        with engine.connect(), engine.connect():
            assert "no answer in time" in lines.get(timeout=120)
        assert lines.get(timeout=120) == "MLflow is back"
        assert sender.flush(0)
    assert store.client.get_run(outbox.run_id(key) or "").data.params == {"seed": "0"}


def test_what_is_left_for_another_mlflow_is_not_sent_to_this_one(store: Store, outbox: Outbox, project: Path) -> None:
    other = connect(f"sqlite:///{project}/other.db")
    check_same_store(outbox, other)  # the outbox is empty
    start_trial(begun(store, "elsewhere", outbox), 0, {}, 0)
    check_same_store(outbox, store)
    with pytest.raises(RequestError, match=r"for another MLflow than .*other\.db; set MLFLOW_TRACKING_URI"):
        check_same_store(outbox, other)


def test_operations_that_an_earlier_version_appended_are_delivered(store: Store, outbox: Outbox) -> None:
    study = begun(store, "earlier", outbox)
    saved_model(outbox, "pending-0")  # Its folder is used below, its row is replaced.
    outbox.append_files("pending-0", {"history.csv": "epoch\n"})
    model, artifacts = (queued.folder for queued in outbox.first(2))
    assert model is not None
    assert artifacts is not None
    tags = {"pneumo.role": "trial", "pneumo.trial": "0", "mlflow.parentRunId": study.run_id}
    created = {
        "experiment_id": study.experiment_id,
        "name": "trial-0000",
        "start_time": 1_700_000_000_000,
        "tags": tags,
    }
    dataset = {"name": "phantoms", "digest": "01", "source_type": "local", "source": "{}", "profile": "{}"}
    rows: list[tuple[str, dict[str, object], str | None]] = [
        ("create_run", created, None),
        ("log_batch", {"params": {"layers": "1", "seed": "7"}}, None),
        ("log_inputs", {"datasets": [["training", dataset]]}, None),
        ("log_batch", {"metrics": [["val_auc", 0.5, 1_700_000_000_001, 1]]}, None),
        ("log_model", {}, model.name),
        ("log_artifacts", {}, artifacts.name),
        ("log_batch", {"metrics": [["best_val_auc", 0.5, 1_700_000_000_002, 0]], "of_model": True}, None),
        ("log_batch", {"tags": {"pneumo.state": "complete"}}, None),
        ("set_terminated", {"status": "FINISHED", "end_time": 1_700_000_000_003}, None),
        ("remove_model", {"why": "not among the best"}, None),
        ("discard_model", {}, None),
    ]
    with closing(sqlite3.connect(outbox.path / "outbox.db")) as database, database:
        database.execute("DELETE FROM operations")
        database.executemany(
            "INSERT INTO operations (run, call, arguments, folder) VALUES ('pending-0', ?, ?, ?)",
            [(call, json.dumps(arguments), folder) for call, arguments, folder in rows],
        )
    run = store.client.get_run(sent(outbox, store, "pending-0"))
    assert (run.info.run_name, run.info.status, run.info.end_time) == ("trial-0000", "FINISHED", 1_700_000_000_003)
    assert run.data.params == {"layers": "1", "seed": "7"}
    assert run.data.metrics == {"val_auc": 0.5, "best_val_auc": 0.5}
    assert run.data.tags.items() >= (tags | {"pneumo.state": "complete"}).items()
    assert run.data.tags["pneumo.model_removed"] == "not among the best"
    assert run.inputs is not None
    assert [used.dataset.digest for used in run.inputs.dataset_inputs] == ["01"]
    assert files(store.client, run.info.run_id) == ["history.csv"]


def test_rows_have_the_names_and_arguments_of_earlier_versions(outbox: Outbox) -> None:
    outbox.append("run", CreateRun("1", "trial-0000", 2, {"pneumo.role": "trial"}))
    outbox.append("run", LogBatch([MetricPoint("loss", 0.5, 3, 1)], {"seed": "7"}, {"a": "b"}, of_model=True))
    outbox.append("run", LogInputs([UsedDataset("training", {"digest": "01"})]))
    outbox.append("run", SetTerminated("FAILED", 4))
    outbox.append("run", DiscardModel())
    outbox.append("run", RemoveModel("not among the best"))
    with closing(sqlite3.connect(outbox.path / "outbox.db")) as database:
        rows = database.execute("SELECT call, arguments FROM operations ORDER BY number").fetchall()
    metrics = {"metrics": [["loss", 0.5, 3, 1]], "params": {"seed": "7"}, "tags": {"a": "b"}, "of_model": True}
    assert [(call, json.loads(arguments)) for call, arguments in rows] == [
        ("create_run", {"experiment_id": "1", "name": "trial-0000", "start_time": 2, "tags": {"pneumo.role": "trial"}}),
        ("log_batch", metrics),
        ("log_inputs", {"datasets": [["training", {"digest": "01"}]]}),
        ("set_terminated", {"status": "FAILED", "end_time": 4}),
        ("discard_model", {}),
        ("remove_model", {"why": "not among the best"}),
    ]
    assert [type(queued.operation).__name__ for queued in outbox.first(2)] == ["CreateRun", "LogBatch"]


def test_an_operation_that_this_version_does_not_know_is_refused(store: Store, outbox: Outbox) -> None:
    run_id = sent(outbox, store, start_trial(begun(store, "unknown", outbox), 0, {}, 0))
    with closing(sqlite3.connect(outbox.path / "outbox.db")) as database, database:
        database.execute("INSERT INTO operations (run, call, arguments) VALUES (?, 'log_traces', '{}')", (run_id,))
    TrialLog(outbox, run_id).epoch({"loss": 0.5}, 1)
    lines: list[str] = []
    with Sender(outbox, store, say=pytest.fail, complain=lines.append) as sender:
        assert sender.flush(0)
    assert len(lines) == 1
    assert "MLflow refuses a write: log_traces: KeyError: 'log_traces'" in lines[0]
    assert store.client.get_run(run_id).data.metrics == {"loss": 0.5}


def test_a_disk_that_takes_nothing_is_an_error_of_the_system(outbox: Outbox) -> None:
    os.truncate(outbox.path / "outbox.db", 100)
    with pytest.raises(OSError, match=r"outbox"):
        TrialLog(outbox, "run").epoch({"loss": 0.5}, 1)


def test_a_run_is_closed_after_its_plots_and_no_other_run_waits_for_them(store: Store, outbox: Outbox) -> None:
    study, may_draw = begun(store, "drawn", outbox), threading.Event()
    plotted, other = (start_trial(study, number, {}, 0) for number in range(2))
    TrialLog(outbox, plotted).plots(b"values")
    for key in (plotted, other):
        end_trial(study, key, "complete")

    def draw(values: bytes) -> Mapping[str, bytes]:
        assert values == b"values"
        assert may_draw.wait(60)
        return {"plots/roc.png": b"\x89PNG"}

    with Sender(outbox, store, say=pytest.fail, complain=pytest.fail, draw=draw) as sender:
        while outbox.waiting().keys() - {outbox.run_id(plotted)}:
            pass  # the other run arrives although the plots are not drawn
        assert store.client.get_run(sender.run_id(other)).info.status == "FINISHED"
        run_id = sender.run_id(plotted)
        assert store.client.get_run(run_id).info.status == "RUNNING"
        may_draw.set()
        assert sender.flush(0)
    assert store.client.get_run(run_id).info.status == "FINISHED"
    assert files(store.client, run_id) == ["plots/roc.png"]
    assert not list((outbox.path / "files").iterdir())


def test_plots_that_cannot_be_drawn_are_said_kept_and_tried_again(store: Store, outbox: Outbox) -> None:
    study, lines = begun(store, "undrawable", outbox), list[str]()
    key = start_trial(study, 0, {}, 0)
    TrialLog(outbox, key).plots(b"values")
    end_trial(study, key, "complete")

    def fail(values: bytes) -> Mapping[str, bytes]:
        raise KeyError("no font")

    with Sender(outbox, store, say=pytest.fail, complain=lines.append, draw=fail) as sender:
        assert sender.flush(0)
        run_id = sender.run_id(key)
    assert store.client.get_run(run_id).info.status == "FINISHED"
    assert len(lines) == 1
    assert lines[0].startswith("The plots of a trial cannot be drawn: KeyError: 'no font'. It is kept in ")
    assert outbox.waiting() == {run_id: 1}
    with Sender(
        open_outbox(outbox.path),
        store,
        say=pytest.fail,
        complain=pytest.fail,
        draw=lambda values: {"plots/a.png": values},
    ) as sender:
        assert sender.flush(0)
    assert files(store.client, run_id) == ["plots/a.png"]
