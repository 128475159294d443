"""Optuna as an engine: its samplers and pruners through ask and tell, on its own storage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import count, takewhile

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from pneumo.engines.optuna_storage import (
    HYPERPARAMETERS,
    ID,
    LEARNED,
    RESULT,
    SKIPPED,
    STOPPED,
    FinishedTrials,
    count_learned,
    numbered_trials,
    open_optuna_study,
)
from pneumo.engines.samplers import build_sampler, check_installed
from pneumo.engines.untried import ATTEMPTS, UntriedCandidates, skip_reason, split_first_candidates
from pneumo.spec.candidate import Candidate, Done, SkipReason, Wait
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.objective import objective_values
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.space import Choice, Searched

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class OptunaEngine:
    """An `Engine` on one Optuna study. Only one process may work on a study at a time (see `shared_engine` for several).

    Optuna's trials are the proposals. Those that were learned or skipped have no number here. Optuna is told that a skipped
    one failed, because a value that was told twice would count twice.

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
        self._first_candidates, self._first_skipped = split_first_candidates(experiment.first_candidates)
        self._baseline = experiment.first_candidates[0] if experiment.search.baseline else None
        self._untried = UntriedCandidates(self._space)
        self._under_way: dict[int, optuna.Trial] = {}
        self._last_epochs: dict[int, int] = {}  # last reported epoch of trials under way, by number
        self._finished = FinishedTrials(frozenset(d.name for d in self._space.searched))
        check_installed(experiment.search)
        self._study = self._open_study(experiment, storage)
        self.id: str = self._study.user_attrs[ID]
        self._learned = count_learned(self._study.get_trials(deepcopy=False))
        self._tried = {
            Candidate(0, trial.user_attrs[HYPERPARAMETERS]).key
            for trial in self._study.get_trials(deepcopy=False)
            if HYPERPARAMETERS in trial.user_attrs
        }
        self._interrupted = self._left_over()

    def _open_study(self, experiment: Experiment, storage: str) -> optuna.Study:
        return open_optuna_study(experiment, storage, sole=True)

    def _left_over(self) -> list[FrozenTrial]:
        """Return the trials that an earlier process proposed and that have no result. Finish those that have one."""
        interrupted = []
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if RESULT in frozen.user_attrs:
                self._finish(frozen, TrialResult.from_json(frozen.user_attrs[RESULT]))
            elif SKIPPED in frozen.user_attrs:
                self._study.tell(frozen.number, state=TrialState.FAIL)
            else:
                interrupted.append(frozen)
        return interrupted

    def ask(self) -> Candidate | Wait | Done:
        while True:
            trial = self._next_trial()
            if isinstance(trial, Done):
                return trial
            if (candidate := self._read_proposal(trial)) is not None:
                return candidate

    def _next_trial(self) -> optuna.Trial | Done:
        """Return the Optuna trial of the next proposal: one that an earlier process left, or else a new one."""
        if self._interrupted:
            frozen = self._interrupted.pop(0)
            self._study.sampler = build_sampler(self._search, frozen.number - self._learned, self._study.sampler)
            return optuna.Trial(self._study, frozen._trial_id)
        optuna_trials = self._study.get_trials(deepcopy=False)
        waiting = next((trial for trial in optuna_trials if trial.state == TrialState.WAITING), None)
        if waiting is None and (done := self._enqueue_next(optuna_trials)):
            return done
        position = (waiting.number if waiting else len(self._study.get_trials(deepcopy=False))) - self._learned
        self._study.sampler = build_sampler(self._search, position, self._study.sampler)
        return self._study.ask()

    def _read_proposal(self, trial: optuna.Trial) -> Candidate | None:
        """Return the candidate that a trial proposes; None if it is skipped."""
        values = trial.user_attrs.get(HYPERPARAMETERS)
        is_accepted = values is not None
        if values is None:
            # If a process died while it drew the values, draw all of them again: each draw depends on those before it.
            trial._cached_frozen_trial.params.clear()
            trial._cached_frozen_trial.distributions.clear()
            values = self._space.draw(lambda dimension: _suggest(trial, dimension))
        else:
            for name in self._optuna_params(values):
                _suggest(trial, self._space[name])  # type: ignore[arg-type]
        candidate = self._candidate(self._number(trial), values)
        if not is_accepted:
            if reason := skip_reason(candidate, self._tried):
                trial.set_user_attr(SKIPPED, reason)
                self._study.tell(trial.number, state=TrialState.FAIL)
                return None
            trial.set_user_attr(HYPERPARAMETERS, values)
        self._tried.add(candidate.key)
        self._under_way[candidate.number] = trial
        self._last_epochs[candidate.number] = max(trial._cached_frozen_trial.intermediate_values, default=0)
        return candidate

    def _number(self, trial: optuna.Trial) -> int:
        """Return our number of an Optuna trial."""
        return self._finished.number_of(trial, self._study.get_trials(deepcopy=False))

    def report(self, number: int, epoch: int, value: float) -> bool:
        if len(self._search.objectives) > 1:
            return True  # Optuna accepts no reports for several objectives
        trial = self._under_way[number]
        last_epoch = self._last_epochs.get(number, 0)
        values = trial.user_attrs[HYPERPARAMETERS]
        is_complete = epoch >= int(values["epochs"])
        if epoch > last_epoch:
            trial.report(value, epoch)
            self._last_epochs[number] = epoch
        else:
            # An interrupted trial runs again and reports this epoch a second time. Optuna keeps the first report of a step,
            # so replace its value. Decisions of the first time stand. Only that of its last epoch may have been lost.
            trial.storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
            if epoch < last_epoch or STOPPED in trial.user_attrs:
                return is_complete or bool(trial.user_attrs.get(STOPPED) != epoch)
        # The baseline is never pruned, because all other trials are compared with it. After the last epoch nothing is left
        # to prune, but some pruners note in `should_prune` what they compare later trials with.
        if self._space.completed(values) == self._baseline or not trial.should_prune() or is_complete:
            return True
        trial.set_user_attr(STOPPED, epoch)
        return False

    def tell(self, result: TrialResult) -> None:
        trial = self._under_way.pop(result.number)
        # Store the whole result first. If the process is killed before Optuna is told, the next start finishes the trial.
        trial.set_user_attr(RESULT, result.to_json())
        self._finish(trial, result)

    def trials(self) -> tuple[Trial, ...]:
        return self._finished.read(self._study.get_trials(deepcopy=False))

    def skipped(self) -> Counter[SkipReason]:
        optuna_trials = self._study.get_trials(deepcopy=False)
        reasons = (trial.user_attrs[SKIPPED] for trial in optuna_trials if SKIPPED in trial.user_attrs)
        return Counter([*self._first_skipped, *reasons])

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
            self._tried.add(trial.candidate.key)

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
        completed = self._space.completed(values)
        return {d.name: completed[d.name] for d in self._space.searched if d.name in completed}

    def _enqueue_next(self, optuna_trials: list[FrozenTrial]) -> Done | None:
        """Enqueue the next candidate if the sampler is not to propose it. Return why there is none, if there is none."""
        if self._first_candidates:
            own_keys = {
                Candidate(0, trial.user_attrs[HYPERPARAMETERS]).key
                for _, trial in numbered_trials(optuna_trials)
                if HYPERPARAMETERS in trial.user_attrs
            }
            self._first_candidates = {k: values for k, values in self._first_candidates.items() if k not in own_keys}
            for first in self._first_candidates.values():
                self._enqueue(first)
                return None
        if self._search.algorithm == "grid":
            return self._enqueue_combination(optuna_trials)
        skipped = sum(1 for _ in takewhile(lambda trial: SKIPPED in trial.user_attrs, reversed(optuna_trials)))
        if skipped:
            generator = np.random.default_rng([self._search.seed, len(optuna_trials) - self._learned])
            untried = self._untried.draw(self._tried, generator)
            if isinstance(untried, Done):
                return untried
            if skipped >= ATTEMPTS:
                self._enqueue(untried)
        return None

    def _enqueue(self, values: dict[str, Value]) -> None:
        self._study.enqueue_trial(self._optuna_params(values), user_attrs={HYPERPARAMETERS: values})

    def _enqueue_combination(self, optuna_trials: list[FrozenTrial]) -> Done | None:
        """Enqueue a random combination of the grid that was not proposed yet. Return why there is none, if there is none.

        Optuna's GridSampler does not support conditions, and its BruteForceSampler no trials without parameters.
        """
        own_trials = optuna_trials[self._learned :]
        proposed = (t.user_attrs[HYPERPARAMETERS] for t in own_trials if HYPERPARAMETERS in t.user_attrs)
        seen = {json.dumps(self._space.completed(values), sort_keys=True) for values in proposed}
        remaining = [values for values in self._space.grid() if json.dumps(values, sort_keys=True) not in seen]
        for position in count(len(own_trials)):
            if not remaining:
                return Done("every combination of the grid was proposed")
            values = remaining.pop(np.random.default_rng([self._search.seed, position]).integers(len(remaining)))
            if (reason := skip_reason(Candidate(0, values), self._tried)) is None:
                self._enqueue(values)
                return None
            self._study.add_trial(
                optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={HYPERPARAMETERS: values, SKIPPED: reason})
            )
        raise AssertionError


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
