"""The outbox and processes that die: each operation arrives once and in order, and the record can be read meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from mlflow import MlflowClient

from pneumo.tracking.delivery import deliver
from pneumo.tracking.inventory import DELETED, read_inventory
from pneumo.tracking.operations import DrawPlots, LogArtifacts, LogBatch
from pneumo.tracking.outbox import Outbox, open_outbox
from pneumo.tracking.store import Store
from pneumo.tracking.study import start_trial
from pneumo.tracking.trial_log import TrialLog
from tests.support.outboxes import files, record, saved_model, send, sent, write_trials
from tests.support.recorded import begun

# Delivers each operation. Each attempt is a process of its own: the first dies after its first call of MLflow, the second after
# its second, and so on, until one succeeds. After each, the record is read as --check does. Prints how many processes died.
DYING = """
import os, sys
from pathlib import Path
import sqlalchemy
from mlflow import MlflowClient
import mlflow.store.tracking.sqlalchemy_store
from pneumo.tracking.delivery import deliver
from pneumo.tracking.inventory import read_inventory
from pneumo.tracking.outbox import Outbox
from pneumo.tracking.store import Store

class Dying(MlflowClient):
    calls = 0
    def __getattribute__(self, name):
        attribute = super().__getattribute__(name)
        if name.startswith("_") or not callable(attribute):
            return attribute
        def call(*arguments, **named):
            result = attribute(*arguments, **named)
            Dying.calls -= 1
            if not Dying.calls:
                os._exit(9)
            return result
        return call

def child(work):
    # Return the exit status of a process that does this work.
    if not (process := os.fork()):
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

def attempt():
    Dying.calls = calls
    deliver(Dying(sys.argv[1]), outbox, operations[0])

sqlalchemy.orm.configure_mappers()  # once, and not in each process
outbox, died = Outbox(Path(sys.argv[2])), 0
while operations := outbox.first(1):
    for calls in range(1, 100):
        status = child(attempt)
        assert status in (0, 9), status
        assert child(lambda: read_inventory(Store(sys.argv[1]), sys.argv[3])) == 0, operations
        died += status == 9
        if status == 0:
            break
    outbox.remove(operations[0])
print(died)
"""

# Appends as many operations as its argument says, and prints the number of each after it is stored.
APPENDING = """
import sys
from pathlib import Path
from pneumo.tracking.operations import LogBatch, metric_points
from pneumo.tracking.outbox import Outbox

outbox, run = Outbox(Path(sys.argv[1])), sys.argv[2]
for number in range(1, int(sys.argv[3]) + 1):
    outbox.append(run, LogBatch(metric_points({"loss": number}, number)))
    outbox.append_files(run, {f"{number}.txt": "x" * 10_000})
    print(number, flush=True)
"""


@pytest.mark.slow
def test_what_arrives_once_arrives_the_same_when_who_sends_it_dies_after_every_call(
    store: Store, outbox: Outbox, tmp_path: Path
) -> None:
    undisturbed = begun(store, "undisturbed", outbox)
    write_trials(undisturbed)
    send(outbox, store)
    expected = record(store.client, undisturbed.experiment_id)
    assert [len(run["models"]) for run in expected] == [0, 1, 1, 0]
    assert expected[1]["metrics"]["loss"] == [(1, "1.0"), (2, "0.5"), (3, str(1 / 3))]
    assert expected[1]["models"][0][1:] == ({"best_val_auc": 0.5}, {"layers": "0", "seed": "7"})

    disturbed = begun(store, "disturbed", other := open_outbox(tmp_path / "other"))
    write_trials(disturbed)
    operations = other.remaining()
    done = subprocess.run(
        [sys.executable, "-c", DYING, store.uri, str(other.path), "disturbed"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > operations  # at least one process died for each
    assert record(store.client, disturbed.experiment_id) == expected
    models = store.client.search_logged_models([disturbed.experiment_id])
    assert [str(model.status) for model in models] == ["READY", "READY"]
    assert list((other.path / "files").iterdir()) == []


def test_the_record_can_be_read_after_each_write(store: Store, outbox: Outbox) -> None:
    study = begun(store, "step-by-step", outbox)
    write_trials(study)
    seen = []
    while operations := outbox.first(1):
        deliver(store.client, outbox, operations[0])
        outbox.remove(operations[0])
        inventory = read_inventory(store, "step-by-step")
        assert inventory is not None
        seen.append([model.status for trial in inventory.trials for model in trial.models])
    assert [] in seen
    assert ["READY", "READY", "READY"] in seen
    assert ["READY", "READY", DELETED] in seen or [DELETED, "READY", "READY"] in seen
    assert seen[-1] == ["READY", "READY"]


def test_what_a_process_appended_before_it_was_killed_is_there_and_whole(store: Store, outbox: Outbox) -> None:
    key = start_trial(study := begun(store, "killed", outbox), 0, {}, 0)
    command = [sys.executable, "-c", APPENDING, str(outbox.path), key, "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        printed = [int(next(program.stdout)) for _ in range(20)]
        program.send_signal(signal.SIGKILL)
        printed += [int(line) for line in program.stdout]
    run_id = sent(open_outbox(outbox.path), store, key)
    assert study.experiment_id == store.client.get_run(run_id).info.experiment_id
    steps = [point.step for point in store.client.get_metric_history(run_id, "loss")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(printed) <= len(steps) <= len(printed) + 1
    names = {Path(name).stem for name in files(store.client, run_id)}
    assert {str(number) for number in printed} <= names <= {str(number) for number in steps}
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


def stored_files(outbox: Outbox) -> list[str]:
    return sorted(path.name for path in (outbox.path / "files").rglob("*") if path.is_file())


def test_a_process_that_dies_while_it_draws_leaves_the_values_or_the_plots(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    TrialLog(outbox, "run").plots(b"values")
    outbox.append("run", LogBatch(tags={"after": "plots"}))
    queued = outbox.first_to_draw()
    assert queued is not None
    assert queued.operation == DrawPlots()
    assert outbox.first(9) == []

    class KilledError(BaseException):
        """Stands for a kill: nothing is tidied up."""

    def killed(*_: object, **__: object) -> None:
        raise KilledError

    update_drawn = Outbox._update_drawn
    monkeypatch.setattr("pneumo.tracking.outbox.shutil.rmtree", killed)
    monkeypatch.setattr(Outbox, "_update_drawn", killed)
    with pytest.raises(KilledError):
        outbox.store_drawn(queued, {"plots/roc.png": b"\x89PNG"})
    monkeypatch.setattr(Outbox, "_update_drawn", update_drawn)
    assert outbox.first_to_draw() == queued
    assert stored_files(outbox) == ["roc.png", "values.npz"]
    with pytest.raises(KilledError):
        outbox.store_drawn(queued, {"plots/roc.png": b"\x89PNG"})
    monkeypatch.undo()
    assert outbox.first_to_draw() is None
    drawn, after = outbox.first(9)
    assert (drawn.operation, drawn.number) == (LogArtifacts(), queued.number)
    assert after.folder is None
    assert stored_files(open_outbox(outbox.path)) == ["roc.png"]
