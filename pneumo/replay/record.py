"""Read a recorded trial back: its run, its experiment and its candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pneumo.spec.errors import RequestError
from pneumo.spec.masking import mask_passwords

if TYPE_CHECKING:
    from pneumo.spec.candidate import Candidate
    from pneumo.spec.experiment import Experiment
    from pneumo.spec.hyperparameters import Value
    from pneumo.tracking.recorded import RecordedTrial

LONGEST_REASON = 300
"""Largest number of characters of an error of the tracking store to print."""


def read_trial(run_id: str) -> RecordedTrial:
    """Return the recorded trial of a run.

    Raises `RequestError` if there is no such run, if it is not a trial that was trained, if its record is incomplete, or if
    the tracking store cannot be reached.
    """
    from pneumo.tracking.recorded import recorded_trial
    from pneumo.tracking.store import ERRORS, connect_existing

    store = connect_existing()
    try:
        return recorded_trial(store, run_id)
    except ERRORS as error:
        raise RequestError(f"tracking store {store.shown}: {mask_passwords(str(error))[:LONGEST_REASON]}") from None


def trial_experiment(recorded: RecordedTrial, data: str | None) -> Experiment:
    """Return the experiment of the trial's study. `data` replaces the path of the pictures if it is given."""
    from pneumo.spec.experiment_file import parse_experiment

    options = {} if data is None else {"data.path": data}
    return parse_experiment(recorded.experiment_yaml, f"{recorded.run_id}: its experiment.yaml", (), options)


def trial_candidate(recorded: RecordedTrial, experiment: Experiment) -> Candidate:
    """Return the candidate that the trial trained. The precision `auto` is replaced by the precision that it meant.

    Raises `RequestError` if the parameters of the run are not the hyperparameters of a trial of this version.
    """
    from pydantic import ValidationError

    from pneumo.spec.candidate import Candidate
    from pneumo.spec.hyperparameters import NAMES

    values: dict[str, Value] = {}
    for name, text in recorded.parameters.items():
        if name == "seed":
            continue
        if name not in NAMES:
            raise RequestError(
                f"{recorded.run_id}: its parameter {name} is unknown to this version; use the version that trained the trial"
            )
        values[name] = _parse_value(name, text, recorded.run_id)
    if precision := recorded.tags.get("pneumo.precision"):
        values["precision"] = precision
    searched = frozenset(dimension.name for dimension in experiment.space.searched) & set(values)
    full_epochs = _epochs_of_last_rung(recorded, experiment)
    candidate = Candidate(recorded.number, values, searched, full_epochs=full_epochs)
    try:
        _ = candidate.values, candidate.epochs
    except (ValidationError, KeyError) as error:
        raise RequestError(f"{recorded.run_id}: its parameters are not those of a trial: {error}") from None
    return candidate


def _parse_value(name: str, text: str, run_id: str) -> Value:
    """Return a hyperparameter from its text in MLflow, which has every digit of a float."""
    from pneumo.spec.hyperparameters import value_type

    parsers: Mapping[type, Callable[[str], Any]] = {
        bool: {"true": True, "false": False}.__getitem__,
        int: int,
        float: float,
        str: str,
    }
    expected = value_type(name)
    try:
        value: Value = parsers[expected](text)
    except (KeyError, ValueError):
        raise RequestError(
            f"{run_id}: its parameter {name} is {text!r}; expected a value of type {expected.__name__}"
        ) from None
    return value


def _epochs_of_last_rung(recorded: RecordedTrial, experiment: Experiment) -> int | None:
    """Return the epochs of Hyperband's last rung, which a learning rate schedule counts by; None without rungs."""
    search = experiment.search
    if recorded.role == "trial" and (search.engine, search.algorithm) == ("keras-tuner", "hyperband"):
        return int(experiment.space.possible_values("epochs")[0])
    return None
