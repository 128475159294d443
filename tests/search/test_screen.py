"""Tests of pneumo.search.screen and results: what a search says, at several widths. Nothing is trained."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from pneumo.data.audit import Finding
from pneumo.search.loop import Training
from pneumo.search.results import show_results
from pneumo.search.screen import Budget, ConfirmationListener, TrialListener, describe_search, describe_warnings
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.result import Trial, TrialResult
from tests.support.spaces import TEN_SEARCHED as SPACE


def study(**search: Any) -> Experiment:
    return build_experiment({"name": "small", "hyperparameters": SPACE, "search": search}, "test")


def trial(number: int, value: float) -> Trial:
    values = study().space.baseline() | {"learning_rate": 0.00123, "weight_decay": 0.000456}
    return Trial(Candidate(number, values, frozenset(SPACE)), TrialResult(number, "run", "complete", value))


def output(width: int = 200) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=width), text


def test_counts_and_numbers_cannot_be_mixed_up() -> None:
    console, text = output()
    with TrialListener(study(trials=1), console) as listener:
        training = Training(Candidate(0, {"epochs": 1}))
        listener.start(0, training)
        listener.finish(0, training, TrialResult(0, "run", "complete", 0.5))
    assert text.getvalue().startswith("  1 of 1 done  trial 0   complete    0.5000  best 0.5000 (trial 0)  ")
    assert describe_search(study(trials=1)).startswith("Study small: 1 trial by optuna/tpe for val_auc, ")
    assert describe_search(study(trials=8), 3).startswith("Study small: 8 trials, 3 of them done, by optuna/tpe ")


def test_confirmations_are_named_by_trial_and_seed() -> None:
    console, text = output()
    with ConfirmationListener(study(), console, 6) as listener:
        training = Training(Candidate(4, {"epochs": 1}), seed=1001)
        listener.start(0, training)
        listener.finish(0, training, TrialResult(4, "run", "complete", 0.5))
    assert text.getvalue().startswith("  1 of 6 done  trial 4, seed 1001 complete    0.5000  ")


def test_the_time_left_is_that_of_the_trials_so_far() -> None:
    now = [1_000.0]
    budget = Budget(7_200.0, clock=lambda: now[0])
    assert budget.describe(10) == ["2 h of the 2 h left"]
    now[0] += 600
    budget.finish()
    now[0] += 600
    budget.finish()
    now[0] += 60
    assert budget.describe(8) == ["about 1 h 19 min left", "1 h 39 min of the 2 h left"]
    now[0] += 7_200
    assert budget.describe(0) == ["the 2 h are over"]
    assert Budget(None, clock=lambda: now[0]).describe(3) == []


def test_warnings_of_the_audit_are_few_and_short() -> None:
    findings = [Finding("blank", "warning", f"picture {number} is blank") for number in range(5)]
    findings += [Finding("note", "note", "nothing"), Finding("outlier", "warning", "word " * 100)]
    lines = describe_warnings(findings, "python -m pneumo.data audit a.zip")
    assert lines == [
        "Warning: picture 0 is blank",
        "Warning: picture 1 is blank",
        "Warning: picture 2 is blank",
        "  3 more warnings; all findings:  python -m pneumo.data audit a.zip",
    ]
    assert len(describe_warnings(findings[-1:], "audit")[0]) <= 210
    assert describe_warnings(findings[5:6], "audit") == []


@pytest.mark.parametrize("width", [50, 80, 120, 160])
def test_no_name_and_no_number_of_the_best_trials_is_broken(width: int) -> None:
    console, text = output(width)
    trials = [trial(number, 0.9 + number / 100) for number in range(7)]
    show_results(console, study(), trials)
    words = text.getvalue().replace("│", " ").replace("┃", " ").replace(",", " ").split()
    assert {*SPACE, "val_auc", "0.00123", "0.000456", "0.9600"} <= set(words)
    assert "…" not in text.getvalue()
    if width >= 80:
        assert max(map(len, text.getvalue().splitlines()[:16])) <= width
