"""Keras Tuner as an engine: its own oracles, asked and told without its tuners, their state in our journal."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pneumo.engines.journal import Journal, Proposal, finished_journal_trials, open_journal, read_journal, write_journal
from pneumo.engines.keras_tuner_space import decoded, encoded, hyperparameters
from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.space import Range, Space

DRAWS = 1000
"""So many random draws in a row that were tried before mean that nothing new is left; Keras Tuner's 20 give up early."""

EXHAUSTED = f"every combination of the space was tried, or nearly every one: {DRAWS} draws found none that is new"

WIDEST_RUNG = 2000
"""Spaces of more combinations are not counted: no rung has room for them."""


@contextmanager
def _silence() -> Iterator[None]:
    """Lets nothing through to standard error, which TensorFlow writes to while it is imported, at any log level."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with _silence():
    # Oracles are plain Python: nothing here starts TensorFlow's devices, so none of a GPU's memory is taken.
    import keras_tuner
    from keras_tuner import oracles
    from keras_tuner.engine.trial import Trial as OracleTrial


class KerasTunerEngine:
    """An `Engine` on one of Keras Tuner's oracles. One process works on a study at a time.

    The oracle lives in memory. After each ask and tell its whole state and our record of what was proposed and told are
    put on disk at once (see `journal`), and both are taken up from there. So what is on disk is never half an operation,
    and an operation that fails changes nothing: the oracle is made again from what is there.

    Raises `RequestError` where the study's folder cannot be read and written.
    """

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self._experiment = experiment
        self._space = experiment.space
        self._algorithm = experiment.search.algorithm
        self._first = experiment.first_candidates
        self._folder = folder
        journal = open_journal(folder, experiment.to_yaml())
        self.id: str = journal.id
        self._resolved = journal.experiment
        self._proposals = journal.proposals
        self._left = [p.candidate for p in journal.proposals if p.result is None]
        self._nothing: Wait | Done | None = None
        self._oracle: Any = _oracle(experiment, journal)

    def learn(self, trials: Sequence[Trial]) -> None:
        if self._algorithm != "bayesian" or self._proposals:
            return  # the other algorithms decide nothing by earlier trials
        with self._operation() as oracle:
            if oracle.trials:
                return  # learned before, by a process that was killed then
            for trial in trials:
                taken = oracle.take(encoded(self._space, trial.candidate.hyperparameters))
                self._end(oracle, taken.trial_id, trial.result)
            self._keep(oracle, ())

    def ask(self) -> Candidate | Wait | Done:
        if self._left:
            return self._left.pop(0)
        if self._nothing is not None:
            return self._nothing  # until something is told
        number = len(self._proposals)
        with self._operation() as oracle:
            # What is proposed depends on the seed and on what was told, not on how often it was asked for before.
            oracle.reseed(_seed(self._experiment.search.seed, number))
            proposed = self._begin(oracle, number) if number < len(self._first) else self._propose(oracle, number)
            if isinstance(proposed, Proposal):
                self._keep(oracle, (*self._proposals, proposed))
                return proposed.candidate
        self._nothing = proposed
        return proposed

    def report(self, number: int, epoch: int, value: float) -> bool:
        return True  # Keras Tuner ends no trial early: its Hyperband proposes short ones

    def tell(self, result: TrialResult) -> None:
        proposal = self._proposals[result.number]
        if proposal.result is not None:
            raise ValueError(f"trial {result.number} was told before")
        with self._operation() as oracle:
            if proposal.trial is not None:
                self._end(oracle, proposal.trial, result)
            proposals = list(self._proposals)
            proposals[result.number] = replace(proposal, result=result)
            self._keep(oracle, tuple(proposals))
        self._nothing = None

    def trials(self) -> tuple[Trial, ...]:
        return finished_journal_trials(self._proposals)

    def _begin(self, oracle: Any, number: int) -> Proposal:
        """The baseline or a known configuration: not the algorithm's proposal, but where it can be it learns of it."""
        values = self._first[number]
        candidate = Candidate(number, values, self._searched(values))
        if self._algorithm in ("grid", "hyperband") or not self._space.holds(values):
            return Proposal(candidate, None)
        return Proposal(candidate, oracle.take(encoded(self._space, values)).trial_id)

    def _propose(self, oracle: Any, number: int) -> Proposal | Wait | Done:
        while True:
            trial = oracle.next()
            if trial.status == "IDLE":
                return Wait()
            if trial.status == "STOPPED":
                return Done(oracle.exhausted())
            candidate = self._candidate(number, trial.hyperparameters.values)
            if candidate is not None:
                return Proposal(candidate, trial.trial_id)
            self._end(oracle, trial.trial_id, None)

    def _candidate(self, number: int, chosen: Mapping[str, Any]) -> Candidate | None:
        """What the oracle proposes; None where it cannot be run or has been."""
        values = self._space.draw(lambda dimension: decoded(dimension, chosen[dimension.name]))
        searched = self._searched(values)
        if self._algorithm != "hyperband":
            return None if self._algorithm == "grid" and values in self._first else Candidate(number, values, searched)
        rung = values | {"epochs": int(chosen["tuner/epochs"])}
        begun, full = int(chosen["tuner/initial_epoch"]), int(values["epochs"])
        if "tuner/trial_id" not in chosen:
            return Candidate(number, rung, searched, begun, None, full)
        past = next((p for p in self._proposals if p.trial == chosen["tuner/trial_id"]), None)
        if past is None or past.result is None or _value(past.result) is None:
            return None  # so many of a rung failed that one of them goes on: it left nothing to go on from
        return Candidate(number, rung, searched, begun, past.candidate.number, full)

    def _searched(self, values: Mapping[str, Value]) -> frozenset[str]:
        return frozenset(d.name for d in self._space.searched) & set(values)

    def _end(self, oracle: Any, trial_id: str, result: TrialResult | None) -> None:
        value = _value(result) if result else None
        if value is None and self._algorithm == "hyperband":
            # Told as failed it would leave its rung one short for ever, and the next ones empty. It is the worst instead.
            value = -math.inf if oracle.objective.direction == "max" else math.inf
        oracle.finish(trial_id, value)

    @contextmanager
    def _operation(self) -> Iterator[Any]:
        """The oracle, for one operation. One that fails leaves it half changed and its lock held: it is used no more."""
        oracle, self._oracle = self._oracle, None
        if oracle is None:
            oracle = _oracle(self._experiment, read_journal(self._folder))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Gaussian processes that do not converge, of deprecated calls
            yield oracle
        self._oracle = oracle

    def _keep(self, oracle: Any, proposals: tuple[Proposal, ...]) -> None:
        write_journal(self._folder, Journal(self.id, self._resolved, proposals, oracle.get_state()))
        self._proposals = proposals


