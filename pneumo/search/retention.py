"""Which models a study keeps, where it does not keep them all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from pneumo.spec.best import numbers_to_keep
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import Trial

if TYPE_CHECKING:
    from pneumo.tracking.outbox import Outbox
    from pneumo.tracking.store import Store


def removable_models(experiment: Experiment, told: Sequence[Trial], confirmed: Collection[int]) -> Mapping[str, str]:
    """The runs of the trials whose models `search.keep` does not keep, each with why; none where it is left out.

    `confirmed` are the numbers of the trials that were trained again.
    """
    if experiment.search.keep is None:
        return {}
    staying = numbers_to_keep(told, experiment, confirmed)
    why = f"not among the best {experiment.search.keep.best} (search.keep) after {len(told)} trials"
    return {trial.result.run_id: why for trial in told if trial.number not in staying}


def remove_models(
    store: Store, outbox: Outbox, experiment: Experiment, told: Sequence[Trial], confirmed: Collection[int]
) -> None:
    """Removes these models of a study that nothing is at work on.

    One that a version of a registered model is made of stays. It may be killed at any instant: who calls it again removes
    what is left.
    """
    from pneumo.tracking.models import logged_models, remove

    if found := removable_models(experiment, told, confirmed):
        there = logged_models(store, experiment.name)
        for run, why in found.items():
            if (run_id := outbox.run_id(run)) and run_id in there:
                remove(store, run_id, why)
