"""Optuna's samplers and pruners, built from an experiment."""

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


def check_installed(search: SearchSpec) -> None:
    """Raise `RequestError` if the algorithm needs a package that is not installed."""
    if search.algorithm == "gp" and importlib.util.find_spec("torch") is None:
        raise RequestError(
            "search.algorithm: gp needs PyTorch, which is not installed: pip install 'pneumo[gp]' (from a clone: "
            "pip install -e '.[gp]'); or use tpe"
        )


def build_sampler(
    search: SearchSpec, position: int, before: optuna.samplers.BaseSampler | None = None
) -> optuna.samplers.BaseSampler:
    """Return the experiment's sampler for one proposal.

    Its seed is derived from the study's seed and the proposal's position. The proposal therefore does not depend on how
    often the process was restarted before it.

    Args:
        search: The `search` block of the experiment.
        position: Number of proposals before this one, trained or skipped.
        before: The sampler of an earlier proposal of the study. What it has read of the trials is not read again.
    """
    seed = int(np.random.SeedSequence([search.seed, position]).generate_state(1)[0])
    settings: dict[str, Any] = search.algorithm_settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search.algorithm:
            case "tpe":
                sampler = optuna.samplers.TPESampler(seed=seed, **settings)
                if isinstance(before, optuna.samplers.TPESampler):
                    sampler._search_space = (
                        before._search_space
                    )  # what all trials have in common; it reads new ones only
                return sampler
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
                return _NumberedQmcSampler(search.seed, seed, settings)
            case "gp":
                return optuna.samplers.GPSampler(
                    seed=seed,
                    independent_sampler=optuna.samplers.RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                    **settings,
                )
            case "random" | "grid":  # a grid enqueues its combinations, so that its sampler samples nothing
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
    """Return the experiment's pruner. What Optuna calls a step or a resource is an epoch."""
    name, settings = experiment.search.pruner, dict(experiment.search.pruner_settings)
    if name == "hyperband":
        settings["max_resource"] = max(int(epochs) for epochs in experiment.space.possible_values("epochs"))
    if name == "patient":
        settings["wrapped_pruner"] = None  # without a wrapped pruner, patience alone decides
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _PRUNERS[name](**settings)


class _NumberedQmcSampler(optuna.samplers.QMCSampler):
    """A QMC sampler that gives each proposal the point of its own position in one sequence for the whole study.

    Optuna's sampler counts the points that were drawn, and would skip one when an interrupted trial is proposed again.
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
