"""How much each hyperparameter mattered, with the uncertainty of that figure.

A random forest learns a trial's value from its hyperparameters. On trials that the forest did not learn from, the values of
one hyperparameter are shuffled among the trials; what the forest's prediction loses by it is the hyperparameter's
importance. Dividing the trials anew and another seed of the forest's trees give another figure, and the spread of these
figures is shown.

Sources: L. Breiman, Random Forests, Machine Learning 45, 5-32, 2001 (importance by permutation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.spec.result import Trial
from pneumo.spec.selection import metric_value
from pneumo.spec.space import Choice, Searched

FEWEST_TRIALS = 10
"""Number of complete trials below which nothing is computed."""

FEW_TRIALS = 30
"""Number of complete trials below which a caution is shown."""

_REPEATS = 8
_TREES = 30


@dataclass(frozen=True)
class Importance:
    """The importance of a hyperparameter.

    Attributes:
        name: The hyperparameter.
        mean: Mean over the repetitions of the share of the variation of the values on trials not learned from that shuffling
            takes away from the prediction. 0 if it is no use; it may exceed 1.
        low: The second smallest of the repetitions; `high` the second largest.
    """

    name: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Importances:
    """The importances of all hyperparameters, largest first.

    Attributes:
        each: One for each hyperparameter.
        explained: Share of the variation of the values, on trials not learned from, that the forest predicts: at most 1;
            0 or less if the hyperparameters tell nothing of the value.
        trials: Number of complete trials.
    """

    each: Sequence[Importance]
    explained: float
    trials: int


def compute_importances(
    trials: Sequence[Trial], objective: str, objectives: Sequence[str], searched: Sequence[Searched]
) -> Importances | str:
    """Return the importances, or a sentence that says why there are none.

    Args:
        trials: The finished trials; complete ones count.
        objective: The metric that is explained.
        objectives: The study's objectives.
        searched: The hyperparameters that were searched.
    """
    from sklearn.ensemble import RandomForestRegressor

    values = {
        t.number: v
        for t in trials
        if t.result.state == "complete" and (v := metric_value(t.result, objective, objectives)) is not None
    }
    complete = [trial for trial in trials if trial.number in values]
    varied = [d for d in searched if len({t.candidate.hyperparameters.get(d.name) for t in complete}) > 1]
    if len(complete) < FEWEST_TRIALS:
        return f"Importances need at least {FEWEST_TRIALS} complete trials; there are {len(complete)}."
    if len(varied) < 2:
        return "Importances need at least two hyperparameters that took more than one value."
    y = np.array([values[trial.number] for trial in complete])
    if np.ptp(y) == 0:
        return f"All complete trials have the same {objective}, so no importance can be computed."
    y = y.argsort().argsort() / (len(y) - 1)  # ranks: one trial that went wrong does not decide everything
    features = np.column_stack([_encode(dimension, complete) for dimension in varied])
    losses, explained = [], []
    for seed in range(_REPEATS):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(y))
        held_out, learned = np.split(order, [max(3, len(y) // 4)])
        forest = RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=seed).fit(features[learned], y[learned])
        variation = float(np.mean((y[held_out] - y[learned].mean()) ** 2)) or 1.0
        error = float(np.mean((forest.predict(features[held_out]) - y[held_out]) ** 2))
        explained.append(1 - error / variation)
        losses.append((_shuffled_errors(forest, features[held_out], y[held_out], rng) - error) / variation)
    table = np.sort(np.array(losses), axis=0)
    each = [
        Importance(dimension.name, float(column.mean()), float(column[1]), float(column[-2]))
        for dimension, column in zip(varied, table.T, strict=True)
    ]
    return Importances(sorted(each, key=lambda importance: -importance.mean), float(np.mean(explained)), len(complete))


def _shuffled_errors(
    forest: Any, features: NDArray[np.float64], y: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the squared error of the forest after shuffling each column, float64 (columns,), the mean of three shuffles."""
    columns = features.shape[1]
    shuffled = np.tile(features, (columns, 3, 1, 1))  # (columns, shuffles, trials, columns)
    for column in range(columns):
        for shuffle in range(3):
            shuffled[column, shuffle, :, column] = rng.permutation(features[:, column])
    predicted = forest.predict(shuffled.reshape(-1, columns)).reshape(columns, 3, len(y))
    return np.asarray(np.mean((predicted - y) ** 2, axis=(1, 2)))


def _encode(dimension: Searched, trials: Sequence[Trial]) -> NDArray[np.float64]:
    """Return a hyperparameter as numbers, float64 (trials,). A tree needs the order of the values only; -1 is inactive."""
    values = [trial.candidate.hyperparameters.get(dimension.name) for trial in trials]
    known = {value for value in values if value is not None}
    if isinstance(dimension, Choice) and any(isinstance(value, str | bool) for value in known):
        order = {value: k for k, value in enumerate(dict.fromkeys((*dimension.values, *known)))}
    else:
        order = {value: k for k, value in enumerate(sorted(known, key=float))}
    return np.array([-1.0 if value is None else float(order[value]) for value in values])