def _value(result: TrialResult) -> float | None:
    """What the oracle is told; None where the trial failed. Infinity too: its Gaussian process would take it for 0."""
    if result.state == "failed" or result.value is None or not math.isfinite(result.value):
        return None
    return float(result.value)


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _combinations(space: Space) -> float:
    """How many candidates the space has; infinity where there are too many to matter."""
    if any(isinstance(d, Range) and d.values is None for d in space.searched):
        return math.inf
    counted = sum(1 for _ in islice(space.grid(), WIDEST_RUNG + 1))
    return counted if counted <= WIDEST_RUNG else math.inf


def _oracle(experiment: Experiment, journal: Journal | None) -> Any:
    """The experiment's oracle in the state that the journal holds."""
    search, space = experiment.search, experiment.space
    objective = search.objectives[0]
    settings = {
        "objective": keras_tuner.Objective(objective, {"maximize": "max", "minimize": "min"}[OBJECTIVES[objective]]),
        "hyperparameters": hyperparameters(space),
        "allow_new_entries": False,
        "tune_new_entries": False,
        "seed": search.seed + 1,  # Keras Tuner draws one at random in the place of 0
        "max_consecutive_failed_trials": sys.maxsize,  # when a study is given up is not the oracle's to say
        **search.algorithm_settings,
    }
    oracle: Any
    match search.algorithm:
        case "random":
            oracle = _Random(max_trials=None, **settings)
        case "bayesian":
            oracle = _Bayesian(max_trials=None, **settings)
        case "hyperband":
            oracle = _Hyperband(max_epochs=int(space.possible("epochs")[0]), **settings)
            oracle.combinations = _combinations(space)
        case "grid":
            oracle = _Grid(**settings)
        case _:
            raise AssertionError(search.algorithm)
    if journal and journal.oracle:
        oracle.set_state(journal.oracle)
    return oracle


