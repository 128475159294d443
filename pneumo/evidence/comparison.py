"""Compare a trial with the baseline on the validation predictions that both runs recorded.

The artifacts of the runs are handed over as a function that reads them, so that every verb can compare.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.evidence.intervals import Interval, auc_difference, interval_unit, mean_auc_difference
from pneumo.evidence.metrics import Array
from pneumo.evidence.stress import StressPredictions
from pneumo.evidence.tables import csv_cell
from pneumo.spec.comparison import Comparison
from pneumo.spec.errors import RequestError
from pneumo.spec.names import Artifacts, Metrics
from pneumo.spec.stress import GEOMETRIC_CHANGES

ReadArtifact = Callable[[str, str], bytes]
"""Returns the content of an artifact, given the id of a run and the artifact's path in it. Raises `RequestError`."""

COMPARED_METRICS = (Metrics.VAL_AUC, Metrics.VAL_STRESS_AUC)
"""The metrics that can be compared with an interval."""


def compare_runs(
    read: ReadArtifact, trial: str, baseline: str, metric: str, classes: Sequence[str]
) -> Comparison | None:
    """Compare the runs of a trial and of the baseline.

    Args:
        read: Reads an artifact of a run, such as `functools.partial(read_artifact_bytes, store)` of `tracking.runs`.
        trial: Id of the trial's run.
        baseline: Id of the baseline's run.
        metric: One of `COMPARED_METRICS`; any other gives None.
        classes: Names of the two classes.

    Returns:
        The comparison. None if predictions are missing or damaged, are of other pictures, or have one class only.
    """
    if metric not in COMPARED_METRICS:
        return None
    try:
        tables = [_parse_table(read(run, Artifacts.PREDICTIONS), classes) for run in (trial, baseline)]
        if metric == Metrics.VAL_AUC:
            return _compare_plain(*tables)
        stressed = [StressPredictions.from_bytes(read(run, Artifacts.STRESS_PREDICTIONS)) for run in (trial, baseline)]
        return _compare_stressed(stressed[0], stressed[1], tables[0])
    except (RequestError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


@dataclass(frozen=True, eq=False)
class _Table:
    """`predictions.csv`: names and patients, str (n,); labels, int64 (n,); probabilities, float64 (n,)."""

    names: Array
    patients: Array
    labels: Array
    probabilities: Array


def _parse_table(content: bytes, classes: Sequence[str]) -> _Table:
    rows = list(csv.DictReader(content.decode().splitlines()))
    positive = csv_cell(classes[1])
    return _Table(
        np.array([row["name"] for row in rows], np.str_),
        np.array([row["patient"] for row in rows], np.str_),
        np.array([row["label"] == positive for row in rows], np.int64),
        np.array([row["probability"] for row in rows], np.float64),
    )


def _compare_plain(ours: _Table, theirs: _Table) -> Comparison | None:
    if not (np.array_equal(ours.names, theirs.names) and np.array_equal(ours.labels, theirs.labels)):
        return None
    interval = auc_difference(ours.labels, ours.probabilities, theirs.probabilities, ours.patients)
    return _comparison(Metrics.VAL_AUC, interval, ours.names, ours.patients, is_same_pictures=True)


def _compare_stressed(ours: StressPredictions, theirs: StressPredictions, table: _Table) -> Comparison | None:
    """Compare the mean AUC over the geometric changes, of which `val_stress_auc` is the mean."""
    if ours.suite != theirs.suite:
        return None
    patient_of = dict(zip(table.names.tolist(), table.patients.tolist(), strict=True))
    # predictions.csv has the names as cells, which differ from the names if those look like a formula.
    our_cells, their_cells = (np.array([csv_cell(name) for name in each.names.tolist()]) for each in (ours, theirs))
    common, our_rows, their_rows = np.intersect1d(our_cells, their_cells, return_indices=True)
    labels = ours.labels[our_rows]
    if not len(common) or not np.array_equal(labels, theirs.labels[their_rows]):
        return None
    patients = np.array([patient_of[name] for name in common.tolist()], np.str_)
    rows = [
        np.stack([each.probabilities[each.changes.index(change)][chosen] for change in GEOMETRIC_CHANGES])
        for each, chosen in ((ours, our_rows), (theirs, their_rows))
    ]
    interval = mean_auc_difference(labels, rows[0], rows[1], patients)
    is_same = len(common) == len(ours.names) == len(theirs.names)
    return _comparison(Metrics.VAL_STRESS_AUC, interval, common, patients, is_same_pictures=is_same)


def _comparison(
    metric: str, interval: Interval, names: Array, patients: Array, *, is_same_pictures: bool
) -> Comparison | None:
    if not np.isfinite((interval.value, interval.low, interval.high)).all():
        return None
    return Comparison(
        metric,
        interval.value,
        interval.low,
        interval.high,
        # A picture whose patient is not known counts as a patient of its own, by its name.
        interval_unit(int(np.sum(names == patients)), len(names)),
        len(names),
        is_same_pictures,
        is_stressed=metric == Metrics.VAL_STRESS_AUC,
    )
