"""Compare the best trial of a study with the tutorial's network, from what their runs recorded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from pneumo.spec.comparison import Comparison
from pneumo.spec.result import Trial

if TYPE_CHECKING:
    from pneumo.tracking.store import Store


def compare_with_baseline(
    store: Store, best: Trial, baseline: Trial, metric: str, classes: Sequence[str]
) -> Comparison | None:
    """Return the difference between two trials with its interval.

    It takes about a second. None if the trials are the same, one of them is not complete, the metric is not one of
    `evidence.comparison.COMPARED_METRICS`, or MLflow cannot give the predictions.

    Args:
        store: The MLflow store.
        best: The best trial; the id of its run must be MLflow's, not a key of the outbox.
        baseline: The trial of the tutorial's network, with the same kind of id.
        metric: The objective that they are compared by.
        classes: Names of the two classes.
    """
    from pneumo.evidence.comparison import compare_runs
    from pneumo.tracking.runs import read_artifact_bytes

    if best.number == baseline.number or {best.result.state, baseline.result.state} != {"complete"}:
        return None
    read = partial(read_artifact_bytes, store)
    return compare_runs(read, best.result.run_id, baseline.result.run_id, metric, classes)
