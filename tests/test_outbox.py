"""The outbox with a real MLflow: what is appended arrives once and in order, however often who sends it dies."""

from __future__ import annotations

import os
import queue
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from pneumo.spec.errors import RequestError
from pneumo.tracking.delivery import deliver
from pneumo.tracking.outbox import Outbox, open_outbox
from pneumo.tracking.sender import Away, Sender, check_same_store
from pneumo.tracking.store import Store, connect
from pneumo.tracking.study import Pictures, StudyRun, close_left_over, end_study, end_trial, start_trial
from pneumo.tracking.trial import TrialLog
from tests.outboxes import files, record, send, sent
from tests.postgres import Postgres
from tests.recorded import begun

PICTURES = [Pictures("training", "phantoms", "01" * 16, "phantom:seed=0", {"num_rows": 90})]

# Delivers each operation until it is done, in a process of its own for each attempt: the first dies after its first call of
# MLflow, the second after its second, and so on. Says how many died.
DYING = """
import os, sys
from pathlib import Path
import sqlalchemy
from mlflow import MlflowClient
import mlflow.store.tracking.sqlalchemy_store
from pneumo.tracking.delivery import deliver
from pneumo.tracking.outbox import Outbox

class Dying(MlflowClient):
    calls = 0
    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found):
            return found
        def call(*arguments, **named):
            result = found(*arguments, **named)
            Dying.calls -= 1
            if not Dying.calls:
                os._exit(9)
            return result
        return call

sqlalchemy.orm.configure_mappers()  # here, not in each process
outbox, died = Outbox(Path(sys.argv[2])), 0
while operations := outbox.first(1):
    for calls in range(1, 100):
        if not (child := os.fork()):
            Dying.calls = calls
            deliver(Dying(sys.argv[1]), outbox, operations[0])
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9), status
        died += status == 9
        if status == 0:
            break
    outbox.remove(operations[0])
print(died)
"""

# Appends as often as it is told, and says what is safe.
APPENDING = """
import sys
from pathlib import Path
from pneumo.tracking.outbox import Outbox, timed

outbox, run = Outbox(Path(sys.argv[1])), sys.argv[2]
for number in range(1, int(sys.argv[3]) + 1):
    outbox.append(run, "log_batch", metrics=timed({"loss": number}, number))
    outbox.append_files(run, {f"{number}.txt": "x" * 10_000})
    print(number, flush=True)
"""


