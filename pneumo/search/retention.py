"""Which models a study keeps, if `search.keep` says that it does not keep them all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from pneumo.spec.best import numbers_to_keep
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import Trial
from pneumo.spec.wording import count_of

if TYPE_CHECKING:
    from pneumo.tracking.outbox import Outbox
    from pneumo.tracking.store import Store


def removable_models(
    experiment: Experiment, finished_trials: Sequence[Trial], confirmed: Collection[int]
) -> Mapping[str, str]:
    """Return the runs whose models `search.keep` does not keep, each with the reason. None if `search.keep` is not set.

    Args:
        experiment: The study's experiment.
        finished_trials: The study's finished trials.
        confirmed: Numbers of the trials that were confirmed; their models stay.
    """
    if experiment.search.keep is None:
        return {}
    numbers = numbers_to_keep(finished_trials, experiment, confirmed)
    after = count_of(len(finished_trials), "trial")
    reason = f"not among the best {experiment.search.keep.best} (search.keep) after {after}"
    return {trial.result.run_id: reason for trial in finished_trials if trial.number not in numbers}


def remove_models(
    store: Store, outbox: Outbox, experiment: Experiment, finished_trials: Sequence[Trial], confirmed: Collection[int]
) -> None:
    """Remove the models that `search.keep` does not keep, of a study that no search works on.

    A model stays if a registered version uses it. After a kill at any instant, the next call removes what remains.
    """
    from pneumo.tracking.models import logged_models, remove

    if reasons := removable_models(experiment, finished_trials, confirmed):
        models = logged_models(store, experiment.name)
        for run, reason in reasons.items():
            if (run_id := outbox.run_id(run)) and run_id in models:
                remove(store, run_id, reason)
