"""Read a recorded trial back: its run, its experiment and its candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pneumo.spec.errors import RequestError
from pneumo.spec.masking import mask_passwords
from pneumo.spec.names import Params, Tags

if TYPE_CHECKING:
    from pneumo.spec.candidate import Candidate
    from pneumo.spec.experiment import Experiment
    from pneumo.spec.hyperparameters import Value
    from pneumo.tracking.recorded import RecordedTraining

LONGEST_REASON = 300
"""Largest number of characters of an error of the tracking store to print."""


def read_trial(run_id: str) -> RecordedTraining:
    """Return the recorded trial of a run.

    Raises `RequestError` if there is no such run, if it is not a trial that was trained, if its record is incomplete, or if
    the tracking store cannot be reached.
    """
    from pneumo.tracking.recorded import read_training
    from pneumo.tracking.store import ERRORS, connect_existing

    store = connect_existing()
    try:
        return read_training(store, run_id)
    except ERRORS as error:
        raise RequestError(
            f"tracking store {store.display_uri}: {mask_passwords(str(error))[:LONGEST_REASON]}"
        ) from None


def trial_experiment(recorded: RecordedTraining, data: str | None) -> Experiment:
    """Return the experiment of the trial's study. `data` replaces the path of the pictures if it is given."""
    from pneumo.spec.experiment_file import parse_experiment

    options = {} if data is None else {"data.path": data}
    return parse_experiment(recorded.experiment_yaml, f"{recorded.run.run_id}: its experiment.yaml", (), options)


def trial_candidate(recorded: RecordedTraining, experiment: Experiment) -> Candidate:
    """Return the candidate that the trial trained. The precision `auto` is replaced by the precision that it meant.

    Raises `RequestError` if the parameters of the run are not the hyperparameters of a trial of this version.
    """
    from pydantic import ValidationError

    from pneumo.spec.candidate import Candidate
    from pneumo.spec.hyperparameters import NAMES
    from pneumo.spec.run import parse_parameter

    values: dict[str, Value] = {}
    for name, text in recorded.run.parameters.items():
        if name == Params.SEED:
            continue
        if name not in NAMES:
            raise RequestError(
                f"{recorded.run.run_id}: its parameter {name} is unknown to this version; "
                "use the version that trained the trial"
            )
        try:
            values[name] = parse_parameter(name, text)
        except ValueError as error:
            raise RequestError(f"{recorded.run.run_id}: its parameter {error}") from None
    if precision := recorded.run.tags.get(Tags.PRECISION):
        values["precision"] = precision
    searched = frozenset(dimension.name for dimension in experiment.space.searched) & set(values)
    full_epochs = _epochs_of_last_rung(recorded, experiment)
    candidate = Candidate(recorded.run.number, values, searched, full_epochs=full_epochs)
    try:
        _ = candidate.values, candidate.epochs
    except (ValidationError, KeyError) as error:
        raise RequestError(f"{recorded.run.run_id}: its parameters are not those of a trial: {error}") from None
    return candidate


def _epochs_of_last_rung(recorded: RecordedTraining, experiment: Experiment) -> int | None:
    """Return the epochs of Hyperband's last rung, which a learning rate schedule counts by; None without rungs."""
    search = experiment.search
    if recorded.run.role == "trial" and (search.engine, search.algorithm) == ("keras-tuner", "hyperband"):
        return int(experiment.space.possible_values("epochs")[0])
    return None
