"""The `promote` block of an experiment, and what comes of a promotion."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pneumo.spec.selection import Rule
from pneumo.spec.space import nearest

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
"""What promotion says of the test pictures, by name; the last two are better the lower they are."""

FLOORS = FIGURES[:-2]
"""Of which a least value can be asked."""

ThresholdKind = Literal["youden", "f1", "sensitivity", "specificity", "fixed"]

_AT_LEAST = re.compile(r"\s*(sensitivity|specificity)\s*>=\s*(\d*\.?\d+)\s*")
_WANTED = "youden, f1, sensitivity>=0.95, specificity>=0.9 or a number between 0 and 1"


@dataclass(frozen=True)
class ThresholdRule:
    """How the operating point is found on validation pictures: by a figure that is to be largest (`youden`, `f1`), by one
    that has to reach `value` (`sensitivity`, `specificity`), or not at all: `fixed` at `value`."""

    kind: ThresholdKind
    value: float | None = None


class PromoteSpec(Rule):
    """Which trial is the best, where its operating point lies, and what it has to prove before it is promoted.

    Without `max` and `min` the objective says which trial is the best.
    """

    threshold: Annotated[str | float, Field(description=f"the operating point, found on validation: {_WANTED}")] = (
        "youden"
    )
    calibration: Annotated[
        Literal["none", "temperature"], Field(description="temperature: probabilities scaled on validation")
    ] = "none"
    gate: Annotated[
        Literal["better", "significant"],
        Field(description="better: a higher AUC on the test pictures; significant: beyond luck, too"),
    ] = "better"
    floors: Annotated[
        dict[str, Annotated[float, Field(ge=0, le=1)]], Field(description="least values on the test pictures")
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> PromoteSpec:
        if self.max is not None or self.min is not None or self.subject_to:
            self._check_metrics()
        threshold_rule(self.threshold)
        for name in self.floors:
            if name not in FLOORS:
                raise ValueError(f"floors: there is no {name!r}; there is {', '.join(FLOORS)}{nearest(name, FLOORS)}")
        return self

    @property
    def rule(self) -> Rule | None:
        """The rule of which trial is the best; None where the objective says it."""
        return None if self.max is None and self.min is None else self


def threshold_rule(said: str | float) -> ThresholdRule:
    """What an experiment says of the threshold. Raises `ValueError` that begins with the key."""
    if isinstance(said, int | float) and not isinstance(said, bool):
        value, kind = float(said), "fixed"
    elif said in ("youden", "f1"):
        return ThresholdRule(said)  # type: ignore[arg-type]
    elif match := _AT_LEAST.fullmatch(str(said)):
        kind, value = match[1], float(match[2])
    else:
        raise ValueError(f"threshold: wants {_WANTED}, got {said!r}")
    if not 0 < value < 1:
        raise ValueError(f"threshold: wants {_WANTED}, got {said!r}")
    return ThresholdRule(kind, value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Promotion:
    """What came of a promotion.

    `version` of the registered `model` got `alias`, which `replaced` (a version) had before; or it was `refused`, the
    reasons, and `alias` is `challenger`. `run_id` is that of the promotion's own run, which has the figures. `forced` is
    why it was promoted although the gate refused it.
    """

    model: str
    version: str
    alias: str
    run_id: str
    refused: tuple[str, ...] = ()
    forced: str | None = None
    replaced: str | None = None
