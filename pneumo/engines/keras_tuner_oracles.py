"""Keras Tuner's oracles, adapted: driven without its tuners, and with a state that is complete.

Importing this module imports Keras Tuner and, through it, TensorFlow.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pneumo.engines.journal import Journal
from pneumo.engines.keras_tuner_space import to_keras_tuner
from pneumo.engines.untried import ALMOST_EXHAUSTED, DRAWS, trainable_combinations
from pneumo.spec.candidate import SkipReason
from pneumo.spec.experiment import Experiment
from pneumo.spec.objective import OBJECTIVES

WIDEST_RUNG = 2000
"""Largest number of combinations that is counted. Larger spaces do not limit the size of a rung."""


@contextmanager
def _discard_stderr() -> Iterator[None]:
    """Discard what is written to standard error. TensorFlow writes there when it is imported, at any log level."""
    stderr = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


with _discard_stderr():
    # Oracles are plain Python: they initialize none of TensorFlow's devices, so no GPU memory is used.
    import keras_tuner
    from keras_tuner import oracles
    from keras_tuner.engine.trial import Trial as OracleTrial


def build_oracle(experiment: Experiment, journal: Journal | None) -> Any:
    """Return the experiment's oracle in the state that the journal holds."""
    search, space = experiment.search, experiment.space
    objective = search.objectives[0]
    settings = {
        "objective": keras_tuner.Objective(objective, {"maximize": "max", "minimize": "min"}[OBJECTIVES[objective]]),
        "hyperparameters": to_keras_tuner(space),
        "allow_new_entries": False,
        "tune_new_entries": False,
        "seed": search.seed + 1,  # Keras Tuner replaces the seed 0 by a random one
        "max_consecutive_failed_trials": sys.maxsize,  # the search decides when failures end a study
        **search.algorithm_settings,
    }
    oracle: Any
    match search.algorithm:
        case "random":
            oracle = _RandomOracle(max_trials=None, **settings)
        case "bayesian":
            oracle = _BayesianOracle(max_trials=None, **settings)
        case "hyperband":
            oracle = _HyperbandOracle(max_epochs=int(space.possible_values("epochs")[0]), **settings)
            combinations = trainable_combinations(space, WIDEST_RUNG)
            oracle.combinations = math.inf if combinations is None else len(combinations)
        case "grid":
            oracle = _GridOracle(**settings)
        case _:
            raise AssertionError(search.algorithm)
    if journal and journal.oracle:
        oracle.set_state(journal.oracle)
    return oracle


