"""Optuna's samplers, pruners and terminator, as an experiment asks for them."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.search import SearchSpec

_TORCH = "needs PyTorch, which is not installed: pip install 'pneumo[gp]' (from a clone: pip install -e '.[gp]')"


def check_installed(search: SearchSpec) -> None:
    """Raises `RequestError` where the experiment needs a package that is not there."""
    if importlib.util.find_spec("torch") is not None:
        return
    if search.algorithm == "gp":
        raise RequestError(f"search.algorithm: gp {_TORCH}; or take tpe")
    if search.terminator:
        raise RequestError(f"search.terminator: {_TORCH}; or take patience")


def build_sampler(search: SearchSpec, number: int) -> optuna.samplers.BaseSampler:
    """The experiment's sampler for the trial of this number, seeded by both.

    What it proposes depends on the seed and on what was told, not on how often the process was started in between.
    """
    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    settings: dict[str, Any] = search.algorithm_settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search.algorithm:
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed, **settings)
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, **settings)
            case "cmaes":
                return optuna.samplers.CmaEsSampler(
                    seed=seed,
                    independent_sampler=optuna.samplers.RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                    **settings,
                )
            case "qmc":
                return _Qmc(search.seed, seed, settings)
            case "gp":
                return optuna.samplers.GPSampler(
                    seed=seed,
                    independent_sampler=optuna.samplers.RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                    **settings,
                )
            case "random" | "grid":  # a grid's combinations are enqueued: nothing is left to sample
                return optuna.samplers.RandomSampler(seed=seed)
    raise AssertionError(search.algorithm)


_PRUNERS: dict[str, type[optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "asha": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "wilcoxon": optuna.pruners.WilcoxonPruner,
    "patient": optuna.pruners.PatientPruner,
}


def build_pruner(experiment: Experiment) -> optuna.pruners.BasePruner:
    """The experiment's pruner; epochs are what it calls steps and resources."""
    name, settings = experiment.search.pruner, dict(experiment.search.pruner_settings)
    if name == "hyperband":
        settings["max_resource"] = max(int(epochs) for epochs in experiment.space.possible("epochs"))
    if name == "patient":
        settings["wrapped_pruner"] = None  # it ends a trial by itself, not when another pruner would too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _PRUNERS[name](**settings)


def should_terminate(study: optuna.Study) -> bool:
    """Whether Optuna's terminator expects that what is left to gain is below the noise.

    By the expected minimum model regret against its own median (Ishibashi et al., AISTATS 2023), which needs no
    cross-validation.
    """
    from optuna.terminator import EMMREvaluator, MedianErrorEvaluator, Terminator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental since 4.0, deprecated in 5; nothing replaces it yet
        improvement = EMMREvaluator(seed=0)
        terminator = Terminator(improvement, MedianErrorEvaluator(improvement))
        return bool(terminator.should_terminate(study))


class _Qmc(optuna.samplers.QMCSampler):
    """One sequence for the whole study, of which a trial takes the point of its own number.

    Optuna counts the points that were taken instead; taking up an interrupted trial would lose one.
    """

    def __init__(self, study_seed: int, seed: int, settings: dict[str, Any]) -> None:
        super().__init__(
            seed=study_seed,
            independent_sampler=optuna.samplers.RandomSampler(seed=seed),
            warn_independent_sampling=False,
            **settings,
        )
        self._point = 0

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._point = trial.number
        return dict(super().sample_relative(study, trial, search_space))

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._point
