"""Which models `search.keep` keeps: the rule, and the removal of the others from a real store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from pneumo.compute.footprint import model_bytes
from pneumo.search.retention import removable_models, remove_models
from pneumo.spec.best import numbers_to_keep
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.hyperparameters import Hyperparameters
from pneumo.spec.result import Trial, TrialResult
from pneumo.tracking.models import discard, logged_models
from pneumo.tracking.operations import RemoveModel
from pneumo.tracking.outbox import open_outbox
from pneumo.tracking.store import connect
from pneumo.tracking.study import start_trial
from pneumo.tracking.trial_log import TrialLog
from tests.support.outboxes import send, sent
from tests.support.recorded import begun


def experiment_with(**search: Any) -> Experiment:
    return build_experiment({"name": "s", "search": search, "hyperparameters": {"filters": [4, 8]}}, "test")


def trial(number: int, value: float | None, state: Any = "complete", **metrics: float) -> Trial:
    return Trial(Candidate(number, {"epochs": 1}), TrialResult(number, f"run-{number}", state, value, metrics))


TRIALS = [trial(0, 0.1), trial(1, 0.5), trial(2, None, "failed"), trial(3, 0.9), trial(4, 0.7), trial(5, 0.8)]


@pytest.mark.parametrize(
    ("search", "confirmed", "kept_trials"),
    [
        ({}, (), {0, 1, 2, 3, 4, 5}),
        ({"keep": {"best": 2}}, (), {0, 3, 5}),  # 0 is the baseline
        ({"keep": {"best": 2}, "baseline": False}, (), {3, 5}),
        ({"keep": {"best": 1}, "confirm": {"top": 3}}, (), {0, 3, 5, 4}),  # the best three are to be confirmed
        ({"keep": {"best": 1}}, (1,), {0, 1, 3}),  # 1 was confirmed
        ({"keep": {"best": 9}}, (), {0, 1, 3, 4, 5}),
    ],
)
def test_the_best_models_are_kept_and_those_that_a_promotion_may_need(
    search: dict[str, Any], confirmed: tuple[int, ...], kept_trials: set[int]
) -> None:
    assert numbers_to_keep(TRIALS, experiment_with(**search), confirmed) == kept_trials


def test_with_several_objectives_the_pareto_front_is_kept() -> None:
    sizes = {0: 9.0, 1: 5.0, 3: 8.0, 4: 6.0, 5: 7.0}
    trials = [trial(n, t.result.value, parameters=sizes[n]) for n, t in enumerate(TRIALS) if n in sizes]
    experiment = experiment_with(
        objective=["val_auc", "parameters"], algorithm="nsga2", keep={"best": 1}, baseline=False
    )
    assert numbers_to_keep([*trials, trial(6, 0.4, parameters=6.0)], experiment) == {1, 3, 4, 5}


def test_the_rule_of_promotion_decides_which_models_are_best() -> None:
    document = {"name": "s", "search": {"keep": {"best": 1}}, "promote": {"min": "train_seconds"}}
    trials = [trial(n, n / 10, train_seconds=abs(n - 2)) for n in range(5)]
    assert numbers_to_keep(trials, build_experiment(document, "test")) == {0, 2}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "server"])
def test_the_run_of_a_removed_model_stays(
    kind: str, project: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    from tests.support.networks import SMALL, network

    if kind == "server":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("mlflow_server"))
    store, name = connect(), f"kept-{kind}"
    outbox = open_outbox(project / "outbox")
    study = begun(store, name, outbox)
    trials, picture = [], np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    for number in range(5):
        log = TrialLog(outbox, start_trial(study, number, {"layers": 1}, 0))
        assert log.model(network(), picture) == pytest.approx(model_bytes(Hyperparameters(**SMALL)), rel=0.1)
        log.finish({"best_val_auc": number / 10}, of_model=True)
        result = TrialResult(number, sent(outbox, store, log.run), "complete", number / 10)
        trials.append(Trial(Candidate(number, {"epochs": 1}), result))
    before = logged_models(store, name)
    runs = [trial.result.run_id for trial in trials]
    assert set(before) == set(runs)
    store.client.create_registered_model(f"model-{kind}")
    registered = before[runs[1]]
    store.client.create_model_version(f"model-{kind}", f"models:/{registered}", model_id=registered)

    experiment = build_experiment(
        {"name": name, "search": {"keep": {"best": 1}}, "hyperparameters": {"layers": 1}}, "test"
    )
    for run_id, reason in removable_models(experiment, trials[:4], ()).items():
        outbox.append(run_id, RemoveModel(reason))
    send(outbox, store)
    assert set(logged_models(store, name)) == {runs[0], runs[1], runs[3], runs[4]}  # the last trial is not finished yet
    for _ in range(2):  # the second call has nothing to remove
        remove_models(store, outbox, experiment, trials, ())
    assert logged_models(store, name) == {run: before[run] for run in (runs[0], runs[1], runs[4])}
    for number, run_id in enumerate(runs):
        run = store.client.get_run(run_id)
        assert run.data.metrics["best_val_auc"] == number / 10
        assert ("pneumo.model_removed" in run.data.tags) == (number in (2, 3))
        if number in (2, 3):
            with pytest.raises((MlflowException, OSError)):
                mlflow.artifacts.download_artifacts(f"models:/{before[run_id]}")
        else:
            mlflow.pyfunc.load_model(f"models:/{before[run_id]}")

    for _ in range(2):  # the second call has nothing to discard
        discard(store, runs[4])
        assert set(logged_models(store, name)) == {runs[0], runs[1]}