class _Oracle(keras_tuner.Oracle):  # type: ignore[misc]
    """The adaptations that all algorithms share. Each algorithm inherits from it and from Keras Tuner's oracle."""

    given: dict[str, Any] | None = None
    """Hyperparameters of the next trial, in place of a proposal of the algorithm."""

    skip_reason: Callable[[Mapping[str, Any]], SkipReason | None]
    """Returns why values are not trained, though they were not proposed before; None if they are trained."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.skipped: list[SkipReason] = []
        self.verbose = 0
        self._max_collisions = DRAWS  # Keras Tuner gives up after 20

    def next(self) -> OracleTrial:
        """Return the trial that the algorithm proposes. Its status is RUNNING, IDLE (wait) or STOPPED (no more)."""
        # Keras Tuner gives a worker the same trial until it ends. A new worker id for each trial prevents that.
        return self.create_trial(f"worker-{len(self.start_order)}")

    def add_trial(self, values: dict[str, Any]) -> OracleTrial:
        """Begin a trial with these hyperparameters."""
        self.given = values
        trial = self.next()
        self.given = None
        return trial

    def finish(self, trial_id: str, value: float | None) -> None:
        """End a trial with a value of its objective, or as failed if the value is None."""
        trial = self.get_trial(trial_id)
        if value is not None:
            self.update_trial(trial_id, {self.objective.name: value})
        trial.status = "FAILED" if value is None else "COMPLETED"
        self.end_trial(trial)

    def reseed(self, seed: int) -> None:
        """Set the seed of the next proposal."""
        self._seed_state = seed

    def stop_reason(self) -> str:
        """Return why there are no more proposals."""
        return ALMOST_EXHAUSTED

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        if self.given is not None:
            return {"status": "RUNNING", "values": self.given}
        return self.propose(trial_id)

    def propose(self, trial_id: str) -> dict[str, Any]:
        """Return the algorithm's proposal: a status and the values."""
        proposal: dict[str, Any] = super().populate_space(trial_id)
        return proposal

    def _duplicate(self, values: dict[str, Any]) -> bool:
        if super()._duplicate(values):
            return True
        reason = self.skip_reason(values)
        if reason is not None:
            self.skipped.append(reason)
            self._tried_so_far.add(self._compute_values_hash(values))
        return reason is not None

    def get_state(self) -> dict[str, Any]:
        """Return the state of the oracle with the states of its trials, which Keras Tuner saves in files of their own."""
        state: dict[str, Any] = super().get_state()
        return state | {"trials": [trial.get_state() for trial in self.trials.values()]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        trials = map(OracleTrial.from_state, state["trials"])
        self.trials = {trial.trial_id: trial for trial in trials}
        super().set_state(state)

    def save(self) -> None:
        """Do nothing: the engine stores the whole state in its journal."""

    def _save_trial(self, trial: OracleTrial) -> None:
        """Do nothing, for the same reason."""


class _RandomOracle(_Oracle, oracles.RandomSearchOracle):  # type: ignore[misc]
    pass


class _BayesianOracle(_Oracle, oracles.BayesianOptimizationOracle):  # type: ignore[misc]
    def propose(self, trial_id: str) -> dict[str, Any]:
        # Keras Tuner's saved state lacks the random state and the fitted model with which it estimates the results of trials
        # under way. Both are built again from what the state has.
        self._random_state = np.random.RandomState(self._seed_state)
        # The matrices are tiny, and the trials need the processor: more than one thread takes six times as long.
        with threadpool_limits(1):
            trials = self.trials
            self.trials = {key: trial for key, trial in trials.items() if trial.status == "COMPLETED"}
            if self.ongoing_trials and self.trials:
                self.gpr.fit(*self._vectorize_trials())
            self.trials = trials
            proposal = super().propose(trial_id)
        if proposal["values"] is not None and self._duplicate(proposal["values"]):
            # The model does not know which trials failed and would propose the same one again and again.
            proposal = self._random_populate_space()
        return proposal

    def _get_hp_bounds(self) -> Any:
        # At the bound 1, Keras Tuner's Int with log sampling exceeds its maximum by one.
        kinds = keras_tuner.engine.hyperparameters
        return np.array([[0, 1 - 1e-9 if isinstance(hp, kinds.Int) else 1] for hp in self._nonfixed_space()])


class _HyperbandOracle(_Oracle, oracles.HyperbandOracle):  # type: ignore[misc]
    combinations: float = math.inf
    """Number of combinations of the space."""

    def stop_reason(self) -> str:
        return ALMOST_EXHAUSTED if self._brackets else "every bracket of Hyperband was run"

    def _get_size(self, bracket_num: int, round_num: int) -> int:
        # A first rung that is larger than the space would never be full, so none of its trials would be continued.
        return int(min(super()._get_size(bracket_num, round_num), self.combinations))


class _GridOracle(_Oracle, oracles.GridSearchOracle):  # type: ignore[misc]
    def stop_reason(self) -> str:
        return "every combination of the grid was proposed"

    def propose(self, trial_id: str) -> dict[str, Any]:
        proposal = super().propose(trial_id)
        if proposal["status"] == "RUNNING":
            # The next combination follows this one. Keras Tuner waits for the trial to end, since a model may register new
            # hyperparameters. Here all of them are known from the start.
            self._populate_next = [trial_id]
        return proposal

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        # Keras Tuner saves neither the order of the combinations so far nor the one that the next follows.
        for trial_id in self.start_order:
            self._ordered_ids.insert(trial_id)
        self._populate_next = self.start_order[-1:]
