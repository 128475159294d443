"""Draw the plots of a trial from the values that its worker logged.

The driver does it, in a thread of its own, while the next trial trains.
"""

from __future__ import annotations


def draw_plots(values: bytes) -> dict[str, bytes]:
    """Return the plots of a trial as PNG, by path in the run.

    Args:
        values: What `TrialValues.to_bytes` returned.
    """
    from pneumo.evidence.trial_plots import trial_plots
    from pneumo.evidence.trial_values import TrialValues
    from pneumo.spec.names import Artifacts

    plots = trial_plots(TrialValues.from_bytes(values))
    return {Artifacts.plot(name): png for name, png in plots.items()}
