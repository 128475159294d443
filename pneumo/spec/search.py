"""The `search` block of an experiment: what is optimized, by which algorithm, for how long."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from pneumo.spec.algorithms import (
    ALGORITHMS,
    DEFAULT_ALGORITHMS,
    PRUNERS,
    Algorithm,
    Settings,
    algorithms_supporting,
    complete_settings,
)
from pneumo.spec.duration import Seconds
from pneumo.spec.errors import (
    Fault,
    SettingError,
    check_known,
    collect_faults,
    describe_validation_error,
    quote,
    suggest_name,
)
from pneumo.spec.objective import EPOCH_OBJECTIVES, OBJECTIVES, STRESS_OBJECTIVES, ObjectiveName

RETRIES = 3
"""Default of `SearchSpec.retries`."""

MOST_WORKERS = 64
"""Largest number of trials that one machine trains at the same time."""


def _check_workers(value: Any) -> Any:
    """Return a number of workers, or `auto`.

    Raises:
        SettingError: It is neither.
    """
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if number == "auto" or (not isinstance(number, bool | str) and number in range(1, MOST_WORKERS + 1)):
        return number
    raise SettingError(Fault((), f"a number from 1 to {MOST_WORKERS}, or auto, got {quote(repr(value))}"))


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
        Field(
            description="Settings of the algorithm by name. Settings that are left out have their defaults.",
            validate_default=True,
        ),
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
        Field(
            description="Settings of the pruner by name. Settings that are left out have their defaults.",
            validate_default=True,
        ),
    ] = {}
    stress: Annotated[
        bool,
        Field(
            description="Whether each trained network is also judged on validation pictures under the changes of the stress "
            "suite: other framing, contrast, noise and the like. It costs at most half an epoch of the trial's own training."
        ),
    ] = True
    objective: Annotated[
        ObjectiveName | tuple[ObjectiveName, ...],
        Field(
            description="Metric that is optimized, in the direction that its name implies, or a list of several metrics, "
            "whose Pareto front is searched.",
            validate_default=True,
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
    retries: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="Number of times that a trial is run again, from its last checkpoint, whose worker process was killed "
            "from outside. After that it counts as failed. A crash, an error and trial_timeout are failures at once.",
        ),
    ] = RETRIES
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
    workers: Annotated[
        int | Literal["auto"],
        BeforeValidator(_check_workers),
        Field(
            description="Number of trials that are trained at the same time. auto: as many as there are GPUs, or shares of "
            "GPUs; without a GPU, one for every two cores."
        ),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_WORKERS}, {"enum": ["auto"]}]}),
    ] = 1
    gpu_share: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Share of a GPU, and of its memory, that each trial gets: with 0.5, two are trained on one GPU at the "
            "same time.",
        ),
    ] = 1.0
    shared: Annotated[
        bool,
        Field(
            description="Whether several searches, each in a folder or on a machine of its own, may work on the study at the "
            "same time. They need one PostgreSQL (--storage) and one MLflow server (MLFLOW_TRACKING_URI)."
        ),
    ] = False
    takeover: Annotated[
        Seconds,
        Field(
            ge=1,
            description="For a shared study: time without a sign of life after which the trials of a search are taken over by "
            "the others: seconds, or a text such as 90s or 5m.",
        ),
    ] = 60.0

    @property
    def objectives(self) -> tuple[str, ...]:
        """All objectives in the order of the file."""
        return (self.objective,) if isinstance(self.objective, str) else self.objective

    @property
    def worker_count(self) -> int:
        """The number of workers. `auto` must have been replaced by a number (`compute.workers.resolve_workers`)."""
        assert self.workers != "auto"
        return self.workers

    @property
    def capabilities(self) -> Algorithm:
        """What the algorithm supports."""
        return ALGORITHMS[self.engine][self.algorithm]

    @model_validator(mode="before")
    @classmethod
    def _choose_algorithm(cls, given: Any) -> Any:
        """Fill in the default of `algorithm`, which depends on the engine."""
        if not isinstance(given, dict) or "algorithm" in given or not isinstance(given.get("engine"), str):
            return given
        return given | {"algorithm": DEFAULT_ALGORITHMS.get(given["engine"], "tpe")}

    # The checks go by key, in the order of the keys, so that pydantic collects the faults of all keys. A key that depends
    # on a faulty one is checked as far as it can be.

    @field_validator("engine", mode="before")
    @classmethod
    def _check_engine(cls, engine: Any) -> str:
        return check_known(engine, ALGORITHMS)

    @field_validator("algorithm", mode="before")
    @classmethod
    def _check_algorithm(cls, algorithm: Any, info: ValidationInfo) -> Any:
        engine = info.data.get("engine")
        return check_known(algorithm, ALGORITHMS[engine], f" of engine {engine}") if engine else algorithm

    @field_validator("algorithm_settings", mode="before")
    @classmethod
    def _complete_algorithm_settings(cls, settings: Any, info: ValidationInfo) -> Any:
        capabilities = _chosen_algorithm(info)
        return _complete_settings(settings, capabilities.settings if capabilities else None)

    @field_validator("pruner", mode="before")
    @classmethod
    def _check_pruner(cls, given: Any, info: ValidationInfo) -> str:
        pruner = check_known(given, PRUNERS)
        capabilities = _chosen_algorithm(info)
        if pruner == "none" or capabilities is None or capabilities.pruners:
            return pruner
        engine, algorithm = info.data["engine"], info.data["algorithm"]
        hint = "; its own hyperband ends poor trials early" if engine == "keras-tuner" else ""
        raise SettingError(Fault((), f"{engine}/{algorithm} supports no pruner; use pruner: none{hint}"))

    @field_validator("pruner_settings", mode="before")
    @classmethod
    def _complete_pruner_settings(cls, settings: Any, info: ValidationInfo) -> Any:
        pruner = info.data.get("pruner")
        return _complete_settings(settings, PRUNERS[pruner] if pruner else None)

    @field_validator("objective", mode="before")
    @classmethod
    def _check_objective(cls, given: Any, info: ValidationInfo) -> str | tuple[str, ...]:
        objectives = _known_objectives(given)
        capabilities, pruner = _chosen_algorithm(info), info.data.get("pruner", "none")
        faults = []
        if capabilities and not capabilities.objectives and len(objectives) > 1:
            name = f"{info.data['engine']}/{info.data['algorithm']}"
            others = algorithms_supporting("optuna", "objectives")
            message = f"{name} supports one objective; for several use optuna with one of {others}"
            faults.append(Fault(("..", "algorithm"), message))
        if pruner != "none" and len(objectives) > 1:
            message = "several objectives cannot be combined with a pruner; use pruner: none"
            faults.append(Fault(("..", "pruner"), message))
        elif pruner != "none" and objectives[0] not in EPOCH_OBJECTIVES:
            message = (
                f"{pruner} needs an objective that is known after each epoch ({', '.join(EPOCH_OBJECTIVES)}), "
                f"got {objectives[0]}; use pruner: none"
            )
            faults.append(Fault(("..", "pruner"), message))
        stressed = [objective for objective in objectives if objective in STRESS_OBJECTIVES]
        if stressed and info.data.get("stress") is False:
            faults.append(Fault(("..", "stress"), f"must be true, since the objective is {stressed[0]}"))
        if faults:
            raise SettingError(*faults)
        return objectives[0] if len(objectives) == 1 else objectives

    @field_validator("shared")
    @classmethod
    def _check_shared(cls, shared: bool, info: ValidationInfo) -> bool:
        if shared and info.data.get("engine") == "keras-tuner":
            message = (
                "Keras Tuner's oracle lives with one search; use engine: optuna, or let one search spread its trials over "
                "machines with Ray"
            )
            raise SettingError(Fault((), message))
        return shared


def _chosen_algorithm(info: ValidationInfo) -> Algorithm | None:
    """Return what the algorithm supports; None if engine or algorithm is faulty."""
    engine, algorithm = info.data.get("engine"), info.data.get("algorithm")
    return ALGORITHMS[engine][algorithm] if engine and algorithm else None


def _known_objectives(given: Any) -> tuple[str, ...]:
    objectives = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not objectives or len(set(map(str, objectives))) < len(objectives):
        raise SettingError(Fault((), f"one, or a list of different ones, got {quote(repr(given))}"))
    faults: list[Fault] = []
    for objective in objectives:
        with collect_faults(faults):
            check_known(objective, OBJECTIVES)
    if faults:
        raise SettingError(*faults)
    return objectives


def _complete_settings(given: Any, model: type[Settings] | None) -> Any:
    """Return all settings of an algorithm or a pruner, those that are left out at their defaults.

    `model` is None if the algorithm or pruner is faulty; then the settings are left as they are.
    """
    settings = {} if given is None else given
    if not isinstance(settings, dict):
        message = f"needs settings by name, as in {{n_startup_trials: 5}}, got {quote(repr(settings))}"
        raise SettingError(Fault((), message))
    if model is None:
        return settings
    known = tuple(model.model_fields)
    try:
        return complete_settings(model, settings)
    except ValidationError as error:
        faults = []
        for detail in error.errors():
            (setting, *_) = detail["loc"]
            if detail["type"] == "extra_forbidden":
                available = f"there is {', '.join(known)}" if known else "it has none"
                suggestion = suggest_name(str(setting), known)
                faults.append(Fault((), f"there is no {quote(repr(setting))}; {available}{suggestion}"))
            else:
                faults.append(Fault((str(setting),), describe_validation_error(detail)))
        raise SettingError(*faults) from None
