"""Many clients of one Optuna study on a PostgreSQL: no trial is lost, and none is there twice."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest

from pneumo.engines.optuna_storage import open_optuna_study
from pneumo.spec.experiment_file import build_experiment
from tests.support.postgres import Postgres

CLIENTS, TRIALS = (int(text) for text in os.environ.get("PNEUMO_TEST_CLIENTS", "20 5").split())
"""Number of clients, and of trials of each. `PNEUMO_TEST_CLIENTS='100 10'` is what docs/scale.md says."""


@pytest.mark.slow
def test_no_trial_is_lost_or_doubled_among_many_clients(postgres: Postgres) -> None:
    postgres.run("ALTER SYSTEM SET max_connections = 300")
    postgres.stop()
    postgres.start()
    url = postgres.create("clients")
    experiment = build_experiment({"name": "many", "hyperparameters": {}, "search": {"algorithm": "random"}}, "test")
    open_optuna_study(experiment, url)

    def work(client: int) -> list[tuple[int, float]]:
        study = open_optuna_study(experiment, url)
        study.sampler = optuna.samplers.RandomSampler(seed=client)
        results = []
        for _ in range(TRIALS):
            trial = study.ask()
            value = trial.suggest_float("learning_rate", 1e-4, 1e-2)
            study.tell(trial, value)
            results.append((trial.number, value))
        return results

    with ThreadPoolExecutor(CLIENTS) as clients:
        told = dict(result for results in clients.map(work, range(CLIENTS)) for result in results)
    stored = {trial.number: trial.value for trial in open_optuna_study(experiment, url).get_trials()}
    assert sorted(stored) == list(range(CLIENTS * TRIALS))
    assert stored == told
