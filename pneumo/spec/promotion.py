"""The `promote` block of an experiment, and the outcome of a promotion."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from pneumo.spec.errors import Fault, SettingError, check_known_key, quote
from pneumo.spec.selection import Rule

FIGURES: tuple[str, ...] = (
    "accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "f1",
    "auc",
    "average_precision",
    "brier",
    "calibration_error",
)
"""Names of the figures that a promotion computes on the test pictures. Of the last two, lower is better."""

FLOORS = FIGURES[:-2]
"""Names of the figures that `promote.floors` may set a minimum for."""

ChosenOn = Literal["stress", "validation"]
"""Validation pictures that an operating point is chosen on: under the changes of the stress suite, or as they are."""

MOST_MEMBERS = 50
"""Largest number of networks in an ensemble."""

ThresholdKind = Literal["youden", "f1", "sensitivity", "specificity", "fixed"]

_AT_LEAST = re.compile(r"\s*(sensitivity|specificity)\s*>=\s*(\d+(?:\.\d+)?|\.\d+)\s*")
_THRESHOLD_FORMS = "youden, f1, sensitivity>=0.95, specificity>=0.9 or a number between 0 and 1"


@dataclass(frozen=True)
class ThresholdRule:
    """How the operating point is chosen on validation pictures.

    Attributes:
        kind: `youden` and `f1` maximize that figure. `sensitivity` and `specificity` reach at least `value`. `fixed` is the
            probability `value` itself.
        value: Between 0 and 1; None for `youden` and `f1`.
    """

    kind: ThresholdKind
    value: float | None = None


class PromoteSpec(Rule):
    """The `promote` block of an experiment: which trial is the best, its operating point, and the gate that it must pass.

    Without `max` and `min`, the study's first objective decides which trial is the best.
    """

    ensemble: Annotated[
        Annotated[int, Field(ge=2, le=MOST_MEMBERS)] | Literal["seeds"] | None,
        Field(
            description="Promote several networks as one model, whose probability is their weighted mean. A number means up to "
            "so many of the study's complete runs and confirmations, picked greedily by the log loss on the pictures that `on` "
            "names; seeds means the best trial's confirmations; null means the best trial alone."
        ),
    ] = None
    threshold: Annotated[
        str | float,
        Field(
            description="Operating point: probability from which a picture is classified as pneumonia, chosen on validation "
            f"pictures: {_THRESHOLD_FORMS}."
        ),
    ] = "youden"
    on: Annotated[
        ChosenOn,
        Field(
            description="Pictures that the threshold, the temperature and the members of an ensemble are chosen on: stress "
            "means the validation pictures under all changes of the stress suite, validation the plain ones. A threshold that "
            "is a number does not depend on it."
        ),
    ] = "stress"
    calibration: Annotated[
        Literal["none", "temperature"],
        Field(
            description="Calibration of the probabilities: temperature scaling, fitted on validation pictures, or none."
        ),
    ] = "none"
    gate: Annotated[
        Literal["better", "significant"],
        Field(
            description="What the trial must prove on the test pictures: better requires a higher AUC than the reference; "
            "significant also requires that the 95 % interval of the difference lies above 0."
        ),
    ] = "better"
    floors: Annotated[
        dict[
            Annotated[str, AfterValidator(lambda name: check_known_key(name, FLOORS))],
            Annotated[float, Field(ge=0, le=1)],
        ],
        Field(
            description="Minimum values of figures on the test pictures, from 0 to 1, by name.",
            json_schema_extra={"propertyNames": {"enum": list(FLOORS)}},
        ),
    ] = Field(default_factory=dict)

    @field_validator("ensemble", mode="before")
    @classmethod
    def _check_ensemble(cls, ensemble: Any) -> Any:
        is_number = isinstance(ensemble, int) and not isinstance(ensemble, bool)
        if not (ensemble in (None, "seeds") or (is_number and 2 <= ensemble <= MOST_MEMBERS)):
            message = f"needs a number from 2 to {MOST_MEMBERS}, seeds or null, got {quote(repr(ensemble))}"
            raise SettingError(Fault((), message))
        return ensemble

    @field_validator("threshold", mode="before")
    @classmethod
    def _check_threshold(cls, threshold: Any) -> Any:
        parse_threshold(threshold)
        return threshold

    @model_validator(mode="after")
    def _check(self) -> PromoteSpec:
        if self.max is not None or self.min is not None or self.subject_to:
            self._check_metrics()
        return self

    @property
    def rule(self) -> Rule | None:
        """The rule that decides which trial is the best; None if the objective decides."""
        return None if self.max is None and self.min is None else self


def parse_threshold(threshold: str | float) -> ThresholdRule:
    """Return the rule that `promote.threshold` describes. Raise `SettingError` if it is invalid."""
    if isinstance(threshold, int | float) and not isinstance(threshold, bool):
        value, kind = float(threshold), "fixed"
    elif threshold in ("youden", "f1"):
        return ThresholdRule(threshold)  # type: ignore[arg-type]
    elif match := _AT_LEAST.fullmatch(str(threshold)):
        kind, value = match[1], float(match[2])
    else:
        raise SettingError(Fault((), f"needs {_THRESHOLD_FORMS}, got {quote(repr(threshold))}"))
    if not 0 < value < 1:
        raise SettingError(Fault((), f"needs {_THRESHOLD_FORMS}, got {quote(repr(threshold))}"))
    return ThresholdRule(kind, value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Promotion:
    """The outcome of a promotion.

    Attributes:
        model: Name of the registered model.
        version: Version of the model that was registered.
        alias: Alias that the version has now; `challenger` if the gate refused it.
        run_id: Id of the promotion's own run, which has the figures.
        refused: Reasons why the gate refused the version; empty if it passed.
        forced: The user's reason for promoting a version that the gate refused.
        replaced: Version that had the alias before.
    """

    model: str
    version: str
    alias: str
    run_id: str
    refused: tuple[str, ...] = ()
    forced: str | None = None
    replaced: str | None = None
