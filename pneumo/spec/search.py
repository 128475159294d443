"""The `search` block of an experiment: what is optimized, by which algorithm, for how long."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from pneumo.spec.algorithms import (
    ALGORITHMS,
    DEFAULT_ALGORITHMS,
    PRUNERS,
    Algorithm,
    algorithms_supporting,
    complete_settings,
)
from pneumo.spec.errors import describe_validation_error, suggest_name
from pneumo.spec.objective import EPOCH_OBJECTIVES, OBJECTIVES, ObjectiveName

_DURATION = r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*"

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""Seconds in a unit of time."""


def parse_duration(value: Any) -> Any:
    """Return `90`, `"90s"`, `"45m"`, `"2h"` or `"1d"` in seconds; anything else unchanged, for pydantic to reject."""
    if isinstance(value, str) and (match := re.fullmatch(_DURATION, value)):
        return float(match[1]) * _SECONDS[match[2] or "s"]
    return value


def check_known(key: str, value: Any, known: tuple[str, ...], owner: str = "") -> str:
    """Return the value if it is one of `known`.

    Args:
        key: Key in the experiment, for the start of an error message.
        value: The value that the experiment has.
        known: All allowed values.
        owner: What the values belong to, for example ` of engine optuna`.

    Raises:
        ValueError: The value is unknown. The message lists the known ones and suggests the closest.
    """
    if value not in known:
        suggestion = suggest_name(str(value), known)
        raise ValueError(f"{key}: there is no {value!r}{owner}; there is {', '.join(known)}{suggestion}")
    return str(value)


Seconds = Annotated[
    Annotated[float, Field(gt=0)],
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": f"^{_DURATION}$"}]}
    ),
]
"""A duration in seconds, or a text with a unit."""


class ConfirmSpec(BaseModel):
    """The confirmation: the best trials are trained again with other seeds, and their means decide which is the best."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top: Annotated[int, Field(ge=1, le=100, description="Number of best trials that are trained again.")] = 3
    seeds: Annotated[
        int, Field(ge=2, le=100, description="Number of other seeds with which each of these trials is trained.")
    ] = 5


class KeepSpec(BaseModel):
    """The trials whose models are kept. Metrics, plots and predictions are kept for every trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    best: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="Number of best trials whose models are kept. With several objectives, the models of the whole "
            "Pareto front are kept too.",
        ),
    ]


