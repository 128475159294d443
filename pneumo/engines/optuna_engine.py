"""Optuna as an engine: its samplers and pruners through ask and tell, its own storage."""

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
    finished_optuna_trials,
    open_optuna_study,
)
from pneumo.engines.samplers import build_sampler, check_installed, should_terminate
from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.objective import values_of
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.space import Choice, Searched

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class OptunaEngine:
    """An `Engine` on one Optuna study. One process works on a study at a time.

    Numbers are Optuna's own, less the trials that were learned from an earlier study: those come first.

    Raises `RequestError` where the storage cannot be opened.
    """

    def __init__(self, experiment: Experiment, storage: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = experiment.space
        self._search = experiment.search
        self._first = experiment.first_candidates
        self._baseline = self._first[0] if experiment.search.baseline else None
        self._asked: dict[int, optuna.Trial] = {}
        self._reported: dict[int, int] = {}
        check_installed(experiment.search)
        self._study = open_optuna_study(experiment, storage)
        self.id: str = self._study.user_attrs[ID]
        self._learned = sum(LEARNED in trial.user_attrs for trial in self._study.get_trials(deepcopy=False))
        self._left: list[FrozenTrial] = []
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if RESULT in frozen.user_attrs:
                self._finish(frozen, TrialResult.from_json(frozen.user_attrs[RESULT]))
            else:
                self._left.append(frozen)

    def ask(self) -> Candidate | Wait | Done:
        trials = self._study.get_trials(deepcopy=False)[self._learned :]
        if not self._left and not any(t.state == TrialState.WAITING for t in trials):
            if len(trials) < len(self._first):
                self._enqueue(self._first[len(trials)])
            elif self._search.terminator and should_terminate(self._study):
                return Done("Optuna's terminator expects no better value")
            elif self._search.algorithm == "grid" and not self._enqueue_combination(trials):
                return Done("every combination of the grid was proposed")
        left = self._left.pop(0) if self._left else None
        waiting = next((t.number - self._learned for t in trials if t.state == TrialState.WAITING), len(trials))
        self._study.sampler = build_sampler(self._search, left.number - self._learned if left else waiting)
        if left is None:
            trial = self._study.ask()
        else:
            trial = optuna.Trial(self._study, left._trial_id)
            self._reported[left.number - self._learned] = max(left.intermediate_values, default=0)
        values = trial.user_attrs.get(HYPERPARAMETERS)
        if values is None:
            # Where its process died half way, it is drawn from the first value on: the sampler's draws follow one another.
            trial._cached_frozen_trial.params.clear()
            trial._cached_frozen_trial.distributions.clear()
            values = self._space.draw(lambda dimension: _suggest(trial, dimension))
            trial.set_user_attr(HYPERPARAMETERS, values)
        else:
            for name in self._inside(values):
                _suggest(trial, self._space[name])  # type: ignore[arg-type]
        number = trial.number - self._learned
        self._asked[number] = trial
        return self._candidate(number, values)

    def report(self, number: int, epoch: int, value: float) -> bool:
        if len(self._search.objectives) > 1:
            return True  # nothing is pruned, and Optuna takes no reports
        trial = self._asked[number]
        last = self._reported.get(number, 0)
        if epoch > last:
            trial.report(value, epoch)
        else:
            # It ran before and was interrupted later. Optuna keeps the first report of a step and looks at the last:
            # put the new value in its place. What was decided then stands, but at the last step, whose decision may have
            # been lost.
            trial.storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
            if epoch < last or STOPPED in trial.user_attrs:
                return bool(trial.user_attrs.get(STOPPED) != epoch)
        # The tutorial's own network is what all others are measured against: it runs to its end.
        if trial.user_attrs[HYPERPARAMETERS] == self._baseline or not trial.should_prune():
            return True
        trial.set_user_attr(STOPPED, epoch)
        return False

    def tell(self, result: TrialResult) -> None:
        trial = self._asked.pop(result.number)
        # First the whole result: a process killed between the two lines finds it on the next start.
        trial.set_user_attr(RESULT, result.to_json())
        self._finish(trial, result)

    def trials(self) -> tuple[Trial, ...]:
        return finished_optuna_trials(self._study, frozenset(d.name for d in self._space.searched))

    def learn(self, trials: Sequence[Trial]) -> None:
        if len(self._study.get_trials(deepcopy=False)) > self._learned:
            return
        for trial in trials[self._learned :]:  # a process killed in here has left the first ones
            if (values := values_of(trial.result, self._search.objectives)) is None:
                raise ValueError(f"trial {trial.number} has no value of {', '.join(self._search.objectives)}")
            inside = self._inside(dict(trial.candidate.hyperparameters))
            self._study.add_trial(
                optuna.trial.create_trial(
                    values=values,
                    params=inside,
                    distributions={name: _distribution(self._space[name]) for name in inside},  # type: ignore[arg-type]
                    user_attrs={HYPERPARAMETERS: dict(trial.candidate.hyperparameters), LEARNED: trial.number},
                )
            )
            self._learned += 1

    def _candidate(self, number: int, values: dict[str, Value]) -> Candidate:
        searched = frozenset(d.name for d in self._space.searched) & set(values)
        return Candidate(number, values, searched)

    def _finish(self, trial: optuna.Trial | FrozenTrial, result: TrialResult) -> None:
        # A baseline outside the space has no parameters in Optuna. Told as complete it would leave TPE no parameter
        # that all trials have in common; as failed, Optuna passes over it, and our record of it is the attribute.
        inside = self._space.holds(trial.user_attrs[HYPERPARAMETERS])
        values = values_of(result, self._search.objectives)
        state = STATES[result.state] if inside and (values or result.state != "complete") else TrialState.FAIL
        self._study.tell(trial.number, values if state == TrialState.COMPLETE else None, state=state)

    def _inside(self, values: dict[str, Value]) -> dict[str, Value]:
        """The searched ones of these hyperparameters; none where the space does not hold them."""
        if not self._space.holds(values):
            return {}
        return {d.name: values[d.name] for d in self._space.searched if d.name in values}

    def _enqueue(self, values: dict[str, Value]) -> None:
        self._study.enqueue_trial(self._inside(values), user_attrs={HYPERPARAMETERS: values})

    def _enqueue_combination(self, trials: list[FrozenTrial]) -> bool:
        """Have Optuna take a combination that was not proposed yet; False where there is none.

        Optuna's GridSampler knows no conditions, and its brute force no trial without parameters.
        """
        proposed = (t.user_attrs[HYPERPARAMETERS] for t in trials if HYPERPARAMETERS in t.user_attrs)
        seen = {json.dumps(values, sort_keys=True) for values in proposed}
        left = [values for values in self._space.grid() if json.dumps(values, sort_keys=True) not in seen]
        if left:
            self._enqueue(left[np.random.default_rng([self._search.seed, len(trials)]).integers(len(left))])
        return bool(left)


def _distribution(dimension: Searched) -> BaseDistribution:
    """What `_suggest` has Optuna sample from."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if dimension.integer:
        return IntDistribution(int(dimension.low), int(dimension.high), dimension.log, int(dimension.step or 1))
    return FloatDistribution(dimension.low, dimension.high, dimension.log, dimension.step)


def _suggest(trial: optuna.Trial, dimension: Searched) -> Value:
    if isinstance(dimension, Choice):
        chosen: Value = trial.suggest_categorical(dimension.name, dimension.values)  # type: ignore[assignment]
        return chosen
    if dimension.integer:
        low, high, step = int(dimension.low), int(dimension.high), int(dimension.step or 1)
        return trial.suggest_int(dimension.name, low, high, step=step, log=dimension.log)
    chosen = trial.suggest_float(dimension.name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)
    # low + k * step in floating point, 0.30000000000000004, becomes the value that stands in the file, 0.3.
    return min(dimension.values, key=lambda value: abs(float(value) - chosen)) if dimension.values else chosen
