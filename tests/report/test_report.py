"""python -m pneumo.report: what it reads of a recorded study, what it writes, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pneumo.report.__main__ import app
from pneumo.spec.errors import RequestError
from pneumo.spec.result import Trial
from pneumo.tracking.study_record import read_study_record
from tests.support.study_records import experiment, made_trial, made_trials, write_trials


def report(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), standalone_mode=False)


def test_a_recorded_study_is_read_as_it_was_and_written_as_one_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    trials = [*made_trials(2), made_trial(2, None, {"layers": 2}, "failed", "ran out of memory")]
    trials[1] = made_trial(
        1, 0.95, {"layers": 3, "filters": 16, "optimizer": "sgd", "momentum": 0.5}, val_stress_auc=0.9
    )
    store = write_trials(project, experiment(trials=3), trials)
    record = read_study_record(store, "article")

    def essence(trial: Trial) -> tuple[object, ...]:
        result = trial.result
        return trial.number, trial.candidate.hyperparameters, result.state, result.value, result.history, result.error

    assert [essence(trial) for trial in record.trials] == [essence(trial) for trial in trials]
    assert record.page is None
    assert [finding.kind for finding in record.findings] == ["outlier"]
    assert record.counts["validation"]["patients"] == 30
    assert record.best is not None
    assert record.best.number == 1
    assert "plots/roc.png" in record.files[1]
    assert set(record.files[0]) == {"predictions.csv", "stress.csv", "causes.csv"}

    done = report("article")
    assert (done.exception, done.return_value) == (None, 0)
    page = Path("article-report.html").read_text(encoding="utf-8")
    assert "95 % interval by patient" in page
    assert "all trials ended" in page
    assert "10.0% (3.0% to 26.0%)" in page
    assert len(re.findall(r"<figure", page)) == 1
    with pytest.raises(RequestError, match="no-such: there is no such study in sqlite"):
        _raise(report("no-such"))


def _raise(result: Result) -> None:
    assert result.exception is not None
    raise result.exception


@pytest.mark.parametrize(("output", "message"), [(".", "is a folder"), ("none/a.html", "there is no folder none")])
def test_a_file_that_cannot_be_written_is_refused_first(project: Path, output: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        _raise(report("article", "--output", output))