@pytest.fixture(scope="module", params=["folder", pytest.param("server", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A place that runs can stand in, shared by this module's tests; each takes a study name of its own."""
    folder = tmp_path_factory.mktemp("project")
    address = f"sqlite:///{folder}/mlflow.db" if request.param == "folder" else request.getfixturevalue("mlflow_server")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where MLflow puts the artifacts of a database's runs
        return connect(address)


@pytest.fixture
def outbox(project: Path) -> Outbox:
    return open_outbox(project / "outbox")


def saved_model(outbox: Outbox, run: str) -> None:
    """What a worker saves, but of no network: a description and a file."""
    from mlflow.models import Model

    with outbox.filling(run, "log_model") as folder:
        (folder / "data").write_bytes(b"weights")
        Model().save(str(folder / "MLmodel"))


def write_two_trials(study: StudyRun) -> None:
    """A whole study of two trials that are under way at once."""
    outbox = study.outbox
    runs = [start_trial(study, number, {"layers": number}, 7, PICTURES, "name: it\n") for number in range(2)]
    logs = [TrialLog(outbox, run) for run in runs]
    for epoch in (1, 2, 3):
        for number, log in enumerate(logs):
            log.epoch({"loss": number + 1 / epoch, "val_auc": float("nan") if epoch == 1 else 0.5}, epoch)
    for run, log in zip(runs, logs, strict=True):
        saved_model(outbox, run)
        log.artifacts({"plots/roc.png": b"\x89PNG", "history.csv": "epoch\n"})
        log.finish({"best_val_auc": 0.5}, of_model=True)
        end_trial(study, run, "complete")
    end_study(study, "FINISHED", metrics={"best_trial": 1}, artifacts={"trials.csv": "trial\n"}, best_run_id="x")


@pytest.mark.slow
def test_what_arrives_once_arrives_the_same_when_who_sends_it_dies_after_every_call(
    store: Store, outbox: Outbox, tmp_path: Path
) -> None:
    undisturbed = begun(store, "undisturbed", outbox)
    write_two_trials(undisturbed)
    send(outbox, store)
    expected = record(store.client, undisturbed.experiment_id)
    assert [len(one["models"]) for one in expected] == [0, 1, 1]
    assert expected[1]["metrics"]["loss"] == [(1, "1.0"), (2, "0.5"), (3, str(1 / 3))]
    assert expected[1]["models"][0][1:] == ({"best_val_auc": 0.5}, {"layers": "0", "seed": "7"})

    disturbed = begun(store, "disturbed", other := open_outbox(tmp_path / "other"))
    write_two_trials(disturbed)
    operations = other.left()
    done = subprocess.run(
        [sys.executable, "-c", DYING, store.uri, str(other.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > operations  # each died once at least
    assert record(store.client, disturbed.experiment_id) == expected
    models = store.client.search_logged_models([disturbed.experiment_id])
    assert [str(model.status) for model in models] == ["READY", "READY"]
    assert list((other.path / "files").iterdir()) == []


def test_what_a_process_appended_before_it_was_killed_is_there_and_whole(store: Store, outbox: Outbox) -> None:
    key = start_trial(study := begun(store, "killed", outbox), 0, {}, 0)
    command = [sys.executable, "-c", APPENDING, str(outbox.path), key, "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        said = [int(next(program.stdout)) for _ in range(20)]
        program.send_signal(signal.SIGKILL)
        said += [int(line) for line in program.stdout]
    run_id = sent(open_outbox(outbox.path), store, key)
    assert study.experiment_id == store.client.get_run(run_id).info.experiment_id
    steps = [point.step for point in store.client.get_metric_history(run_id, "loss")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(said) <= len(steps) <= len(said) + 1
    names = {Path(name).stem for name in files(store.client, run_id)}
    assert {str(number) for number in said} <= names <= {str(number) for number in steps}
    assert list((outbox.path / "files").iterdir()) == []


def test_processes_append_at_once(store: Store, outbox: Outbox) -> None:
    study = begun(store, "at-once", outbox)
    keys = [start_trial(study, number, {}, 0) for number in range(3)]
    command = [sys.executable, "-c", APPENDING, str(outbox.path)]
    programs = [subprocess.Popen([*command, key, "10"], stdout=subprocess.DEVNULL) for key in keys]
    assert [program.wait() for program in programs] == [0, 0, 0]
    send(outbox, store)
    for key in keys:
        steps = [point.step for point in store.client.get_metric_history(outbox.run_id(key) or "", "loss")]
        assert steps == list(range(1, 11))


def test_what_is_refused_is_said_once_and_kept_while_the_rest_goes_on(store: Store, outbox: Outbox) -> None:
    study = begun(store, "refused", outbox)
    first, second = (sent(outbox, store, start_trial(study, number, {}, 0)) for number in range(2))
    store.client.delete_run(first)
    for run_id in (first, second):
        TrialLog(outbox, run_id).epoch({"loss": 0.5}, 1)
        end_trial(study, run_id, "complete")
    said: list[str] = []
    with Sender(outbox, store, say=pytest.fail, complain=said.append) as sender:
        assert sender.flush(0)
    assert len(said) == 1
    assert "refuses" in said[0]
    assert str(outbox.path) in said[0]
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
    with outbox.filling(key, "log_model") as folder:
        (folder / "MLmodel").write_text(damaged)
    TrialLog(outbox, key).epoch({"loss": 0.5}, 1)
    said: list[str] = []
    with Sender(outbox, store, say=pytest.fail, complain=said.append) as sender:
        assert sender.flush(0)
    assert len(said) == 1
    assert "refuses what belongs to a run: log_model: " in said[0]
    assert store.client.get_run(str(outbox.run_id(key))).data.metrics == {"loss": 0.5}
    assert outbox.left() == 0
    assert list(outbox.waiting().values()) == [1]


def test_an_attempt_leaves_what_waits_as_it_was(store: Store, outbox: Outbox) -> None:
    class Gone(MlflowClient):
        def finalize_logged_model(self, model_id: str, status: object) -> NoReturn:
            raise ConnectionError(f"{model_id} is all there, and not yet {status}")

    saved_model(outbox, sent(outbox, store, start_trial(begun(store, "attempted", outbox), 0, {}, 0)))
    (operation,) = outbox.first(9)
    assert operation.folder is not None
    before = {path.name: path.read_bytes() for path in operation.folder.iterdir()}
    assert set(before) == {"data", "MLmodel"}
    with pytest.raises(ConnectionError, match="not yet READY"):
        deliver(Gone(store.uri), outbox, operation)
    assert {path.name: path.read_bytes() for path in operation.folder.iterdir()} == before


def test_a_model_that_cannot_be_removed_keeps_nobody_waiting(project: Path) -> None:
    store, outbox = connect(f"sqlite:///{project}/mlflow.db"), open_outbox(project / "outbox")
    client = store.client
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        away = f"ftp://127.0.0.1:{taken.getsockname()[1]}/models"
        experiment = client.create_experiment("stuck", artifact_location=away)
        run_id = client.create_run(experiment).info.run_id
        client.create_logged_model(experiment, name="model", source_run_id=run_id)
        outbox.append(run_id, "remove_model", why="not among the best")
        TrialLog(outbox, run_id).epoch({"loss": 0.5}, 1)
        said: list[str] = []
        with Sender(outbox, store, say=pytest.fail, complain=said.append) as sender:
            assert sender.flush(0)
    assert len(said) == 1
    assert f"the model of run {run_id} cannot be removed: " in said[0]
    assert client.get_run(run_id).data.metrics == {"loss": 0.5}
    assert (outbox.left(), outbox.waiting()) == (0, {run_id: 1})
    assert open_outbox(outbox.path).left() == 1  # it is tried again
    assert len(client.search_logged_models([experiment])) == 1


def test_a_trial_whose_run_is_refused_keeps_nobody_waiting(store: Store, outbox: Outbox) -> None:
    study = begun(store, "refused-run", outbox)
    store.client.delete_experiment(study.experiment_id)
    key = start_trial(study, 0, {}, 0)
    TrialLog(outbox, key).epoch({"loss": 0.5}, 1)
    said: list[str] = []
    with Sender(outbox, store, say=pytest.fail, complain=said.append) as sender:
        assert sender.flush(0)
        assert sender.run_id(key) == key
    assert len(said) == 1

    store.client.restore_experiment(study.experiment_id)
    run_id = sent(open_outbox(outbox.path), store, key)
    assert store.client.get_run(run_id).data.metrics == {"loss": 0.5}


def test_where_nobody_answers_all_is_kept_and_arrives_later(store: Store, outbox: Outbox) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        away = Store(f"http://someone:secret@127.0.0.1:{taken.getsockname()[1]}")
        study = begun(store, "away", outbox)
        said: list[str] = []
        waited: list[Away | None] = []
        key = start_trial(study, 0, {}, 0)
        with Sender(outbox, away, say=said.append, complain=pytest.fail) as sender:
            assert sender.run_id(key) == key
            TrialLog(outbox, key).epoch({"loss": 0.5}, 1)
            assert not sender.flush(0.5, waiting=waited.append)
            assert not sender.flush(1e9, hurry=lambda: True)
            assert sender.away is not None
            assert sender.away.reason == "connection refused"
    assert [line.startswith("MLflow is away (connection refused)") for line in said] == [True]
    assert [one and one.reason for one in waited] == ["connection refused"]
    assert outbox.left() > 0
    run_id = sent(outbox, store, key)
    assert store.client.get_run(run_id).data.metrics == {"loss": 0.5}


def test_who_is_in_a_hurry_waits_for_no_server_that_hangs(store: Store, outbox: Outbox) -> None:
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen()  # and never answers
        start_trial(begun(store, "hurry", outbox), 0, {}, 0)
        before = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
        with Sender(
            outbox, Store(f"http://127.0.0.1:{hanging.getsockname()[1]}"), say=pytest.fail, complain=pytest.fail
        ) as sender:
            assert not sender.flush(1e9, hurry=lambda: True)
            assert sender.away is None  # it was not waited for until it was noticed
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

    # One that comes even later is found by who takes the study up.
    tags = {"pneumo.key": key, "mlflow.parentRunId": study.run_id}
    later = client.create_run(study.experiment_id, tags=tags).info.run_id
    assert close_left_over(study, {key: ("complete", None)}) == [later]
    send(outbox, store)
    active = client.search_runs([study.experiment_id], "tags.`pneumo.key` != ''", run_view_type=ViewType.ACTIVE_ONLY)
    assert [(run.info.run_id, run.info.status) for run in active] == [(run_id, "FINISHED")]


def test_a_run_that_was_made_late_is_closed_as_its_trial_ended(store: Store, outbox: Outbox, tmp_path: Path) -> None:
    study = begun(store, "late", outbox)
    run_id = sent(outbox, store, key := start_trial(study, 0, {}, 0))
    elsewhere = begun(
        store, "late", other := open_outbox(tmp_path / "other")
    )  # in another folder, or on another machine
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
    said: queue.Queue[str] = queue.Queue()
    capfd.readouterr()
    with Sender(outbox, store, say=said.put, complain=pytest.fail) as sender:
        with closing(sqlite3.connect(project / "locked.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert "database is locked" in said.get(timeout=120)
        assert said.get(timeout=120) == "MLflow is back"
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
    said: queue.Queue[str] = queue.Queue()
    with Sender(outbox, store, say=said.put, complain=pytest.fail) as sender:
        engine = _get_store(store.uri).engine  # type: ignore[no-untyped-call]
        with engine.connect(), engine.connect():
            assert "no answer in time" in said.get(timeout=120)
        assert said.get(timeout=120) == "MLflow is back"
        assert sender.flush(0)
    assert store.client.get_run(outbox.run_id(key) or "").data.params == {"seed": "0"}


def test_what_is_left_for_another_mlflow_is_not_sent_to_this_one(store: Store, outbox: Outbox, project: Path) -> None:
    other = connect(f"sqlite:///{project}/other.db")
    check_same_store(outbox, other)  # nothing is left
    start_trial(begun(store, "elsewhere", outbox), 0, {}, 0)
    check_same_store(outbox, store)
    with pytest.raises(RequestError, match=r"for another MLflow than .*other\.db; set MLFLOW_TRACKING_URI"):
        check_same_store(outbox, other)


def test_a_disk_that_takes_nothing_is_an_error_of_the_system(outbox: Outbox) -> None:
    os.truncate(outbox.path / "outbox.db", 100)
    with pytest.raises(OSError, match=r"outbox"):
        TrialLog(outbox, "run").epoch({"loss": 0.5}, 1)
