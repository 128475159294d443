"""Optuna as an engine: its samplers and pruners through ask and tell, on its own storage."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from pneumo.engines.optuna_storage import (
    HYPERPARAMETERS,
    ID,
    LEARNED,
    RESULT,
    STOPPED,
    count_learned,
    finished_optuna_trials,
    open_optuna_study,
)
from pneumo.engines.samplers import build_sampler, check_installed
from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.objective import objective_values
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.space import Choice, Searched

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class OptunaEngine:
    """An `Engine` on one Optuna study. Only one process may work on a study at a time.

    A trial's number is Optuna's own number minus the number of learned trials, which come first.

    Args:
        experiment: The experiment.
        storage: Database URL.

    Raises:
        RequestError: The storage cannot be opened.
    """

    def __init__(self, experiment: Experiment, storage: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = experiment.space
        self._search = experiment.search
        self._first_candidates = experiment.first_candidates
        self._baseline = self._first_candidates[0] if experiment.search.baseline else None
        self._under_way: dict[int, optuna.Trial] = {}
        self._last_epochs: dict[int, int] = {}  # last reported epoch of interrupted trials, by number
        check_installed(experiment.search)
        self._study = open_optuna_study(experiment, storage)
        self.id: str = self._study.user_attrs[ID]
        self._learned = count_learned(self._study.get_trials(deepcopy=False))
        self._interrupted: list[FrozenTrial] = []  # proposed by an earlier process, without a result
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if RESULT in frozen.user_attrs:
                self._finish(frozen, TrialResult.from_json(frozen.user_attrs[RESULT]))
            else:
                self._interrupted.append(frozen)

    def ask(self) -> Candidate | Wait | Done:
        trials = self._study.get_trials(deepcopy=False)[self._learned :]
        if not self._interrupted and not any(t.state == TrialState.WAITING for t in trials):
            if len(trials) < len(self._first_candidates):
                self._enqueue(self._first_candidates[len(trials)])
            elif self._search.algorithm == "grid" and not self._enqueue_combination(trials):
                return Done("every combination of the grid was proposed")
        interrupted = self._interrupted.pop(0) if self._interrupted else None
        if interrupted is not None:
            number = interrupted.number - self._learned
        else:
            number = next((t.number - self._learned for t in trials if t.state == TrialState.WAITING), len(trials))
        self._study.sampler = build_sampler(self._search, number)
        if interrupted is None:
            trial = self._study.ask()
            number = trial.number - self._learned
        else:
            trial = optuna.Trial(self._study, interrupted._trial_id)
            self._last_epochs[number] = max(interrupted.intermediate_values, default=0)
        values = trial.user_attrs.get(HYPERPARAMETERS)
        if values is None:
            # If a process died while it drew the values, draw all of them again: each draw depends on those before it.
            trial._cached_frozen_trial.params.clear()
            trial._cached_frozen_trial.distributions.clear()
            values = self._space.draw(lambda dimension: _suggest(trial, dimension))
            trial.set_user_attr(HYPERPARAMETERS, values)
        else:
            for name in self._optuna_params(values):
                _suggest(trial, self._space[name])  # type: ignore[arg-type]
        self._under_way[number] = trial
        return self._candidate(number, values)

    def report(self, number: int, epoch: int, value: float) -> bool:
        if len(self._search.objectives) > 1:
            return True  # Optuna accepts no reports for several objectives
        trial = self._under_way[number]
        last_epoch = self._last_epochs.get(number, 0)
        if epoch > last_epoch:
            trial.report(value, epoch)
        else:
            # An interrupted trial runs again and reports this epoch a second time. Optuna keeps the first report of a step,
            # so replace its value. Decisions of the first time stand. Only that of its last epoch may have been lost.
            trial.storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
            if epoch < last_epoch or STOPPED in trial.user_attrs:
                return bool(trial.user_attrs.get(STOPPED) != epoch)
        # The baseline is never pruned, because all other trials are compared with it.
        if trial.user_attrs[HYPERPARAMETERS] == self._baseline or not trial.should_prune():
            return True
        trial.set_user_attr(STOPPED, epoch)
        return False

    def tell(self, result: TrialResult) -> None:
        trial = self._under_way.pop(result.number)
        # Store the whole result first. If the process is killed before Optuna is told, the next start finishes the trial.
        trial.set_user_attr(RESULT, result.to_json())
        self._finish(trial, result)

    def trials(self) -> tuple[Trial, ...]:
        return finished_optuna_trials(self._study, frozenset(d.name for d in self._space.searched))

    def learn(self, trials: Sequence[Trial]) -> None:
        if len(self._study.get_trials(deepcopy=False)) > self._learned:
            return
        for trial in trials[self._learned :]:  # a process that was killed here has stored the first ones
            if (values := objective_values(trial.result, self._search.objectives)) is None:
                raise ValueError(f"trial {trial.number} has no value of {', '.join(self._search.objectives)}")
            params = self._optuna_params(dict(trial.candidate.hyperparameters))
            self._study.add_trial(
                optuna.trial.create_trial(
                    values=values,
                    params=params,
                    distributions={name: _distribution(self._space[name]) for name in params},  # type: ignore[arg-type]
                    user_attrs={HYPERPARAMETERS: dict(trial.candidate.hyperparameters), LEARNED: trial.number},
                )
            )
            self._learned += 1

    def _candidate(self, number: int, values: dict[str, Value]) -> Candidate:
        searched = frozenset(d.name for d in self._space.searched) & set(values)
        return Candidate(number, values, searched)

    def _finish(self, trial: optuna.Trial | FrozenTrial, result: TrialResult) -> None:
        # A baseline outside the space has no parameters in Optuna. As a complete trial it would leave TPE no parameter that
        # all trials have in common. Optuna is told that it failed, and the attribute RESULT has its real result.
        in_space = self._space.contains(trial.user_attrs[HYPERPARAMETERS])
        values = objective_values(result, self._search.objectives)
        state = STATES[result.state] if in_space and (values or result.state != "complete") else TrialState.FAIL
        self._study.tell(trial.number, values if state == TrialState.COMPLETE else None, state=state)

    def _optuna_params(self, values: dict[str, Value]) -> dict[str, Value]:
        """Return the searched ones of these hyperparameters; none if they are not in the space."""
        if not self._space.contains(values):
            return {}
        return {d.name: values[d.name] for d in self._space.searched if d.name in values}

    def _enqueue(self, values: dict[str, Value]) -> None:
        self._study.enqueue_trial(self._optuna_params(values), user_attrs={HYPERPARAMETERS: values})

    def _enqueue_combination(self, trials: list[FrozenTrial]) -> bool:
        """Enqueue a random combination of the grid that was not proposed yet. Return False if there is none.

        Optuna's GridSampler does not support conditions, and its BruteForceSampler no trials without parameters.
        """
        proposed = (t.user_attrs[HYPERPARAMETERS] for t in trials if HYPERPARAMETERS in t.user_attrs)
        seen = {json.dumps(values, sort_keys=True) for values in proposed}
        remaining = [values for values in self._space.grid() if json.dumps(values, sort_keys=True) not in seen]
        if remaining:
            generator = np.random.default_rng([self._search.seed, len(trials)])
            self._enqueue(remaining[generator.integers(len(remaining))])
        return bool(remaining)


def _distribution(dimension: Searched) -> BaseDistribution:
    """Return the distribution from which `_suggest` makes Optuna sample."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if dimension.integer:
        return IntDistribution(int(dimension.low), int(dimension.high), dimension.log, int(dimension.step or 1))
    return FloatDistribution(dimension.low, dimension.high, dimension.log, dimension.step)


def _suggest(trial: optuna.Trial, dimension: Searched) -> Value:
    if isinstance(dimension, Choice):
        choice: Value = trial.suggest_categorical(dimension.name, dimension.values)  # type: ignore[assignment]
        return choice
    if dimension.integer:
        low, high, step = int(dimension.low), int(dimension.high), int(dimension.step or 1)
        return trial.suggest_int(dimension.name, low, high, step=step, log=dimension.log)
    value = trial.suggest_float(dimension.name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)
    # Replace low + k * step in floating point, for example 0.30000000000000004, by the value as the file implies it, 0.3.
    return min(dimension.values, key=lambda exact: abs(float(exact) - value)) if dimension.values else value