class _Oracle(keras_tuner.Oracle):  # type: ignore[misc]
    """What is the same for all algorithms: each is this, then Keras Tuner's oracle of its name."""

    given: dict[str, Any] | None = None
    """The hyperparameters of the next trial, instead of what the algorithm would propose."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.verbose = 0
        self._max_collisions = DRAWS

    def next(self) -> OracleTrial:
        """The trial that the algorithm proposes; its status is RUNNING, IDLE or STOPPED."""
        # A worker that asks again gets the same trial: each trial is a new worker's.
        return self.create_trial(f"worker-{len(self.start_order)}")

    def take(self, values: dict[str, Any]) -> OracleTrial:
        """A trial with these hyperparameters."""
        self.given = values
        trial = self.next()
        self.given = None
        return trial

    def finish(self, trial_id: str, value: float | None) -> None:
        """Ends a trial with its objective; with None it failed."""
        trial = self.get_trial(trial_id)
        if value is not None:
            self.update_trial(trial_id, {self.objective.name: value})
        trial.status = "FAILED" if value is None else "COMPLETED"
        self.end_trial(trial)

    def reseed(self, seed: int) -> None:
        self._seed_state = seed

    def exhausted(self) -> str:
        """Why it stopped."""
        return EXHAUSTED

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        if self.given is not None:
            return {"status": "RUNNING", "values": self.given}
        return self.propose(trial_id)

    def propose(self, trial_id: str) -> dict[str, Any]:
        proposed: dict[str, Any] = super().populate_space(trial_id)
        return proposed

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        return state | {"trials": [trial.get_state() for trial in self.trials.values()]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        trials = map(OracleTrial.from_state, state["trials"])
        self.trials = {trial.trial_id: trial for trial in trials}
        super().set_state(state)

    def save(self) -> None:
        """Nothing: whoever asks and tells keeps the whole state."""

    def _save_trial(self, trial: OracleTrial) -> None:
        """Nothing, likewise."""


class _Random(_Oracle, oracles.RandomSearchOracle):  # type: ignore[misc]
    pass


class _Bayesian(_Oracle, oracles.BayesianOptimizationOracle):  # type: ignore[misc]
    def propose(self, trial_id: str) -> dict[str, Any]:
        # The random state, and the model of the last ask, by which Keras Tuner guesses how trials under way will end, are not
        # in the state that it saves. Both are made anew of what is.
        self._random_state = np.random.RandomState(self._seed_state)
        # One thread: the matrices are tiny, and the processor is what trials are trained on. More take six times as long.
        with threadpool_limits(1):
            trials = self.trials
            self.trials = {key: trial for key, trial in trials.items() if trial.status == "COMPLETED"}
            if self.ongoing_trials and self.trials:
                self.gpr.fit(*self._vectorize_trials())
            self.trials = trials
            proposed = super().propose(trial_id)
        if proposed["values"] is not None and self._duplicate(proposed["values"]):
            # The model does not look whether it was tried: it would propose a failed trial again and again.
            proposed = self._random_populate_space()
        return proposed

    def _get_hp_bounds(self) -> Any:
        # At 1 an Int with log sampling is one above its maximum.
        kinds = keras_tuner.engine.hyperparameters
        return np.array([[0, 1 - 1e-9 if isinstance(hp, kinds.Int) else 1] for hp in self._nonfixed_space()])


class _Hyperband(_Oracle, oracles.HyperbandOracle):  # type: ignore[misc]
    combinations: float = math.inf
    """How many the space has."""

    def exhausted(self) -> str:
        return EXHAUSTED if self._brackets else "every bracket of Hyperband was run"

    def _get_size(self, bracket_num: int, round_num: int) -> int:
        # A first rung of more trials than there are combinations is never full, and none of it would go on.
        return int(min(super()._get_size(bracket_num, round_num), self.combinations))


class _Grid(_Oracle, oracles.GridSearchOracle):  # type: ignore[misc]
    def exhausted(self) -> str:
        return "every combination of the grid was proposed"

    def propose(self, trial_id: str) -> dict[str, Any]:
        proposed = super().propose(trial_id)
        if proposed["status"] == "RUNNING":
            # The next combination follows from this one. Keras Tuner waits until it was told, since a model may ask for
            # hyperparameters that are new; here all are known.
            self._populate_next = [trial_id]
        return proposed

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        # Keras Tuner saves neither: the order of the combinations so far, and the one that the next follows from.
        for trial_id in self.start_order:
            self._ordered_ids.insert(trial_id)
        self._populate_next = self.start_order[-1:]
