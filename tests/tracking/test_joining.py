"""Writes into one run that follow each other are one call of MLflow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pneumo.tracking.joining import MOST_METRICS, join, joined
from pneumo.tracking.operations import CreateRun, LogBatch, MetricPoint, Operation, SetTerminated
from pneumo.tracking.outbox import QueuedOperation, open_outbox
from pneumo.tracking.sender import Sender
from pneumo.tracking.study import end_trial, start_trial
from pneumo.tracking.trial_log import TrialLog
from tests.support.new_stores import new_store
from tests.support.outboxes import PICTURES
from tests.support.recorded import begun


def queue(*operations: tuple[str, Operation]) -> list[QueuedOperation]:
    return [QueuedOperation(number, run, operation, None) for number, (run, operation) in enumerate(operations)]


def point(step: int) -> MetricPoint:
    return MetricPoint("loss", 1 / step, 1000 + step, step)


def test_the_order_within_a_run_stays_and_what_can_be_one_call_is_one() -> None:
    closed = SetTerminated("FINISHED", 5)
    queued = queue(
        ("a", CreateRun("1", "a", 0, {})),
        ("a", LogBatch(params={"layers": "2"})),
        ("b", LogBatch([point(1)], tags={"state": "first"})),
        ("a", LogBatch([point(1)])),
        ("b", closed),
        ("a", LogBatch([point(2)], tags={"device": "CPU"})),
        ("b", LogBatch(tags={"state": "second"})),
        ("key of b", LogBatch(tags={"state": "third"})),
        ("a", LogBatch([point(3)], of_model=True)),
        ("a", LogBatch(params={"seed": "7"})),
    )
    groups = join(queued, lambda run: run.removeprefix("key of "))
    assert [[one.number for one in group] for group in groups] == [[0], [1, 3, 5], [2], [4], [6, 7], [8], [9]]
    assert joined(groups[1]).operation == LogBatch([point(1), point(2)], {"layers": "2"}, {"device": "CPU"})
    assert joined(groups[4]).operation == LogBatch([], {}, {"state": "third"})
    many = queue(*[("a", LogBatch([point(1)] * 400)) for _ in range(3)])
    assert [len(group) for group in join(many, str)] == [MOST_METRICS // 400, 1]


@pytest.mark.slow
def test_a_trial_takes_as_many_calls_however_many_runs_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store, outbox, calls = new_store(tmp_path), open_outbox(tmp_path / "outbox"), Counter[str]()
    study = begun(store, "calls", outbox)

    def count(name: str) -> None:
        original = getattr(MlflowClient, name)

        def call(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(MlflowClient, name, call)

    for name in ("create_run", "get_run", "log_batch", "log_inputs", "search_runs", "set_terminated"):
        count(name)
    with Sender(outbox, store, say=pytest.fail, complain=pytest.fail) as sender:
        for number in range(12):
            run = start_trial(study, number, {"layers": 1}, 7, PICTURES)
            for epoch in range(1, 6):
                TrialLog(outbox, run).epoch({"loss": 1 / epoch}, epoch)
            end_trial(study, run, "complete")
        assert sender.flush(0)
    assert calls["search_runs"] == 0  # nobody can have created these runs before
    assert (calls["create_run"], calls["set_terminated"], calls["get_run"]) == (12, 12, 12)
    assert calls["log_batch"] < 12 * 7  # a trial has seven writes of parameters, metrics and tags
    runs = store.client.search_runs([study.experiment_id], "tags.`pneumo.role` = 'trial'")
    assert [run.info.status for run in runs] == ["FINISHED"] * 12
    history = store.client.get_metric_history(runs[0].info.run_id, "loss")
    assert [(value.step, value.value) for value in history] == [(epoch, 1 / epoch) for epoch in range(1, 6)]
