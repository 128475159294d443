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
    n_startup_trials: Annotated[Count, Field(description="random trials before the model proposes")] = 10
    n_ei_candidates: Annotated[Count, Field(description="draws that a proposal is the best of")] = 24
    multivariate: Annotated[bool, Field(description="model the hyperparameters jointly")] = True


class Nsga2Settings(Settings):
    population_size: Annotated[int, Field(ge=2, le=10_000, description="trials of a generation")] = 20
    """Optuna's 50 would be beyond most studies of networks: until it is reached, proposals are random."""
    mutation_prob: Annotated[
        Share | None, Field(description="probability that a value mutates; null: one over the number of values")
    ] = None
    crossover_prob: Annotated[Share, Field(description="probability that a child has two parents")] = 0.9
    swapping_prob: Annotated[Share, Field(description="probability that parents swap a value")] = 0.5


class CmaesSettings(Settings):
    n_startup_trials: Annotated[Count, Field(description="random trials before the algorithm proposes")] = 1
    sigma0: Annotated[
        float | None, Field(gt=0, description="standard deviation at the start; null: a sixth of the range")
    ] = None
    popsize: Annotated[
        int | None, Field(ge=2, description="trials of a generation; null: by the number of hyperparameters")
    ] = None
    with_margin: Annotated[bool, Field(description="keep whole numbers and steps from freezing")] = True
    """Keeps whole numbers and steps from freezing (Hamano et al., GECCO 2022); Optuna's default is False."""


class QmcSettings(Settings):
    qmc_type: Annotated[Literal["sobol", "halton"], Field(description="the sequence")] = "sobol"
    scramble: Annotated[bool, Field(description="scramble the sequence with the seed")] = True
    """Unscrambled sequences begin in a corner of the space, whatever the seed; Optuna's default is False."""


class GpSettings(Settings):
    n_startup_trials: Annotated[Count, Field(description="random trials before the model proposes")] = 10
    deterministic_objective: Annotated[bool, Field(description="assume that the objective has no noise")] = False


class BayesianSettings(Settings):
    num_initial_points: Annotated[
        Count | None, Field(description="random trials before the model proposes; null: three for each hyperparameter")
    ] = None
    alpha: Annotated[float, Field(gt=0, description="noise of the observed values")] = 1e-4
    beta: Annotated[float, Field(gt=0, description="weight of exploration")] = 2.6


class RungSettings(Settings):
    factor: Annotated[int, Field(ge=2, le=16, description="one in so many trials continues to the next rung")] = 3
    hyperband_iterations: Annotated[Count, Field(description="how often all brackets are run")] = 1


class MedianSettings(Settings):
    n_startup_trials: Annotated[int, Field(ge=0, description="trials before any is pruned")] = 5
    n_warmup_steps: Annotated[int, Field(ge=0, description="epochs of a trial before it can be pruned")] = 2
    """Not after the first epoch, which says little; Optuna's default is 0."""
    interval_steps: Annotated[Count, Field(description="epochs between two decisions")] = 1


class PercentileSettings(MedianSettings):
    percentile: Annotated[float, Field(gt=0, lt=100, description="per cent of the trials that may continue")] = 25.0


class AshaSettings(Settings):
    min_resource: Annotated[int, Field(ge=1, description="epochs before the first decision")] = 1
    reduction_factor: Annotated[int, Field(ge=2, description="one in so many trials continues to the next rung")] = 4
    min_early_stopping_rate: Annotated[int, Field(ge=0, description="rungs that are skipped at the start")] = 0


class HyperbandSettings(Settings):
    min_resource: Annotated[int, Field(ge=1, description="epochs before the first decision")] = 1
    reduction_factor: Annotated[int, Field(ge=2, description="one in so many trials continues to the next rung")] = 3


class WilcoxonSettings(Settings):
    p_threshold: Annotated[float, Field(gt=0, lt=1, description="p-value below which a trial is pruned")] = 0.1
    n_startup_steps: Annotated[int, Field(ge=0, description="epochs of a trial before it can be pruned")] = 2


class PatientSettings(Settings):
    patience: Annotated[int, Field(ge=1, description="epochs without a better value before a trial is pruned")] = 3
    min_delta: Annotated[float, Field(ge=0, description="least difference that counts as better")] = 0.0


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
