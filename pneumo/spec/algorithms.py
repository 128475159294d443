"""The engines, their algorithms and pruners: what each can take, and the settings of each with their bounds.

The defaults are the library's own, but where a comment says why not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=100_000)]
Share = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Of an algorithm or a pruner without any; the others add theirs."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TpeSettings(Settings):
    n_startup_trials: Count = 10
    n_ei_candidates: Count = 24
    multivariate: bool = True


class Nsga2Settings(Settings):
    population_size: Annotated[int, Field(ge=2, le=10_000)] = 20
    """Optuna's 50 would be beyond most studies of networks: until it is reached, proposals are random."""
    mutation_prob: Share | None = None
    crossover_prob: Share = 0.9
    swapping_prob: Share = 0.5


class CmaesSettings(Settings):
    n_startup_trials: Count = 1
    sigma0: Annotated[float | None, Field(gt=0)] = None
    popsize: Annotated[int | None, Field(ge=2)] = None
    with_margin: bool = True
    """Keeps whole numbers and steps from freezing (Hamano et al., GECCO 2022); Optuna's default is False."""


class QmcSettings(Settings):
    qmc_type: Literal["sobol", "halton"] = "sobol"
    scramble: bool = True
    """Unscrambled sequences begin in a corner of the space, whatever the seed; Optuna's default is False."""


class GpSettings(Settings):
    n_startup_trials: Count = 10
    deterministic_objective: bool = False


class BayesianSettings(Settings):
    num_initial_points: Count | None = None
    alpha: Annotated[float, Field(gt=0)] = 1e-4
    beta: Annotated[float, Field(gt=0)] = 2.6


class RungSettings(Settings):
    factor: Annotated[int, Field(ge=2, le=16)] = 3
    hyperband_iterations: Count = 1


class MedianSettings(Settings):
    n_startup_trials: Annotated[int, Field(ge=0)] = 5
    n_warmup_steps: Annotated[int, Field(ge=0, description="epochs")] = 2
    """Not after the first epoch, which says little; Optuna's default is 0."""
    interval_steps: Count = 1


class PercentileSettings(MedianSettings):
    percentile: Annotated[float, Field(gt=0, lt=100)] = 25.0


class AshaSettings(Settings):
    min_resource: Annotated[int, Field(ge=1, description="epochs")] = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 4
    min_early_stopping_rate: Annotated[int, Field(ge=0)] = 0


class HyperbandSettings(Settings):
    min_resource: Annotated[int, Field(ge=1, description="epochs")] = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class WilcoxonSettings(Settings):
    p_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.1
    n_startup_steps: Annotated[int, Field(ge=0, description="epochs")] = 2


class PatientSettings(Settings):
    patience: Annotated[int, Field(ge=1, description="epochs without a better value")] = 3
    min_delta: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True)
class Algorithm:
    """What an algorithm can take. `instead` names those of its engine that take what it cannot."""

    settings: type[Settings] = Settings
    objectives: bool = False
    """Several objectives at once."""
    pruners: bool = True
    choices: bool = True
    conditions: bool = True
    ranges: bool = True
    """Continuous ranges: numbers without a step."""
    epochs: bool = True
    """Epochs that are searched."""


ALGORITHMS: Mapping[str, Mapping[str, Algorithm]] = {
    "optuna": {
        "tpe": Algorithm(TpeSettings, objectives=True),
        "nsga2": Algorithm(Nsga2Settings, objectives=True),
        "cmaes": Algorithm(CmaesSettings, choices=False, conditions=False),
        "qmc": Algorithm(QmcSettings, objectives=True),
        "random": Algorithm(objectives=True),
        "grid": Algorithm(objectives=True, ranges=False),
        "gp": Algorithm(GpSettings, objectives=True),
    },
    "keras-tuner": {
        "random": Algorithm(pruners=False),
        "bayesian": Algorithm(BayesianSettings, pruners=False),
        "hyperband": Algorithm(RungSettings, pruners=False, epochs=False),
        "grid": Algorithm(pruners=False, ranges=False),
    },
}
"""By engine and name."""

PRUNERS: Mapping[str, type[Settings]] = {
    "none": Settings,
    "median": MedianSettings,
    "percentile": PercentileSettings,
    "asha": AshaSettings,
    "hyperband": HyperbandSettings,
    "wilcoxon": WilcoxonSettings,
    "patient": PatientSettings,
}


def that_take(engine: str, what: str) -> str:
    """The algorithms of an engine that take something (a field of `Algorithm`), as `tpe, random`."""
    return ", ".join(name for name, algorithm in ALGORITHMS[engine].items() if getattr(algorithm, what))


def settings_of(model: type[Settings], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting, checked; raises `pydantic.ValidationError`."""
    return model.model_validate(dict(given), strict=False).model_dump()
