"""Choose a model's operating point: the temperature and the threshold, from validation pictures alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pneumo.promote.validation import ValidationPredictions
from pneumo.spec.promotion import ChosenOn, PromoteSpec, parse_threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

PICTURES: dict[ChosenOn, str] = {"stress": "stressed", "validation": "plain"}
"""Validation pictures, for people."""

_OTHER: dict[ChosenOn, ChosenOn] = {"stress": "validation", "validation": "stress"}

NO_STRESS = "no predictions under the stress suite were recorded"
"""Why an operating point is chosen on plain validation pictures although `promote.on` is `stress`."""


@dataclass(frozen=True)
class OperatingPoint:
    """A temperature and a threshold, and the accuracy that they give on validation pictures.

    Attributes:
        on: The validation pictures that both were chosen on; None if `promote` sets the threshold and asks for no calibration.
        temperature: Temperature by which the probability is scaled.
        threshold: Least scaled probability of the second class.
        accuracy: Share of the plain validation pictures that are classified correctly.
        stress_accuracy: The same of the pictures under all changes of the stress suite; None if they were not predicted.
    """

    on: ChosenOn | None
    temperature: float
    threshold: float
    accuracy: float
    stress_accuracy: float | None

    @property
    def setting(self) -> str:
        """Threshold and, if there is one, temperature as text."""
        return f"threshold {self.threshold:.4f}" + (
            f", temperature {self.temperature:.3f}" if self.temperature != 1 else ""
        )

    @property
    def accuracies(self) -> str:
        """Both accuracies as text."""
        plain = f"{self.accuracy:.4f} on plain"
        stressed = "" if self.stress_accuracy is None else f", {self.stress_accuracy:.4f} on stressed"
        return f"{plain}{stressed} validation pictures"


@dataclass(frozen=True)
class ChosenPoint:
    """The operating point of a model, and what the alternative would have been.

    Attributes:
        rule: The experiment's `promote.threshold`.
        point: The operating point.
        other: The point that the other validation pictures would give; None if nothing was chosen or there are none.
        lacks_stress: Whether stressed pictures were asked for, but there are no predictions for them.
    """

    rule: str | float
    point: OperatingPoint
    other: OperatingPoint | None
    lacks_stress: bool

    @property
    def on(self) -> str:
        """The validation pictures that it was chosen on: `stress`, `validation` or, if nothing was chosen, `fixed`."""
        return self.point.on or "fixed"

    @property
    def sentences(self) -> tuple[str, ...]:
        """Say where the point was chosen and what accuracy both points give."""
        point, other = self.point, self.other
        rule = self.rule if isinstance(self.rule, str) else "set by the experiment"
        if point.on and rule != self.rule:
            rule += "; temperature fitted"
        origin = f"{rule} on {PICTURES[point.on]} validation pictures" if point.on else rule
        origin += f", because {NO_STRESS}" if self.lacks_stress else ""
        lines = [f"Operating point: {point.setting} ({origin}): accuracy {point.accuracies}."]
        if other and other.on:
            lines.append(
                f"The {PICTURES[other.on]} validation pictures would give {other.setting}: accuracy {other.accuracies}."
            )
        return tuple(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the choice as JSON values."""
        points = {"chosen": asdict(self.point), "other": None if self.other is None else asdict(self.other)}
        return {"rule": self.rule, "on": self.on, "lacks_stress": self.lacks_stress, **points}


def chosen_on(promote_block: PromoteSpec, has_stress: bool) -> ChosenOn | None:
    """Return the validation pictures that an operating point is chosen on; None if the experiment sets all of it.

    Args:
        promote_block: The experiment's `promote` block.
        has_stress: Whether there are predictions under the stress suite.
    """
    fixed = parse_threshold(promote_block.threshold).kind == "fixed"
    if fixed and promote_block.calibration == "none":
        return None
    return promote_block.on if has_stress else "validation"


def choose_operating_point(promote_block: PromoteSpec, predictions: ValidationPredictions) -> ChosenPoint:
    """Return how the output of a model becomes a label.

    The threshold follows `promote.threshold` and the temperature `promote.calibration`, both on the pictures that
    `promote.on` names, or on the plain ones if there are no predictions under the stress suite.
    """
    on = chosen_on(promote_block, predictions.stress is not None)
    point = _point(promote_block, predictions, on)
    other = _point(promote_block, predictions, _OTHER[on]) if on and predictions.stress is not None else None
    return ChosenPoint(promote_block.threshold, point, other, lacks_stress=on is not None and on != promote_block.on)


def _point(promote_block: PromoteSpec, predictions: ValidationPredictions, on: ChosenOn | None) -> OperatingPoint:
    from pneumo.evidence.metrics import operating_point, predict_labels
    from pneumo.evidence.scaling import fit_temperature, scale_probabilities

    labels, probabilities = predictions.of(on or "validation")
    temperature = fit_temperature(labels, probabilities) if promote_block.calibration == "temperature" else 1.0
    rule = parse_threshold(promote_block.threshold)
    threshold = operating_point(labels, scale_probabilities(probabilities, temperature), rule.kind, rule.value)

    def accuracy(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
        return float(np.mean(predict_labels(scale_probabilities(probabilities, temperature), threshold) == labels))

    stress_accuracy = None if predictions.stress is None else accuracy(*predictions.of("stress"))
    return OperatingPoint(on, temperature, threshold, accuracy(*predictions.of("validation")), stress_accuracy)