class SearchSpec(BaseModel):
    """The `search` block of an experiment: what is optimized, by which algorithm, for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    engine: Annotated[
        str,
        Field(description="Library that proposes the candidates.", json_schema_extra={"enum": list(ALGORITHMS)}),
    ] = "optuna"
    algorithm: Annotated[
        str,
        Field(
            description="Search algorithm of the engine. The default is tpe for optuna and bayesian for keras-tuner.",
            json_schema_extra={"enum": sorted({name for algorithms in ALGORITHMS.values() for name in algorithms})},
        ),
    ] = "tpe"
    algorithm_settings: Annotated[
        dict[str, Any],
        Field(description="Settings of the algorithm by name. Settings that are left out have their defaults."),
    ] = {}
    pruner: Annotated[
        str,
        Field(
            description="Optuna's pruner, which ends poor trials early. It needs one objective that is known after each "
            f"epoch: {', '.join(EPOCH_OBJECTIVES)}.",
            json_schema_extra={"enum": list(PRUNERS)},
        ),
    ] = "none"
    pruner_settings: Annotated[
        dict[str, Any],
        Field(description="Settings of the pruner by name. Settings that are left out have their defaults."),
    ] = {}
    objective: Annotated[
        ObjectiveName | tuple[ObjectiveName, ...],
        Field(
            description="Metric that is optimized, in the direction that its name implies, or a list of several metrics, "
            "whose Pareto front is searched."
        ),
    ] = "val_auc"
    trials: Annotated[
        int, Field(ge=1, le=100_000, description="Number of trials of the study, the baseline included.")
    ] = 30
    timeout: Annotated[
        Seconds | None,
        Field(
            description="Time after which a run of the command starts no more trials: seconds, or a text such as 90m or 2h. "
            "Trials under way are finished. null means no limit."
        ),
    ] = None
    trial_timeout: Annotated[
        Seconds | None,
        Field(
            description="Time after which a trial is stopped and counts as failed: seconds, or a text such as 90s or 30m. "
            "null means no limit."
        ),
    ] = None
    patience: Annotated[
        int | None,
        Field(
            ge=1,
            description="Number of finished trials without a better value after which the search ends. null means no limit.",
        ),
    ] = None
    max_failures: Annotated[
        int, Field(ge=1, description="Number of failed trials in a row after which the search ends with exit status 3.")
    ] = 5
    outage: Annotated[
        Seconds,
        Field(
            description="Longest time to wait for MLflow or the study's database while it is unreachable: seconds, or a "
            "text such as 90s or 10m."
        ),
    ] = 600.0
    seed: Annotated[
        int,
        Field(
            ge=0,
            lt=2**31,
            description="Seed of the candidates, of the training and validation split, and of the trainings. Equal seeds "
            "propose equal candidates.",
        ),
    ] = 0
    baseline: Annotated[bool, Field(description="Whether trial 0 is the tutorial's own network.")] = True
    try_: Annotated[
        tuple[dict[str, Any], ...],
        Field(
            alias="try",
            description="Configurations to train right after the baseline: hyperparameters by name. Those that are left "
            "out have the value of the space that is closest to the tutorial's.",
        ),
    ] = ()
    from_: Annotated[
        str | None,
        Field(
            alias="from",
            min_length=1,
            description="Name of an earlier study. The algorithm learns from its trials that lie in this space; they are "
            "not trained again.",
        ),
    ] = None
    confirm: Annotated[
        ConfirmSpec | None,
        Field(description="Confirmation: train the best trials again with other seeds. null means no confirmation."),
    ] = None
    keep: Annotated[
        KeepSpec | None, Field(description="Keep only the models of the best trials. null keeps all models.")
    ] = None
    workers: Annotated[int, Field(ge=1, le=64, description="Number of trials that are trained at the same time.")] = 1

    @property
    def objectives(self) -> tuple[str, ...]:
        """All objectives in the order of the file."""
        return (self.objective,) if isinstance(self.objective, str) else self.objective

    @property
    def capabilities(self) -> Algorithm:
        """What the algorithm supports."""
        return ALGORITHMS[self.engine][self.algorithm]

    @model_validator(mode="before")
    @classmethod
    def _check(cls, given: Any) -> Any:
        """Check the names and that they fit together, and fill in defaults that depend on other keys."""
        if not isinstance(given, dict):
            return given
        engine = check_known("engine", given.get("engine", "optuna"), tuple(ALGORITHMS))
        algorithm = check_known(
            "algorithm",
            given.get("algorithm", DEFAULT_ALGORITHMS[engine]),
            tuple(ALGORITHMS[engine]),
            f" of engine {engine}",
        )
        pruner = check_known("pruner", given.get("pruner", "none"), tuple(PRUNERS))
        objectives = _check_objectives(given.get("objective", "val_auc"))
        _check_combination(engine, algorithm, pruner, objectives)
        return given | {
            "algorithm": algorithm,
            "algorithm_settings": _check_settings(given, "algorithm_settings", ALGORITHMS[engine][algorithm].settings),
            "pruner_settings": _check_settings(given, "pruner_settings", PRUNERS[pruner]),
            "objective": objectives[0] if len(objectives) == 1 else objectives,
        }


def _check_objectives(given: Any) -> tuple[str, ...]:
    objectives = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not objectives or len(set(map(str, objectives))) < len(objectives):
        raise ValueError(f"objective: one, or a list of different ones, got {given!r}")
    return tuple(check_known("objective", objective, tuple(OBJECTIVES)) for objective in objectives)


def _check_combination(engine: str, algorithm: str, pruner: str, objectives: tuple[str, ...]) -> None:
    """Raise `ValueError` if the algorithm, pruner and objectives cannot be combined. The message says what can."""
    capabilities = ALGORITHMS[engine][algorithm]
    if len(objectives) > 1 and not capabilities.objectives:
        others = algorithms_supporting("optuna", "objectives")
        raise ValueError(
            f"algorithm: {engine}/{algorithm} supports one objective; for several use optuna with one of {others}"
        )
    if pruner == "none":
        return
    if not capabilities.pruners:
        hint = "; its own hyperband ends poor trials early" if engine == "keras-tuner" else ""
        raise ValueError(f"pruner: {engine}/{algorithm} supports no pruner; use pruner: none{hint}")
    if len(objectives) > 1:
        raise ValueError("pruner: several objectives cannot be combined with a pruner; use pruner: none")
    if objectives[0] not in EPOCH_OBJECTIVES:
        raise ValueError(
            f"pruner: {pruner} needs an objective that is known after each epoch ({', '.join(EPOCH_OBJECTIVES)}), "
            f"got {objectives[0]}; use pruner: none"
        )


def _check_settings(given: dict[str, Any], key: str, model: Any) -> dict[str, Any]:
    """Return all settings of an algorithm or a pruner, those that are left out at their defaults."""
    settings = given.get(key) or {}
    if not isinstance(settings, dict):
        raise ValueError(f"{key}: needs settings by name, as in {{n_startup_trials: 5}}, got {settings!r}")
    try:
        return complete_settings(model, settings)
    except ValidationError as error:
        first = error.errors()[0]
        setting, known = ".".join(map(str, first["loc"])), tuple(model.model_fields)
        if first["type"] == "extra_forbidden":
            available = f"there is {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{key}: there is no {setting!r}; {available}{suggest_name(setting, known)}") from None
        raise ValueError(f"{key}.{setting}: {describe_validation_error(first)}") from None
