"""Several searches share one study in a real PostgreSQL: their engines, without trainings."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from pneumo.engines.engine_table import open_engine, stored_studies
from pneumo.engines.protocol import Engine
from pneumo.engines.shared_study import join_study
from pneumo.engines.study_lock import lock_study
from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.errors import RequestError, TakenOverError
from pneumo.spec.experiment import Experiment
from tests.support.engine_studies import experiment, tell
from tests.support.postgres import Postgres

pytestmark = pytest.mark.slow

TAKEOVER = 1.0


def test_what_several_searches_propose_at_once_is_one_study(postgres: Postgres) -> None:
    storage, request = postgres.create("at-once"), experiment("optuna", "tpe", trials=16)
    with ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(lambda _: run(request, storage), range(4)))
    assert sum(counts) == 16
    (study,) = stored_studies(request.name, storage)
    assert (study.numbers, study.lost) == (tuple(range(16)), ())
    assert [trial.number for trial in study.trials] == list(range(16))
    assert len({trial.candidate.key for trial in study.trials}) == 16


def test_the_trial_of_a_dead_search_is_taken_over_and_what_it_tells_later_does_not_count(postgres: Postgres) -> None:
    storage, request = postgres.create("dead"), experiment("optuna", "random", trials=2)
    with join_study(request.name, storage, TAKEOVER) as first, join_study(request.name, storage, TAKEOVER) as second:
        engines = [open_engine(request, storage, driver) for driver in (first, second)]
        proposals = [engine.ask() for engine in engines]
        assert isinstance(proposals[0], Candidate)
        assert [proposal.number for proposal in proposals if isinstance(proposal, Candidate)] == [0, 1]
        assert isinstance(engines[1].ask(), Wait)  # trial 0 may have to be taken over
        first.end()  # no more heartbeats
        taken = next(proposal for proposal in asked(engines[1]) if not isinstance(proposal, Wait))
        assert taken == proposals[0]
        with pytest.raises(TakenOverError):
            tell(engines[0], proposals[0])
        for proposal in (proposals[1], taken):
            assert isinstance(proposal, Candidate)
            tell(engines[1], proposal)
        assert next(proposal for proposal in asked(engines[1]) if not isinstance(proposal, Wait)) == Done(
            "all 2 trials are done", exhausted=False
        )


def test_who_shares_a_study_and_who_does_not_keep_each_other_out(postgres: Postgres) -> None:
    storage, request = postgres.create("keep-out"), experiment("optuna", "random", trials=2)
    with ExitStack() as stack:
        drivers = [stack.enter_context(join_study(request.name, storage, TAKEOVER)) for _ in range(2)]
        assert [driver.is_first for driver in drivers] == [True, False]
        with pytest.raises(RequestError, match="another search is at work on it"), lock_study(request.name, storage):
            pass
        open_engine(request, storage, drivers[0])
        changed = experiment("optuna", "random", trials=2, seed=5)
        with pytest.raises(RequestError, match=r"another experiment: search\.seed was 0, now 5"):
            open_engine(changed, storage, drivers[1])
        assert drivers[0].leave()  # the other one is still there
        assert drivers[1].leave() is None
        with (
            pytest.raises(RequestError, match="another search is at work on it"),
            join_study(request.name, storage, TAKEOVER),
        ):
            pass
    with lock_study(request.name, storage):
        pass


def run(request: Experiment, storage: str) -> int:
    """Play a search until the study is done. Return how many trials it has told."""
    told = 0
    with join_study(request.name, storage, 60) as driver:
        engine = open_engine(request, storage, driver)
        for proposal in asked(engine):
            if isinstance(proposal, Done):
                return told
            if isinstance(proposal, Candidate):
                tell(engine, proposal)
                told += 1
    raise AssertionError


def asked(engine: Engine) -> Iterator[Candidate | Wait | Done]:
    while True:
        yield engine.ask()
