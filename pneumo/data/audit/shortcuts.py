"""Shortcuts: how well the class can be told from what is no lung.

A network learns whatever tells the classes apart, also a hospital's marker in a corner or the way its scanner crops (Zech et
al. 2018, doi:10.1371/journal.pmed.1002683; DeGrave et al. 2021, doi:10.1038/s42256-021-00338-7). Three small models are given
no lung to look at: `files` sees how a picture is stored, `brightness` two numbers, and `frame` the margin. Each predicts
pictures of patients that it was not fitted on. A network may find more than such a model does, so a low figure proves nothing.
A disease may change these features too, so a high one is a reason to look, and no fault. Only the training pool is used: no
model is fitted to the sealed test pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.data.audit.findings import Finding, Shortcut
from pneumo.data.audit.measure import THUMBNAIL, Measurements
from pneumo.data.pictures import Picture

SUSPICIOUS = 0.6
"""A warning is given if the whole interval of an AUC is above this."""

FEWEST = 20
"""Fewest patients of each class. With fewer, the interval is too wide to say anything."""

FOLDS = 5

FRAME = 0.15
"""Width of the margin as a share of the side."""

SEEN = {
    "files": "width, height, shape, mode and bytes per pixel",
    "brightness": "mean and deviation of the grey values",
    "frame": f"the outer {100 * FRAME:.0f} % of the picture",
}
"""What each model sees, by its name."""

_SIDE = 32
"""Side in pixels of the thumbnails whose margin is looked at."""

_TYPICAL = 6
"""Pictures of each class that a finding names."""


def find_shortcuts(
    pictures: Sequence[Picture], measurements: Measurements
) -> tuple[tuple[Shortcut, ...], list[Finding]]:
    """Return how well each model tells the class, and a warning for each that tells it well.

    Args:
        pictures: The pictures of the training pool: the first ones that were measured.
        measurements: The measurements of all pictures.

    Returns:
        A `Shortcut` for each entry of `SEEN`, and the findings. Both are empty if a class has fewer than `FEWEST` patients.
    """
    from threadpoolctl import threadpool_limits

    rows = np.array([n for n, p in enumerate(pictures) if p.name not in measurements.unreadable], np.int64)
    labels = np.array([pictures[row].label for row in rows], np.int64)
    _, patients = np.unique([pictures[row].patient for row in rows], return_inverse=True)
    if min(len(set(patients[labels == label])) for label in (0, 1)) < FEWEST:
        return (), []
    shortcuts, findings = [], []
    with threadpool_limits(1):  # more threads hardly help at this size, and they wait for each other on a busy machine
        for name, (model, features) in _probes(measurements, rows).items():
            scores = _predict_apart(model, features, labels, patients)
            auc, low, high = clustered_auc(labels, scores, patients)
            shortcuts.append(Shortcut(name, SEEN[name], auc, low, high))
            if low > SUSPICIOUS:
                message = (
                    f"the class can be told with an AUC of {auc:.3f} (95 % interval {low:.3f} to {high:.3f}; chance is 0.5) "
                    f"from {SEEN[name]} alone: a network may learn that and not the lungs"
                )
                typical = tuple(pictures[rows[n]].name for n in _typical(labels, scores))
                findings.append(Finding(f"shortcut-{name}", "warning", message, typical))
    return tuple(shortcuts), findings


def clustered_auc(
    labels: NDArray[np.int64], scores: NDArray[np.float64], patients: NDArray[np.int64]
) -> tuple[float, float, float]:
    """Return the area under the ROC curve and its 95 % interval, if a patient may have several pictures.

    Source of the variance: Obuchowski 1997, Biometrics 53:567-578.

    Args:
        labels: 0 or 1, (n,). Both occur.
        scores: Higher for class 1, (n,).
        patients: Numbers of the patients from 0, (n,).
    """
    from scipy.stats import rankdata

    is_positive = labels == 1
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    # For each picture, the share of the other class that it is ranked rightly against; a tie counts half.
    within = np.empty(len(scores))
    within[is_positive], within[~is_positive] = rankdata(scores[is_positive]), rankdata(scores[~is_positive])
    below = rankdata(scores) - within
    share = np.where(is_positive, below / negatives, 1 - below / positives)
    auc = float(share[is_positive].mean())
    count = patients.max() + 1
    sums, groups = [], []
    for selected in (is_positive, ~is_positive):
        sums.append(np.bincount(patients[selected], share[selected] - auc, count))
        groups.append(len(np.unique(patients[selected])))
    all_groups = len(np.unique(patients))
    variance = (
        groups[0] / (groups[0] - 1) * (sums[0] ** 2).sum() / positives**2
        + groups[1] / (groups[1] - 1) * (sums[1] ** 2).sum() / negatives**2
        + 2 * all_groups / (all_groups - 1) * (sums[0] * sums[1]).sum() / (positives * negatives)
    )
    error = 1.959964 * float(np.sqrt(max(variance, 0.0)))
    return auc, max(auc - error, 0.0), min(auc + error, 1.0)


def _probes(measurements: Measurements, rows: NDArray[np.int64]) -> dict[str, tuple[Any, NDArray[np.float64]]]:
    """Return the models with their features, by name."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.tree import DecisionTreeClassifier

    width, height = measurements.sizes[rows].T.astype(np.float64)
    per_pixel = measurements.file_sizes[rows] / (width * height)
    modes = np.array([measurements.modes[row] for row in rows])[:, None] == np.unique(measurements.modes)
    files = np.column_stack([np.log(width), np.log(height), np.log(width / height), np.log(per_pixel), modes])
    block = THUMBNAIL // _SIDE
    small = measurements.thumbnails[rows].reshape(-1, _SIDE, block, _SIDE, block).mean(axis=(2, 4))
    margin = round(FRAME * _SIDE)
    outside = np.ones((_SIDE, _SIDE), bool)
    outside[margin:-margin, margin:-margin] = False
    tree = DecisionTreeClassifier(max_depth=5, min_samples_leaf=0.01, random_state=0)
    return {
        "files": (tree, files),
        "brightness": (tree, measurements.statistics[rows, :2]),
        # The covariance of the 540 pixels is shrunk as Ledoit and Wolf say, so that few pictures suffice.
        "frame": (LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"), small[:, outside]),
    }


def _predict_apart(
    model: Any, features: NDArray[np.float64], labels: NDArray[np.int64], patients: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the probability of class 1 for each picture, by a model that saw no picture of its patient."""
    from sklearn.model_selection import StratifiedGroupKFold

    varying = features[:, np.ptp(features, axis=0) > 0]
    if not varying.shape[1]:
        return np.zeros(len(labels))
    scores = np.empty(len(labels))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for fitted, predicted in folds.split(varying, labels, patients):
        model.fit(varying[fitted], labels[fitted])
        scores[predicted] = model.predict_proba(varying[predicted])[:, 1]
    return scores


def _typical(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> list[int]:
    """Return the pictures of each class that its model is most certain of, and right."""
    return [
        int(n)
        for label, order in ((0, np.argsort(scores, kind="stable")), (1, np.argsort(-scores, kind="stable")))
        for n in order[labels[order] == label][:_TYPICAL]
    ]
