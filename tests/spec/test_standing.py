"""How a study stands is what ranking all of its trials says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pneumo.spec.best import best_first
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.result import State, Trial, TrialResult
from pneumo.spec.selection import pareto_front
from pneumo.spec.standing import Standing


@pytest.mark.parametrize("objectives", [["val_auc"], ["val_auc", "parameters"]])
def test_the_leading_trials_rank_as_all_trials_do(objectives: list[str]) -> None:
    document: dict[str, Any] = {"name": "s", "hyperparameters": {}, "search": {"objective": objectives}}
    experiment, generator = build_experiment(document, "test"), np.random.default_rng(3)
    standing, trials = Standing(experiment, 5), list[Trial]()
    for number in generator.permutation(60):
        state: State = "failed" if number % 9 == 4 else "complete"
        value = None if state == "failed" else float(generator.integers(20)) / 20
        metrics = {"parameters": float(generator.integers(1000))}
        result = TrialResult(int(number), "run", state, value, metrics)
        trials.append(Trial(Candidate(int(number), {"epochs": 1}), result))
        standing.update(trials)
        assert best_first(standing.leading, experiment)[:5] == best_first(trials, experiment)[:5]
        if len(objectives) > 1:
            assert pareto_front(standing.leading, objectives) == pareto_front(trials, objectives)
        assert standing.finished == len(trials)
    assert standing.states["failed"] == 7
    assert 0 in [trial.number for trial in standing.leading]  # the baseline
    assert len(standing.leading) < 40
