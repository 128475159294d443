"""Optuna's database, read by the only process that works on a study."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState

_NEWER_THAN_ALL = 2**31 - 1
"""Largest id of a trial. Optuna reads the trials that it is asked for, and all that are newer than an id; here none is."""


class SoleStorage(_CachedStorage):
    """Optuna's cache of a database, for the only process that works on a study.

    Optuna reads all unfinished trials again whenever it looks at the trials, about seven times for a proposal, because
    another process may have changed them. With many trials under way that takes most of the time of a proposal. Here nobody
    else changes anything, so what this process writes is put into the cache too, and only a trial whose state has changed is
    read again.

    Args:
        database: The database. One study of it is used.
    """

    def __init__(self, database: optuna.storages.RDBStorage) -> None:
        super().__init__(database)
        self._changed: set[int] = set()  # ids of trials that the cache does not have as they are
        self._were_read: set[int] = set()  # ids of studies all of whose trials were read

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        if template_trial is not None:
            self._changed.add(trial_id)
        return trial_id

    def delete_study(self, study_id: int) -> None:
        self._were_read.discard(study_id)
        super().delete_study(study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if trial_id in self._changed:
            self._read_trials_from_remote_storage(self._trial_id_to_study_id_and_number[trial_id][0])
        if (trial := self._cached(trial_id)) is None:
            return super().get_trial(trial_id)
        return trial if trial.state.is_finished() else copy.deepcopy(trial)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._changing(trial_id) as trial:
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
            trial.params = trial.params | {param_name: distribution.to_external_repr(param_value_internal)}
            trial.distributions = trial.distributions | {param_name: distribution}

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        self._changed.add(trial_id)  # the database adds the time
        return super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        with self._changing(trial_id) as trial:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
            trial.intermediate_values = trial.intermediate_values | {step: intermediate_value}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._changing(trial_id) as trial:
            super().set_trial_user_attr(trial_id, key, value)
            trial.user_attrs = trial.user_attrs | {key: json.loads(json.dumps(value))}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._changing(trial_id) as trial:
            super().set_trial_system_attr(trial_id, key, value)
            trial.system_attrs = trial.system_attrs | {key: json.loads(json.dumps(value))}

    @contextmanager
    def _changing(self, trial_id: int) -> Iterator[FrozenTrial]:
        """Yield a copy of a cached trial, which takes its place on leaving. After an error the trial is read again."""
        cached = self._cached(trial_id)
        if cached is None or trial_id in self._changed:
            self._changed.add(trial_id)
            yield optuna.trial.create_trial(state=TrialState.RUNNING)  # it is read again in any case
            return
        self._changed.add(trial_id)  # a write whose answer is lost may have been carried out
        yield (trial := copy.copy(cached))
        study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
        with self._lock:
            self._add_trials_to_cache(study_id, [trial])
        self._changed.discard(trial_id)

    def _cached(self, trial_id: int) -> FrozenTrial | None:
        study_id, number = self._trial_id_to_study_id_and_number.get(trial_id, (-1, -1))
        return None if study_id not in self._were_read else self._studies[study_id].trials[number]

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if study_id not in self._were_read:
            super()._read_trials_from_remote_storage(study_id)
            self._were_read.add(study_id)
            self._changed.clear()
            return
        with self._lock:
            if not self._changed:
                return
            trials = self._backend._get_trials(study_id, None, self._changed, _NEWER_THAN_ALL)
            self._add_trials_to_cache(study_id, trials)
            self._changed.clear()
