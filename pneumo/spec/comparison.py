"""A trial compared with the tutorial's network, with an interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """The difference between the AUC of a trial and that of the baseline, on the validation pictures that both predicted.

    The interval says how much the difference depends on the patients that are in the validation part. It does not say what
    another training of the same network would give (a confirmation does), and it takes no account of the choice of the best
    trial among many.

    Attributes:
        metric: `val_auc`, or `val_stress_auc` for pictures under the geometric changes of the stress suite.
        difference: The trial's AUC minus the baseline's.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        unit: What was resampled, for people: `by patient`, or `by picture` if no patient is known.
        pictures: Number of the pictures that both predicted.
        is_same_pictures: Whether these are all pictures that each of the two was judged on. Under the stress suite a network
            that costs more is judged on fewer.
        is_stressed: Whether the pictures were changed by the stress suite.
    """

    metric: str
    difference: float
    low: float
    high: float
    unit: str
    pictures: int
    is_same_pictures: bool
    is_stressed: bool

    @property
    def includes_zero(self) -> bool:
        """Whether the interval includes 0: other patients might show the opposite."""
        return self.low <= 0 <= self.high
