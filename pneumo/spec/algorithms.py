"""The engines with their algorithms and pruners: what each supports, and its settings with their bounds.

The settings have the names and defaults of the library, except where a comment gives the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """The settings of an algorithm or pruner that has none. The others are subclasses."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TpeSettings(Settings):
    """Settings of Optuna's TPESampler."""

    n_startup_trials: Annotated[
        int, Field(ge=1, le=100_000, description="Number of random trials before TPE proposes.")
    ] = 10
    n_ei_candidates: Annotated[
        int,
        Field(
            ge=1, le=100_000, description="Number of sampled candidates, of which the best expected one is proposed."
        ),
    ] = 24
    multivariate: Annotated[
        bool, Field(description="Whether the hyperparameters are modelled jointly rather than independently.")
    ] = True


class Nsga2Settings(Settings):
    """Settings of Optuna's NSGAIISampler."""

    # Optuna's default of 50 exceeds the size of most studies of networks. Until the first population is complete,
    # proposals are random.
    population_size: Annotated[
        int, Field(ge=2, le=10_000, description="Number of trials in a generation. The first generation is random.")
    ] = 20
    mutation_prob: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Probability of mutating each hyperparameter; null is 1 / max(1, number of hyperparameters).",
        ),
    ] = None
    crossover_prob: Annotated[
        float, Field(ge=0, le=1, description="Probability of combining two parents rather than copying one.")
    ] = 0.9
    swapping_prob: Annotated[
        float,
        Field(ge=0, le=1, description="Probability of swapping each hyperparameter of two parents in a crossover."),
    ] = 0.5


class CmaesSettings(Settings):
    """Settings of Optuna's CmaEsSampler."""

    n_startup_trials: Annotated[
        int, Field(ge=1, le=100_000, description="Number of random trials before CMA-ES proposes.")
    ] = 1
    sigma0: Annotated[
        float | None,
        Field(
            gt=0,
            description="Initial standard deviation, for a space scaled to the unit cube; null is one sixth.",
        ),
    ] = None
    popsize: Annotated[
        int | None,
        Field(
            ge=2, description="Number of trials in a generation; null derives it from the number of hyperparameters."
        ),
    ] = None
    # Optuna's default is False. Without margin, integers and steps can stop varying (Hamano et al., GECCO 2022).
    with_margin: Annotated[
        bool, Field(description="Whether CMA-ES with margin is used, which keeps integers and steps varying.")
    ] = True


class QmcSettings(Settings):
    """Settings of Optuna's QMCSampler."""

    qmc_type: Annotated[Literal["sobol", "halton"], Field(description="Kind of quasi-random sequence.")] = "sobol"
    # Optuna's default is False. Unscrambled sequences start in a corner of the space, whatever the seed.
    scramble: Annotated[bool, Field(description="Whether the sequence is scrambled with the study's seed.")] = True


class GpSettings(Settings):
    """Settings of Optuna's GPSampler."""

    n_startup_trials: Annotated[
        int, Field(ge=1, le=100_000, description="Number of random trials before the Gaussian process proposes.")
    ] = 10
    deterministic_objective: Annotated[
        bool, Field(description="Whether the objective has no noise, so that equal hyperparameters give equal values.")
    ] = False


class BayesianSettings(Settings):
    """Settings of Keras Tuner's BayesianOptimizationOracle."""

    num_initial_points: Annotated[
        int | None,
        Field(
            ge=1,
            le=100_000,
            description="Number of random trials before the Gaussian process proposes; null is 3 times the number of "
            "hyperparameters, at least 3.",
        ),
    ] = None
    alpha: Annotated[
        float, Field(gt=0, description="Variance of the objective's noise, added to the diagonal of the kernel matrix.")
    ] = 1e-4
    beta: Annotated[
        float, Field(gt=0, description="Weight of exploration: number of standard deviations in the confidence bound.")
    ] = 2.6


class HyperbandOracleSettings(Settings):
    """Settings of Keras Tuner's HyperbandOracle."""

    factor: Annotated[
        int,
        Field(
            ge=2,
            le=16,
            description="Reduction factor: the best 1/factor of a rung's trials continue to factor times the epochs.",
        ),
    ] = 3
    hyperband_iterations: Annotated[
        int, Field(ge=1, le=100_000, description="Number of times that the whole set of brackets is run.")
    ] = 1


