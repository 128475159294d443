"""Which run a promotion chooses: the named run, or the best trial of the study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from pneumo.promote.choose import Chosen, choose_run
from pneumo.search.confirm import FIRST_SEED
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.run import End, Role
from pneumo.tracking.promotions import find_request
from pneumo.tracking.store import Store
from pneumo.tracking.study import end_study, end_trial, start_trial, trial_runs
from pneumo.tracking.trial_log import TrialLog
from tests.support.new_stores import new_store
from tests.support.outboxes import send
from tests.support.recorded import begun


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with two studies of four trials: 0.90, 0.94 (large), 0.93, and a pruned one with 0.99."""
    folder = tmp_path_factory.mktemp("choose")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = new_store(folder)
        for name in ("plain", "confirmed"):
            _study(store, name)
        yield store


def _study(store: Store, name: str) -> None:
    study = begun(store, name)

    def run(number: int, end: End, metrics: Mapping[str, float], seed: int = 0, role: Role = "trial") -> None:
        key = start_trial(study, number, {"layers": 1}, seed, role=role)
        TrialLog(study.outbox, key).finish(metrics)
        end_trial(study, key, end)

    run(0, "complete", {"best_val_auc": 0.90, "parameters": 100})
    run(1, "killed", {"best_val_auc": 0.5})
    run(1, "complete", {"best_val_auc": 0.94, "parameters": 9000})
    run(2, "complete", {"best_val_auc": 0.93, "parameters": 50})
    run(3, "pruned", {"best_val_auc": 0.99, "parameters": 1})
    if name == "confirmed":
        for number, value in ((0, 0.91), (1, 0.89), (2, 0.92)):
            for seed in (FIRST_SEED, FIRST_SEED + 1):
                run(number, "complete", {"best_val_auc": value}, seed, "confirm")
    end_study(study, "FINISHED", metrics={}, artifacts={})
    send(study.outbox, store)


def choose(store: Store, study: str, run_id: str | None = None, **promote: object) -> Chosen:
    experiment = build_experiment({"name": study, "promote": promote}, "the test")
    return choose_run(store, find_request(store, run_id or study), experiment, trial_runs(store, study))


def test_the_best_complete_trial_by_the_objective(store: Store) -> None:
    chosen = choose(store, "plain")
    assert (chosen.run.number, chosen.run.state) == (1, "complete")
    assert chosen.reason == "trial 1, the best of 3 by val_auc 0.9400"


def test_the_mean_of_the_confirmations_decides(store: Store) -> None:
    chosen = choose(store, "confirmed")
    assert chosen.run.number == 2
    assert chosen.run.tags["pneumo.role"] == "trial", "expected the run of the trial, not of a confirmation"
    assert chosen.reason == "trial 2, the best of 3 by mean val_auc 0.9200 over 2 other seeds"


def test_the_rule_of_the_experiment_decides(store: Store) -> None:
    bound = {"parameters": {"max": 200}}
    assert choose(store, "plain", max="val_auc", subject_to=bound).run.number == 2
    assert choose(store, "plain", min="parameters").run.number == 2
    with pytest.raises(RequestError, match=r"no complete trial within the bounds of promote\.subject_to"):
        choose(store, "plain", max="val_auc", subject_to={"parameters": {"max": 10}})


def test_a_named_run_is_chosen_if_it_is_complete(store: Store) -> None:
    runs = trial_runs(store, "confirmed")
    chosen = choose(store, "confirmed", runs[0].run_id)
    assert (chosen.run.number, chosen.reason) == (0, "trial 0, chosen by its run id")
    (confirmation, *_) = trial_runs(store, "confirmed", "confirm")
    assert choose(store, "confirmed", confirmation.run_id).run.run_id == confirmation.run_id
    pruned = next(run for run in runs if run.state == "pruned")
    with pytest.raises(RequestError, match="this run is pruned; expected a complete trial"):
        choose(store, "confirmed", pruned.run_id)
    killed = next(run for run in runs if run.status == "KILLED")
    with pytest.raises(RequestError, match="this run is KILLED"):
        choose(store, "confirmed", killed.run_id)


def test_the_run_of_a_study_means_the_study_and_no_name_the_latest_study(store: Store) -> None:
    latest = find_request(store, None)
    assert latest.study == "confirmed"
    assert find_request(store, latest.recorded.run_id) == latest
    with pytest.raises(RequestError, match=r"neither a study nor a run in .*; there is confirmed, plain"):
        find_request(store, "nobody")
