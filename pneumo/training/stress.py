"""Judge the network of a trial on its validation pictures under the changes of the stress suite."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.cnn.batches import Examples
from pneumo.cnn.build import prediction_network
from pneumo.cnn.fit import DivergedError
from pneumo.cnn.predictor import make_predictor
from pneumo.cnn.stress import stressed
from pneumo.evidence.stress import StressPredictions, choose_pictures, stress_objective
from pneumo.spec.hyperparameters import Hyperparameters
from pneumo.spec.names import Metrics
from pneumo.spec.stress import (
    CHANGES,
    GEOMETRIC_CHANGES,
    SEED,
    SHARE_AFTER_AN_EPOCH,
    SHARE_AT_THE_END,
    SUITE,
    most_pictures,
)

_ALL = tuple(change.name for change in CHANGES)


class StressTest:
    """Predicts validation pictures under the changes of the suite, with the weights that the network has at the time.

    Args:
        model: The network.
        values: Its hyperparameters.
        training_pictures: Number of the training pictures, which limits the number of pictures to judge on.
        validation: The validation pictures.
        names: Names of the validation pictures, n entries.
        passes: Number of passes of the network that a prediction is taken to cost.
    """

    def __init__(
        self,
        model: Any,
        values: Hyperparameters,
        training_pictures: int,
        validation: Examples,
        names: Sequence[str],
        passes: int = 1,
    ) -> None:
        self._predict = make_predictor(prediction_network(model, values))
        self._validation, self._names = validation, np.array(names)
        self._training_pictures, self._passes = training_pictures, passes

    def at_the_end(self, plain: NDArray[np.float32]) -> StressPredictions:
        """Return the predictions under all changes.

        Args:
            plain: The probabilities of all validation pictures, float32 (n,).

        Raises:
            DivergedError: A probability is not finite.
        """
        return self._predictions(plain, _ALL, SHARE_AT_THE_END)

    def after_an_epoch(self, objective: str, plain: NDArray[np.float32]) -> float:
        """Return a stress objective, computed on a part of the pictures. Argument and error are as in `at_the_end`."""
        changes = GEOMETRIC_CHANGES if objective == Metrics.VAL_STRESS_AUC else _ALL
        return stress_objective(objective, self._predictions(plain, changes, SHARE_AFTER_AN_EPOCH))

    def _predictions(self, plain: NDArray[np.float32], changes: Collection[str], share: float) -> StressPredictions:
        validation = self._validation
        chosen = choose_pictures(
            validation.labels, most_pictures(self._training_pictures, changes, self._passes, share)
        )
        labels, rows = validation.labels[chosen], np.arange(len(chosen))
        pictures = validation.pixels[validation.rows[chosen]]
        probabilities: dict[str, NDArray[np.float32]] = {}
        for name, changed in stressed(pictures, labels, SEED, changes):
            probabilities[name] = self._predict(Examples(changed, rows, labels))
            if not np.isfinite(probabilities[name]).all():
                raise DivergedError(
                    f"the network gives no finite probabilities for pictures under the change {name} of the stress suite; "
                    "try a lower learning_rate"
                )
        stacked = np.stack(list(probabilities.values()))
        return StressPredictions(SUITE, tuple(probabilities), self._names[chosen], labels, plain[chosen], stacked)