class MedianSettings(Settings):
    """Settings of Optuna's MedianPruner."""

    n_startup_trials: Annotated[
        int, Field(ge=0, description="Number of trials that must be finished before a trial is pruned.")
    ] = 5
    # Optuna's default is 0. The values of the first epochs say little about the final one.
    n_warmup_steps: Annotated[
        int, Field(ge=0, description="First epoch after which a trial may be pruned, counted from 1.")
    ] = 2
    interval_steps: Annotated[
        int, Field(ge=1, le=100_000, description="Epochs between two decisions about pruning a trial.")
    ] = 1


class PercentileSettings(MedianSettings):
    """Settings of Optuna's PercentilePruner."""

    percentile: Annotated[
        float,
        Field(
            gt=0, lt=100, description="Percentage of the trials to keep: a trial that is not among the best is pruned."
        ),
    ] = 25.0


class AshaSettings(Settings):
    """Settings of Optuna's SuccessiveHalvingPruner."""

    min_resource: Annotated[
        int, Field(ge=1, description="Epochs that each trial trains before the first decision.")
    ] = 1
    reduction_factor: Annotated[
        int, Field(ge=2, description="Reduction factor: the best 1/reduction_factor of a rung's trials continue.")
    ] = 4
    min_early_stopping_rate: Annotated[
        int,
        Field(
            ge=0,
            description="Number of first rungs without pruning: the first decision comes after min_resource * "
            "reduction_factor**min_early_stopping_rate epochs.",
        ),
    ] = 0


class HyperbandPrunerSettings(Settings):
    """Settings of Optuna's HyperbandPruner."""

    min_resource: Annotated[
        int, Field(ge=1, description="Epochs that each trial trains before the first decision.")
    ] = 1
    reduction_factor: Annotated[
        int, Field(ge=2, description="Reduction factor: the best 1/reduction_factor of a rung's trials continue.")
    ] = 3


class WilcoxonSettings(Settings):
    """Settings of Optuna's WilcoxonPruner."""

    p_threshold: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="Largest p-value at which a trial is pruned as worse than the best one. A larger value prunes more.",
        ),
    ] = 0.1
    n_startup_steps: Annotated[int, Field(ge=0, description="Epochs of each trial in which it is not pruned.")] = 2


class PatientSettings(Settings):
    """Settings of Optuna's PatientPruner, without another pruner inside it."""

    patience: Annotated[
        int, Field(ge=1, description="Epochs without a better value that are tolerated before a trial is pruned.")
    ] = 3
    min_delta: Annotated[
        float,
        Field(
            ge=0,
            description="Tolerance in units of the objective: how much worse than the best earlier value the last epochs "
            "may be without pruning.",
        ),
    ] = 0.0


@dataclass(frozen=True)
class Algorithm:
    """An algorithm of an engine: the model of its settings, and what it supports.

    Attributes:
        settings: Model of the algorithm's settings.
        objectives: Whether it optimizes several objectives at once.
        pruners: Whether it can be combined with a pruner.
        choices: Whether the space may have choices, which are hyperparameters with a list of values.
        conditions: Whether the space may have conditions between searched hyperparameters.
        ranges: Whether the space may have continuous ranges, which are numbers without a step.
        epochs: Whether the number of epochs may be searched.
        rungs: Whether it proposes rungs: short trainings, the best of which later trials continue.
    """

    settings: type[Settings] = Settings
    objectives: bool = False
    pruners: bool = True
    choices: bool = True
    conditions: bool = True
    ranges: bool = True
    epochs: bool = True
    rungs: bool = False


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
        "hyperband": Algorithm(HyperbandOracleSettings, pruners=False, epochs=False, rungs=True),
        "grid": Algorithm(pruners=False, ranges=False),
    },
}
"""The algorithms, by engine and name."""

DEFAULT_ALGORITHMS: Mapping[str, str] = {"optuna": "tpe", "keras-tuner": "bayesian"}
"""The algorithm of an experiment that names none, by engine."""

PRUNERS: Mapping[str, type[Settings]] = {
    "none": Settings,
    "median": MedianSettings,
    "percentile": PercentileSettings,
    "asha": AshaSettings,
    "hyperband": HyperbandPrunerSettings,
    "wilcoxon": WilcoxonSettings,
    "patient": PatientSettings,
}
"""The models of the pruners' settings, by name."""


def algorithms_supporting(engine: str, feature: str) -> str:
    """Return the engine's algorithms that support a feature (a field of `Algorithm`), as `tpe, random`."""
    return ", ".join(name for name, algorithm in ALGORITHMS[engine].items() if getattr(algorithm, feature))


def complete_settings(model: type[Settings], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a model, those that are not given at their defaults.

    Raises:
        pydantic.ValidationError: A setting is unknown or out of bounds.
    """
    return model.model_validate(dict(given), strict=False).model_dump()
