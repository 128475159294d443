"""Tests of trials that resume from their own checkpoint, or continue another trial: both equal an uninterrupted trial."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from pneumo.data.prepare import prepare
from pneumo.data.sources import open_source
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import DataSpec, PhantomSpec
from pneumo.spec.hyperparameters import Value
from pneumo.spec.names import Metrics
from pneumo.spec.objective import epoch_metric, objective_metric
from pneumo.spec.result import TrialResult
from pneumo.tracking.outbox import open_outbox
from pneumo.tracking.trial_log import TrialLog
from pneumo.training import train as train_module
from pneumo.training.task import TrialTask
from pneumo.training.trial import run_trial
from tests.support.earlier import NAMES
from tests.support.new_stores import new_store
from tests.support.outboxes import send

FULL = 4
"""Number of epochs of the whole training."""

SPEED = {"train_seconds", "images_per_second", "predict_ms", "model_bytes"}
"""Metrics that depend on the speed of the machine or, as `model_bytes`, on the time of writing."""

OF_OWN_EPOCHS = SPEED | {"epochs_trained"}
"""Metrics that also depend on how many epochs the trial trained itself."""


class Place:
    """Runs trials in this process, on a few phantoms, each with a run of its own in a new MLflow store."""

    def __init__(self) -> None:
        source = open_source(DataSpec(source="phantom", phantom=PhantomSpec(patients=12, size=64)))
        self.data = prepare(source, [32], 0.3, 0)
        self.store, self.outbox = new_store(Path()), open_outbox(Path("outbox"))
        self.objectives: tuple[str, ...] = ("val_auc", "predict_ms", "model_bytes")
        self.reported: list[int] = []
        self.retired = False
        self.error: Exception = ConnectionError("the driver is gone")
        self._experiment = self.store.client.create_experiment("chain")
        self._prune_after = self._error_after = 0

    def progress(self, epoch: int, step: int, steps: int) -> None:
        pass

    def report(self, epoch: int, value: float, metrics: Mapping[str, float]) -> bool:
        assert value == metrics[epoch_metric(self.objectives[0])]
        self.reported.append(epoch)
        if epoch == self._error_after:
            raise self.error
        return epoch != self._prune_after

    def retire(self) -> None:
        self.retired = True

    def trial(
        self,
        epochs: int,
        *,
        continue_from: Path | None = None,
        checkpoint_path: Path | None = None,
        prune_after: int = 0,
        error_after: int = 0,
        seed: int = 3,
        changed: Mapping[str, Value] | None = None,
    ) -> tuple[TrialResult, Run]:
        """Run a rung of a training of `FULL` epochs, and return its result and its MLflow run.

        `changed` are hyperparameters.
        """
        self._prune_after, self._error_after, self.reported = prune_after, error_after, []
        values: dict[str, Value] = {
            "image_size": 32,
            "filters": 4,
            "dense_units": 8,
            "dropout": 0.3,
            "schedule": "cosine",
        }
        values |= {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.01, "epochs": epochs, **(changed or {})}
        task = TrialTask(
            study="chain",
            candidate=Candidate(0, values, full_epochs=FULL),
            run_id=self.store.client.create_run(self._experiment).info.run_id,
            outbox=self.outbox,
            objectives=self.objectives,
            seed=seed,
            data=self.data,
            continue_from=str(continue_from) if continue_from else None,
            checkpoint_path=str(checkpoint_path) if checkpoint_path else None,
        )
        with run_trial(task, self) as result:
            assert isinstance(result, TrialResult)
            send(self.outbox, self.store)
            return result, self.store.client.get_run(task.run_id)

    def killed(self, epochs: int, *, after: int, **options: Any) -> None:
        """Run a trial whose driver dies before it answers the report of epoch `after`."""
        with pytest.raises(ConnectionError):
            self.trial(epochs, error_after=after, **options)

    def curves(self, result: TrialResult) -> dict[str, list[tuple[int, float]]]:
        names, client = set(Metrics.OF_EPOCH) - {Metrics.EPOCH_SECONDS}, self.store.client
        return {name: [(m.step, m.value) for m in client.get_metric_history(result.run_id, name)] for name in names}

    def tables(self, result: TrialResult) -> list[list[dict[str, str]]]:
        """Return the rows of history.csv, without `epoch_seconds`, of predictions.csv and, if there is one, of stress.csv."""
        names = ("history", "predictions", "stress") if result.state == "complete" else ("history", "predictions")
        paths = (self.store.client.download_artifacts(result.run_id, f"{name}.csv") for name in names)
        tables = [list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines())) for path in paths]
        return [[row | {"epoch_seconds": ""} for row in table] for table in tables]

    def same(self, first: TrialResult, second: TrialResult, ignored: set[str] = SPEED) -> bool:
        return (
            (first.state, first.value) == (second.state, second.value)
            and without(first.metrics, ignored) == without(second.metrics, ignored)
            and self.curves(first) == self.curves(second)
            and self.tables(first) == self.tables(second)
        )


@pytest.fixture
def place(project: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(
        "pneumo.cnn.checkpoint.MAX_WRITE_SHARE", math.inf
    )  # write after each epoch, however short it is
    return Place()


@pytest.mark.slow
def test_a_trial_that_is_killed_again_and_again_is_as_one_that_was_not(place: Place, project: Path) -> None:
    path = project / "checkpoints" / "0.npz"
    whole, record = place.trial(FULL, checkpoint_path=project / "other.npz")
    assert (place.reported, whole.metrics["epochs_trained"]) == ([1, 2, 3, 4], FULL)
    assert "pneumo.continued" not in record.data.tags
    place.killed(FULL, after=1, checkpoint_path=path)
    assert not path.exists()  # the driver has not answered for epoch 1 yet
    place.killed(FULL, after=2, checkpoint_path=path)
    place.killed(FULL, after=4, checkpoint_path=path)
    assert place.reported == [1, 2, 3, 4]  # epoch 1 comes from the checkpoint
    rest, record = place.trial(FULL, checkpoint_path=path)
    assert place.reported == [1, 2, 3, 4]
    assert record.data.tags["pneumo.continued"] == "after epoch 3"
    assert "pneumo.restarted" not in record.data.tags
    assert place.same(rest, whole)
    assert rest.metrics["epochs_trained"] == FULL
    seconds = [value for _, value in curve(place, rest, "epoch_seconds")]
    assert rest.metrics["train_seconds"] >= sum(seconds)
    assert rest.metrics["images_per_second"] <= FULL * len(place.data.training) / sum(seconds)


@pytest.mark.slow
def test_a_trial_of_a_stress_objective_resumes_to_the_bit(place: Place, project: Path) -> None:
    objective = "val_stress_auc"
    place.objectives = (objective,)
    path, below, rung = (project / f"{name}.npz" for name in ("own", "below", "rung"))
    whole, record = place.trial(FULL)
    after_epochs = [value for _, value in curve(place, whole, f"epoch_{objective}")]
    assert len(after_epochs) == FULL
    assert record.data.metrics["best_epoch"] == 1 + after_epochs.index(max(after_epochs))
    assert whole.value == record.data.metrics[objective] == whole.metrics[objective]
    assert record.data.tags["pneumo.stress.worst"]
    place.killed(FULL, after=3, checkpoint_path=path)
    assert place.same(place.trial(FULL, checkpoint_path=path)[0], whole)
    place.trial(2, checkpoint_path=below)
    assert place.same(place.trial(FULL, continue_from=below, checkpoint_path=rung)[0], whole, OF_OWN_EPOCHS)
    pruned, record = place.trial(FULL, prune_after=2)
    assert (pruned.state, pruned.value) == ("pruned", max(after_epochs[:2]))
    assert not {objective, "stress_threshold"} & set(record.data.metrics)
    assert "pneumo.stress" not in record.data.tags


@pytest.mark.slow
@pytest.mark.parametrize("prune_after", [0, 2])
def test_what_is_killed_while_it_is_recorded_is_not_trained_again(
    place: Place, project: Path, monkeypatch: pytest.MonkeyPatch, prune_after: int
) -> None:
    def gone(*_: Any) -> None:
        raise ConnectionError("the driver is gone")

    path, last = project / "0.npz", prune_after or FULL
    whole, _ = place.trial(FULL, prune_after=prune_after)
    with monkeypatch.context() as patch:
        patch.setattr(TrialLog, "artifacts", gone)
        place.killed(FULL, after=0, checkpoint_path=path, prune_after=prune_after)
    rest, record = place.trial(FULL, checkpoint_path=path, prune_after=prune_after)
    assert place.reported == list(range(1, last + 1))
    assert record.data.tags["pneumo.continued"] == f"after epoch {last}"
    assert place.same(rest, whole)


def test_two_trials_in_a_chain_are_one_trial(place: Place, project: Path) -> None:
    first, second = project / "checkpoints" / "0.npz", project / "checkpoints" / "1.npz"
    whole, _ = place.trial(FULL)
    assert place.reported == [1, 2, 3, 4]
    rung, _ = place.trial(2, checkpoint_path=first)
    rest, record = place.trial(FULL, continue_from=first, checkpoint_path=second)
    assert place.reported == [3, 4]
    assert [result.state for result in (whole, rung, rest)] == ["complete"] * 3
    assert [result.metrics["epochs_trained"] for result in (whole, rung, rest)] == [4, 2, 2]
    assert rest.value == whole.value == rest.metrics["best_val_auc"]
    assert place.same(rest, whole, OF_OWN_EPOCHS)
    assert len(place.tables(rest)[0]) == FULL
    assert [file.name for file in sorted(first.parent.iterdir())] == ["0.npz", "1.npz"]
    assert not {"pneumo.restarted", "pneumo.continued"} & set(record.data.tags)
    assert record.data.metrics["epochs_trained"] == 2
    assert record.data.metrics["predict_ms"] == rest.metrics["predict_ms"] > 0
    assert {objective_metric(name) for name in ("val_auc", "predict_ms", "model_bytes")} <= set(rest.metrics)


@pytest.mark.slow
def test_a_rung_that_is_killed_goes_on_from_its_own_epochs_else_from_the_rung_below(
    place: Place, project: Path
) -> None:
    below, own = project / "0.npz", project / "1.npz"
    whole, _ = place.trial(FULL)
    place.trial(1, checkpoint_path=below)
    place.killed(FULL, after=4, continue_from=below, checkpoint_path=own)
    rest, record = place.trial(FULL, continue_from=below, checkpoint_path=own)
    assert place.reported == [2, 3, 4]  # epoch 1 was trained by the rung below
    assert record.data.tags["pneumo.continued"] == "after epoch 3"
    assert place.same(rest, whole, OF_OWN_EPOCHS)
    assert rest.metrics["epochs_trained"] == 3

    os.truncate(own, own.stat().st_size // 2)
    rest, record = place.trial(FULL, continue_from=below, checkpoint_path=own)
    assert place.reported == [2, 3, 4]
    assert record.data.tags["pneumo.restarted"].startswith("checkpoint 1.npz: cannot be read: ")
    assert "pneumo.continued" not in record.data.tags
    assert place.same(rest, whole, OF_OWN_EPOCHS)
    below.unlink()
    own.write_bytes(b"")
    rest, record = place.trial(FULL, continue_from=below, checkpoint_path=own)
    assert place.reported == [1, 2, 3, 4]
    assert all(name in record.data.tags["pneumo.restarted"] for name in ("1.npz", "0.npz"))
    assert place.same(rest, whole)


STANDSTILL: Mapping[str, Value] = {"learning_rate": 1e-9, "momentum": 0.0, "ema": 0.9}
"""A training whose first epoch is the best, because the weights hardly move."""


@pytest.mark.slow
def test_rungs_above_one_that_stopped_early_train_nothing_and_have_its_result(
    place: Place, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumo.cnn.checkpoint.MAX_WRITE_SHARE", 0.0)  # the last epoch is written all the same
    changed = {**STANDSTILL, "early_stopping": 1}
    whole, _ = place.trial(FULL, changed=changed)
    assert (place.reported, whole.state, whole.metrics["best_epoch"]) == ([1, 2], "complete", 1)
    below: Path | None = None
    for number, (epochs, reported) in enumerate(((3, [1, 2]), (3, []), (FULL, []))):
        own = project / f"{number}.npz"
        rung, record = place.trial(epochs, changed=changed, continue_from=below, checkpoint_path=own)
        assert place.reported == reported
        assert rung.metrics["epochs_trained"] == len(reported)
        assert place.same(rung, whole, OF_OWN_EPOCHS)
        assert not {"pneumo.restarted", "pneumo.error"} & set(record.data.tags)
        assert all(math.isfinite(value) for value in rung.metrics.values())
        below = own


@pytest.mark.slow
def test_a_trial_that_stopped_early_and_was_killed_before_its_end_is_the_same(
    place: Place, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise ConnectionError("the driver is gone")

    changed, path = {**STANDSTILL, "early_stopping": 2}, project / "0.npz"
    whole, _ = place.trial(FULL, changed=changed)
    with monkeypatch.context() as patch:
        patch.setattr(TrialLog, "artifacts", gone)
        place.killed(FULL, after=0, checkpoint_path=path, changed=changed)
    rest, record = place.trial(FULL, checkpoint_path=path, changed=changed)
    assert place.reported == [1, 2, 3]
    assert record.data.tags["pneumo.continued"] == "after epoch 3"
    assert (rest.state, rest.metrics["epochs_trained"]) == ("complete", 3)
    assert place.same(rest, whole)


@pytest.mark.slow
def test_a_checkpoint_of_an_earlier_version_is_continued(
    place: Place, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project / "0.npz"
    whole, _ = place.trial(FULL)
    with monkeypatch.context() as patch:
        recipe = train_module._recipe
        known = {*NAMES, "full_epochs", "seed", "best_by", "training", "validation"}
        patch.setattr(train_module, "_recipe", lambda *a: {k: v for k, v in recipe(*a).items() if k in known})
        place.trial(2, checkpoint_path=path)
    rest, record = place.trial(FULL, continue_from=path)
    assert place.reported == [3, 4]
    assert "pneumo.restarted" not in record.data.tags
    assert place.same(rest, whole, OF_OWN_EPOCHS)
    _, record = place.trial(FULL, continue_from=path, changed={"warmup": 0.2})
    assert "its warmup is 0.0, not 0.2" in record.data.tags["pneumo.restarted"]


@pytest.mark.slow
def test_a_rung_leaves_its_last_epoch_however_long_writing_takes(
    place: Place, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumo.cnn.checkpoint.MAX_WRITE_SHARE", 0.0)
    path = project / "0.npz"
    place.killed(FULL, after=3, checkpoint_path=path)
    _, record = place.trial(3, checkpoint_path=path)
    assert record.data.tags["pneumo.continued"] == "after epoch 1"  # the first write is always due
    rest, _ = place.trial(FULL, continue_from=path)
    assert (place.reported, rest.metrics["epochs_trained"]) == ([4], 1)


@pytest.mark.slow
def test_a_wrong_checkpoint_is_said_and_the_trial_begins_anew(place: Place, project: Path) -> None:
    path = project / "0.npz"
    place.trial(2, checkpoint_path=path)
    other, record = place.trial(2, continue_from=path, seed=4)
    assert place.reported == [1, 2]
    assert record.data.tags["pneumo.restarted"] == "checkpoint 0.npz: is of another training: its seed is 3, not 4"
    assert place.same(other, place.trial(2, seed=4)[0])


def test_memory_that_runs_out_is_said_with_what_helps_and_the_process_takes_no_other_trial(place: Place) -> None:
    place.error = MemoryError("Unable to allocate 9.00 TiB for an array")
    failed, record = place.trial(2, error_after=1)
    assert (failed.state, place.retired) == ("failed", True)
    assert failed.error is not None
    assert failed.error.startswith("out of memory on the host; a smaller batch_size, image_size")
    text = Path(place.store.client.download_artifacts(record.info.run_id, "error.txt")).read_text(encoding="utf-8")
    assert "Unable to allocate 9.00 TiB" in text
    place.retired, place.error = False, ValueError("something else")
    failed, _ = place.trial(2, error_after=1)
    assert (failed.error, place.retired) == ("ValueError: something else", False)


def curve(place: Place, result: TrialResult, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in place.store.client.get_metric_history(result.run_id, name)]


def without(metrics: Mapping[str, float], names: set[str]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in names}
