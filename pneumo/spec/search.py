"""The `search` block of an experiment: who proposes, what for, for how long, and what is made sure of at the end."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pneumo.spec.algorithms import ALGORITHMS, PRUNERS, Algorithm, settings_of, that_take
from pneumo.spec.objective import EPOCH_OBJECTIVES, OBJECTIVES
from pneumo.spec.space import describe_fault, nearest

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DEFAULT = {"optuna": "tpe", "keras-tuner": "bayesian"}


def seconds(value: Any) -> Any:
    """`90`, `"90s"`, `"45m"`, `"2h"` or `"1d"` as seconds; anything else as it is, for pydantic to refuse."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", value)):
        return float(match[1]) * _UNITS[match[2] or "s"]
    return value


def one_of(key: str, value: Any, known: tuple[str, ...], of: str = "") -> str:
    """The value, where it is known. Raises `ValueError` that says what there is, and the nearest."""
    if value not in known:
        raise ValueError(f"{key}: there is no {value!r}{of}; there is {', '.join(known)}{nearest(str(value), known)}")
    return str(value)


class ConfirmSpec(BaseModel):
    """The best trials, trained again over other seeds before one is called the best."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top: Annotated[int, Field(ge=1, le=100, description="number of the best trials")] = 3
    seeds: Annotated[int, Field(ge=2, le=100, description="number of other seeds for each trial")] = 5


class KeepSpec(BaseModel):
    """Which trials' models are kept; metrics, plots and predictions are kept of every trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    best: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="number of the best trials; with several objectives the Pareto front is kept too",
        ),
    ]


class SearchSpec(BaseModel):
    """Who proposes, what for, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    engine: Annotated[str, Field(description="library that proposes the candidates")] = "optuna"
    algorithm: Annotated[str, Field(description="algorithm of the engine")] = "tpe"
    algorithm_settings: Annotated[dict[str, Any], Field(description="settings of the algorithm")] = {}
    pruner: Annotated[str, Field(description="rule that stops poor trials early")] = "none"
    pruner_settings: Annotated[dict[str, Any], Field(description="settings of the pruner")] = {}
    objective: Annotated[str | tuple[str, ...], Field(description="one, or several for a Pareto front")] = "val_auc"
    trials: Annotated[int, Field(ge=1, le=100_000, description="trials in all, the baseline included")] = 30
    timeout: Annotated[
        Annotated[float, Field(gt=0)] | None,
        BeforeValidator(seconds),
        Field(description="start no trial after this time: seconds, or 90m, 2h"),
    ] = None
    trial_timeout: Annotated[
        Annotated[float, Field(gt=0)] | None,
        BeforeValidator(seconds),
        Field(description="stop a trial that takes longer: seconds, or 90s, 30m"),
    ] = None
    patience: Annotated[
        int | None, Field(ge=1, description="end after so many finished trials without a better value")
    ] = None
    terminator: Annotated[bool, Field(description="end where Optuna expects no more (needs PyTorch)")] = False
    max_failures: Annotated[int, Field(ge=1, description="end after so many failed trials in a row")] = 5
    outage: Annotated[
        Annotated[float, Field(gt=0)],
        BeforeValidator(seconds),
        Field(description="how long to wait for a database or MLflow that does not answer: seconds, or 90s, 10m"),
    ] = 600.0
    seed: Annotated[int, Field(ge=0, lt=2**31, description="seed of the split, the proposals and the training")] = 0
    baseline: Annotated[bool, Field(description="begin with the tutorial's own network")] = True
    try_: Annotated[
        tuple[dict[str, Any], ...], Field(alias="try", description="known configurations, after the baseline")
    ] = ()
    from_: Annotated[
        str | None,
        Field(
            alias="from",
            min_length=1,
            description="an earlier study; the engine learns from its trials that fit this space",
        ),
    ] = None
    confirm: Annotated[ConfirmSpec | None, Field(description="train the best again over other seeds")] = None
    keep: Annotated[KeepSpec | None, Field(description="keep the best trials' models only, as {best: 10}")] = None
    workers: Annotated[int, Field(ge=1, le=64, description="trials under way at once")] = 1

    @property
    def objectives(self) -> tuple[str, ...]:
        """Every objective, the first one first."""
        return (self.objective,) if isinstance(self.objective, str) else self.objective

    @property
    def takes(self) -> Algorithm:
        """What the algorithm can take."""
        return ALGORITHMS[self.engine][self.algorithm]

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        engine = one_of("engine", given.get("engine", "optuna"), tuple(ALGORITHMS))
        name = one_of(
            "algorithm",
            given.get("algorithm", _DEFAULT[engine]),
            tuple(ALGORITHMS[engine]),
            f" of engine {engine}",
        )
        pruner = one_of("pruner", given.get("pruner", "none"), tuple(PRUNERS))
        objectives = _objectives(given.get("objective", "val_auc"))
        _fit(engine, name, pruner, objectives)
        if given.get("terminator") is True and (engine != "optuna" or len(objectives) > 1):
            raise ValueError("terminator: it is Optuna's, for one objective; take patience instead")
        return given | {
            "algorithm": name,
            "algorithm_settings": _settings(given, "algorithm", ALGORITHMS[engine][name].settings),
            "pruner_settings": _settings(given, "pruner", PRUNERS[pruner]),
            "objective": objectives[0] if len(objectives) == 1 else objectives,
        }


def _objectives(given: Any) -> tuple[str, ...]:
    named = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not named or len(set(map(str, named))) < len(named):
        raise ValueError(f"objective: one, or a list of different ones, got {given!r}")
    return tuple(one_of("objective", objective, tuple(OBJECTIVES)) for objective in named)


def _fit(engine: str, name: str, pruner: str, objectives: tuple[str, ...]) -> None:
    """Refuses what does not go together. Raises `ValueError` that says what would."""
    takes = ALGORITHMS[engine][name]
    if len(objectives) > 1 and not takes.objectives:
        others = that_take("optuna", "objectives")
        raise ValueError(f"algorithm: {engine}/{name} takes one objective; for several take optuna and one of {others}")
    if pruner == "none":
        return
    if not takes.pruners:
        also = "; its own hyperband ends poor trials early" if engine == "keras-tuner" else ""
        raise ValueError(f"pruner: {engine}/{name} takes no pruner; take pruner: none{also}")
    if len(objectives) > 1:
        raise ValueError("pruner: nothing can be pruned for several objectives at once; take pruner: none")
    if objectives[0] not in EPOCH_OBJECTIVES:
        raise ValueError(
            f"pruner: {pruner} needs an objective that is known after each epoch ({', '.join(EPOCH_OBJECTIVES)}), "
            f"got {objectives[0]}; take pruner: none"
        )


def _settings(given: dict[str, Any], of: str, model: Any) -> dict[str, Any]:
    """Every setting of the algorithm or the pruner, those left out at their defaults."""
    settings, key = given.get(f"{of}_settings") or {}, f"{of}_settings"
    if not isinstance(settings, dict):
        raise ValueError(f"{key}: wants settings by name, as {{n_startup_trials: 5}}, got {settings!r}")
    try:
        return settings_of(model, settings)
    except ValidationError as error:
        first = error.errors()[0]
        setting, known = ".".join(map(str, first["loc"])), tuple(model.model_fields)
        if first["type"] == "extra_forbidden":
            there = f"there is {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{key}: there is no {setting!r}; {there}{nearest(setting, known)}") from None
        raise ValueError(f"{key}.{setting}: {describe_fault(first)}") from None
