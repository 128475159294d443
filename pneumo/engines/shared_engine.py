"""Optuna as the engine of one search among several that share a study.

Each change of the study is made in a turn (see `shared_study`): so no candidate is proposed twice and the numbers have no gaps.
A trial names the search that has it under way. A search that lives sends heartbeats for its trials, of which Optuna's storage
keeps the last one (Optuna itself sends them only while it runs the loop). A search whose heartbeats do not change is dead,
and another takes over its trials, under their numbers.

No clock of another machine counts: each search measures by its own how long a heartbeat has not changed. While the database is
away nobody can send any, so the measuring begins anew when it is back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import optuna
import sqlalchemy
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState

from pneumo.engines.optuna_engine import OptunaEngine
from pneumo.engines.optuna_storage import (
    HYPERPARAMETERS,
    OWNER,
    RESULT,
    SESSION,
    SKIPPED,
    count_learned,
    numbered_trials,
    open_optuna_study,
)
from pneumo.engines.shared_study import Driver
from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.errors import TakenOverError
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import Trial, TrialResult

BEATS = 4
"""Number of heartbeats in the time after which others take over a search's trials."""

LOOK = 1.0
"""Seconds for which a search that has to wait for the others does not ask again."""

_HEARTBEATS = sqlalchemy.text(
    "SELECT h.trial_id, h.heartbeat FROM trial_heartbeats h JOIN trials t ON t.trial_id = h.trial_id "
    "WHERE t.study_id = :study AND t.state = 'RUNNING'"
)


