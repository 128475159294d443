"""Which models a study keeps, where it does not keep them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pneumo.spec.best import kept
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import Trial

if TYPE_CHECKING:
    from pneumo.tracking.store import Store


def retain(store: Store, experiment: Experiment, told: Sequence[Trial]) -> None:
    """Removes the models of the trials that are not among those that `search.keep` keeps; none where it is left out.

    One that a version of a registered model is made of stays. It may be killed at any instant: who calls it again removes
    what is left.
    """
    from pneumo.tracking.models import models, remove
    from pneumo.tracking.registry import is_registered
    from pneumo.tracking.study import confirmations

    if experiment.search.keep is None:
        return
    found = models(store, experiment.name)
    staying: set[int] | None = None
    for trial in told:
        if trial.result.run_id not in found:
            continue
        if staying is None:  # asked for only where there is a model
            confirmed = [run.number for run in confirmations(store, experiment.name)]
            staying = kept(told, experiment, confirmed)
        model = found[trial.result.run_id]
        if trial.number not in staying and not is_registered(store, trial.result.run_id, model):
            why = f"not among the best {experiment.search.keep.best} (search.keep) after {len(told)} trials"
            remove(store, trial.result.run_id, model, why)
