"""Optuna as an engine: its samplers and pruners through ask and tell, its own storage."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.space import Choice, Searched

HYPERPARAMETERS, STOPPED, RESULT = "pneumo.hyperparameters", "pneumo.stopped", "pneumo.result"
"""User attributes of an Optuna trial: all its active hyperparameters, the epoch at which it was pruned, its result."""

ID, EXPERIMENT = "pneumo.id", "pneumo.experiment"
"""User attributes of an Optuna study: a random id that MLflow's record of it carries too, the resolved experiment."""

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class OptunaEngine:
    """An `Engine` on one Optuna study; numbers are Optuna's own. One process works on a study at a time.

    Raises `RequestError` where the storage cannot be opened.
    """

    def __init__(self, experiment: Experiment, storage: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = experiment.space
        self._search = experiment.search
        self._baseline = self._space.baseline() if experiment.search.baseline else None
        self._asked: dict[int, optuna.Trial] = {}
        self._reported: dict[int, int] = {}
        self._study = _open(experiment, storage)
        self.id: str = self._study.user_attrs[ID]
        self._left: list[FrozenTrial] = []
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if RESULT in frozen.user_attrs:
                self._finish(frozen, TrialResult.from_json(frozen.user_attrs[RESULT]))
            else:
                self._left.append(frozen)
        if self._baseline is not None and not self._study.get_trials(deepcopy=False):
            self._enqueue(self._baseline)

    def ask(self) -> Candidate | Wait | Done:
        trials = self._study.get_trials(deepcopy=False)
        again = self._left or any(t.state == TrialState.WAITING for t in trials)
        if self._search.algorithm == "grid" and not again and not self._enqueue_combination(trials):
            return Done("every combination of the grid was proposed")
        # A new sampler for each number, seeded by it: what is proposed depends on the seed and on what was told, not on
        # how often the process was started in between.
        left = self._left.pop(0) if self._left else None
        self._study.sampler = self._sampler(left.number if left else len(trials))
        if left is None:
            trial = self._study.ask()
        else:
            trial = optuna.Trial(self._study, left._trial_id)
            self._reported[left.number] = max(left.intermediate_values, default=0)
        values = trial.user_attrs.get(HYPERPARAMETERS)
        if values is None:
            values = self._space.draw(lambda dimension: _suggest(trial, dimension))
            trial.set_user_attr(HYPERPARAMETERS, values)
        else:
            for name in self._inside(values):
                _suggest(trial, self._space[name])  # type: ignore[arg-type]
        self._asked[trial.number] = trial
        return self._candidate(trial.number, values)

    def report(self, number: int, epoch: int, value: float) -> bool:
        trial = self._asked[number]
        if epoch <= self._reported.get(number, 0):
            # It ran before and was interrupted later. Optuna keeps the first report of a step and looks at the last:
            # put the new value in its place, and let stand what was decided then.
            trial.storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
            return bool(trial.user_attrs.get(STOPPED) != epoch)
        trial.report(value, epoch)
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
        told = []
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state.is_finished() and RESULT in frozen.user_attrs:
                candidate = self._candidate(frozen.number, frozen.user_attrs[HYPERPARAMETERS])
                told.append(Trial(candidate, TrialResult.from_json(frozen.user_attrs[RESULT])))
        return tuple(sorted(told, key=lambda t: t.number))

    def _candidate(self, number: int, values: dict[str, Value]) -> Candidate:
        searched = frozenset(d.name for d in self._space.searched) & set(values)
        return Candidate(number, values, searched)

    def _finish(self, trial: optuna.Trial | FrozenTrial, result: TrialResult) -> None:
        # A baseline outside the space has no parameters in Optuna. Told as complete it would leave TPE no parameter
        # that all trials have in common; as failed, Optuna passes over it, and our record of it is the attribute.
        inside = self._space.holds(trial.user_attrs[HYPERPARAMETERS])
        state = STATES[result.state] if inside else TrialState.FAIL
        self._study.tell(trial.number, result.value if state == TrialState.COMPLETE else None, state=state)

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

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self._search.seed, number]).generate_state(1)[0])
        match self._search.algorithm:
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed)
            case "random" | "grid":  # a grid's combinations are enqueued: nothing is left to sample
                return optuna.samplers.RandomSampler(seed=seed)
        raise AssertionError(self._search.algorithm)


def _open(experiment: Experiment, storage: str) -> optuna.Study:
    """The study of this name, or a new one; one in which nothing was told yet is made anew if the experiment changed."""
    try:
        url = make_url(storage)
    except ArgumentError:
        raise RequestError("--storage: wants a database URL, as sqlite:///mlruns/studies.db") from None
    try:
        if url.get_backend_name() == "sqlite" and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        database = optuna.storages.RDBStorage(storage)
        resolved = experiment.to_yaml()
        identity = uuid.uuid4().hex
        if experiment.name in optuna.get_all_study_names(database):
            study = optuna.load_study(study_name=experiment.name, storage=database, pruner=_pruner(experiment))
            told = any(RESULT in trial.user_attrs for trial in study.get_trials(deepcopy=False))
            if told or study.user_attrs.get(EXPERIMENT) == resolved:
                return study
            identity = study.user_attrs.get(ID, identity)
            optuna.delete_study(study_name=experiment.name, storage=database)
        study = optuna.create_study(
            study_name=experiment.name,
            storage=database,
            direction=OBJECTIVES[experiment.search.objective],
            pruner=_pruner(experiment),
        )
        study.set_user_attr(ID, identity)
        study.set_user_attr(EXPERIMENT, resolved)
    except (SQLAlchemyError, optuna.exceptions.OptunaError, OSError, ImportError, RuntimeError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        if url.password:
            reason = reason.replace(str(url.password), "***")
        raise RequestError(f"--storage: {url.render_as_string(hide_password=True)}: {reason}") from None
    return study


def _pruner(experiment: Experiment) -> optuna.pruners.BasePruner:
    match experiment.search.pruner:
        case "none":
            return optuna.pruners.NopPruner()
        case "median":
            # Not after the first epoch, which says little.
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
        case "hyperband":
            longest = max(int(epochs) for epochs in experiment.space.possible("epochs"))
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=longest)
    raise AssertionError(experiment.search.pruner)


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