class SharedOptunaEngine(OptunaEngine):
    """An `Engine` on an Optuna study that several searches share. It counts the trials of all of them.

    `ask` answers `Wait` while every trial of the budget is finished or under way, since one that is under way elsewhere may
    have to be taken over. When all are finished, it answers `Done`.

    Args:
        experiment: The experiment.
        storage: URL of a PostgreSQL database.
        driver: This search among the others.
        reopened: Whether this search had the study open before an outage of the database.

    Raises:
        RequestError: The storage cannot be opened, or other searches work on the study with another experiment.
    """

    def __init__(self, experiment: Experiment, storage: str, driver: Driver, *, reopened: bool = False) -> None:
        self._driver, self._counted, self._look_at = driver, 0, 0.0
        with driver.turn():
            self._joining = reopened or driver.others() is not None
            super().__init__(experiment, storage)
            if not reopened:
                self._begin()
            else:
                self._note_lost()
        self._heart = _Heart(self)
        driver.replace_heart(self._heart.stop)

    def ask(self) -> Candidate | Wait | Done:
        if time.monotonic() < self._look_at:
            return Wait()
        with self._driver.turn():
            proposal = self._propose()
        self._look_at = time.monotonic() + LOOK if isinstance(proposal, Wait) else 0.0
        return proposal

    def report(self, number: int, epoch: int, value: float) -> bool:
        return number not in self._driver.lost and super().report(number, epoch, value)

    def tell(self, result: TrialResult) -> None:
        with self._driver.turn():
            trial = self._under_way.get(result.number)
            stored = self._storage.get_trial(trial._trial_id) if trial else None
            if stored is None or stored.state.is_finished() or _owner(stored) != self._driver.id:
                self._under_way.pop(result.number, None)
                self._driver.under_way.discard(result.number)
                raise TakenOverError(result.number)
            super().tell(result)
        self._driver.under_way.discard(result.number)
        self._look_at = 0.0

    def learn(self, trials: Sequence[Trial]) -> None:
        with self._driver.turn():
            self._take_notice()
            super().learn(trials)

    def _open_study(self, experiment: Experiment, storage: str) -> optuna.Study:
        return open_optuna_study(experiment, storage, joining=self._joining)

    def _begin(self) -> None:
        """Note when the searches began. Set free the trials of earlier ones if nobody else is there."""
        if self._driver.is_first or not self._joining or SESSION not in self._study.user_attrs:
            self._study.set_user_attr(SESSION, self._now())
        self._driver.note_elapsed(self._now() - float(self._study.user_attrs[SESSION]))
        if not self._joining:
            for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                self._storage.set_trial_user_attr(frozen._trial_id, OWNER, None)

    def _note_lost(self) -> None:
        """Note which trials of this search others have taken over while it could not reach the database."""
        for number, frozen in numbered_trials(self._study.get_trials(deepcopy=False)):
            if number in self._driver.under_way and _owner(frozen) not in (None, self._driver.id):
                self._driver.lost.add(number)

    def _left_over(self) -> list[FrozenTrial]:
        return []  # they are taken over one by one, when a worker is free

    def _propose(self) -> Candidate | Wait | Done:
        optuna_trials = self._take_notice()
        left = self._next_left_over()
        if left is not None:
            self._own(left._trial_id)
            self._interrupted = [left]
        else:
            numbered = [trial for _, trial in numbered_trials(optuna_trials) if trial.state != TrialState.WAITING]
            if len(numbered) >= self._search.trials:
                return self._wait_or(Done(f"all {self._search.trials} trials are done", exhausted=False))
        proposal = super().ask()
        if isinstance(proposal, Candidate):
            self._own(self._under_way[proposal.number]._trial_id)
            self._driver.lost.discard(proposal.number)
            self._driver.under_way.add(proposal.number)
            return proposal
        return self._wait_or(proposal)

    def _wait_or(self, answer: Wait | Done) -> Wait | Done:
        """Return `Wait` while a trial is under way anywhere, since it may have to be taken over; then the answer."""
        under_way = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return Wait() if under_way else answer

    def _take_notice(self) -> list[FrozenTrial]:
        """Return all trials of Optuna, after taking notice of those that other searches have added."""
        optuna_trials = self._study.get_trials(deepcopy=False)
        for trial in optuna_trials[self._counted :]:
            if HYPERPARAMETERS in trial.user_attrs:
                self._tried.add(Candidate(0, trial.user_attrs[HYPERPARAMETERS]).key)
        self._counted = next(
            (n for n, trial in enumerate(optuna_trials) if not trial.state.is_finished()), len(optuna_trials)
        )
        self._learned = count_learned(optuna_trials)
        return optuna_trials

    def _next_left_over(self) -> FrozenTrial | None:
        """Return a trial without a result that nobody has under way; those of this search come first, after an outage."""
        mine = {trial._trial_id for trial in self._under_way.values()}
        left, beats = [], self._read_heartbeats()
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen._trial_id in mine:
                continue
            # What is done in a turn and is not complete now was broken off.
            if RESULT in frozen.user_attrs:
                self._finish(frozen, TrialResult.from_json(frozen.user_attrs[RESULT]))
            elif SKIPPED in frozen.user_attrs:
                self._study.tell(frozen.number, state=TrialState.FAIL)
            elif (owner := _owner(frozen)) in (None, self._driver.id):
                left.append((owner is None, frozen))
            elif self._heart.is_dead(frozen, beats.get(frozen._trial_id)):
                left.append((True, frozen))
        return min(left, key=lambda pair: (pair[0], pair[1].number))[1] if left else None

    def _own(self, trial_id: int) -> None:
        self._storage.record_heartbeat(trial_id)
        self._storage.set_trial_user_attr(trial_id, OWNER, [self._driver.id, self._driver.takeover])

    def beat(self) -> dict[int, object]:
        """Send a heartbeat for each trial under way here. Return the last one of each trial under way anywhere."""
        for number, trial in list(self._under_way.items()):
            stored = self._storage.get_trial(trial._trial_id)
            if stored.state.is_finished() or (owner := _owner(stored)) is None:
                continue  # it is being told, or being proposed
            if owner == self._driver.id:
                self._storage.record_heartbeat(trial._trial_id)
            else:
                self._driver.lost.add(number)
        return self._read_heartbeats()

    def _read_heartbeats(self) -> dict[int, object]:
        with self._storage._backend.engine.connect() as database:
            rows = database.execute(_HEARTBEATS, {"study": self._study._study_id}).all()
        return {row.trial_id: row.heartbeat for row in rows}

    def _now(self) -> float:
        """Return the database's time in seconds since 1970, the same for all searches."""
        with self._storage._backend.engine.connect() as database:
            return float(database.execute(sqlalchemy.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    @property
    def _storage(self) -> _CachedStorage:
        storage = self._study._storage
        assert isinstance(storage, _CachedStorage)
        return storage


class _Heart:
    """The thread that sends heartbeats and watches those of the others."""

    def __init__(self, engine: SharedOptunaEngine) -> None:
        self._engine, self._takeover = engine, engine._driver.takeover
        self._stopped = threading.Event()
        self._seen: dict[int, tuple[object, float]] = {}  # the last heartbeat of a trial, and since when it is this one
        self._thread = threading.Thread(target=self._run, name="pneumo-heart", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def is_dead(self, trial: FrozenTrial, beat: object) -> bool:
        """Return whether the search that has a trial under way has sent no heartbeat for as long as it may take."""
        seen, since = self._seen.get(trial._trial_id, (None, 0.0))
        return seen is not None and seen == beat and time.monotonic() - since >= float(trial.user_attrs[OWNER][1])

    def _run(self) -> None:
        pause, last = self._takeover / BEATS, time.monotonic()
        while not self._stopped.wait(pause):
            try:
                beats = self._engine.beat()
            except Exception:  # the database is away; a call of the engine says so
                beats = {}
            now = time.monotonic()
            if now - last > 2 * pause + LOOK:
                self._seen = {}  # the database hung or this machine was suspended; so the others could perhaps send none
            self._seen = {
                trial_id: self._seen[trial_id] if self._seen.get(trial_id, (None,))[0] == beat else (beat, now)
                for trial_id, beat in beats.items()
            }
            last = now


def _owner(trial: FrozenTrial) -> str | None:
    """Return the id of the search that has a trial under way; None if there is none."""
    owner = trial.user_attrs.get(OWNER)
    return str(owner[0]) if owner else None
