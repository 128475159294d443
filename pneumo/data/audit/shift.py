"""The table of parts and classes, parts that differ, and pictures far outside the rest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pneumo.data.archive import printable
from pneumo.data.audit.copies import BLANK
from pneumo.data.audit.findings import ClassStatistics, Finding
from pneumo.data.audit.measure import Measurements
from pneumo.data.pictures import Picture

STATISTICS = ("brightness", "contrast", "sharpness")
"""The columns of `Measurements.statistics`."""

PARTS = ("train", "val", "test")

MOST_ERRORS = 3.3
"""Standard errors by which two parts may differ. An audit makes 18 comparisons (three statistics, two classes, three pairs of
parts); by chance, 2 % of audits have a larger difference."""

FEWEST = 10
"""Fewest patients of a part and class whose mean is compared, and fewest pictures among which outliers are sought."""

OUTLIER = 5.0
"""Robust standard deviations (1.4826 times the median absolute deviation) from the median beyond which a picture is an
outlier. If the five statistics of 5,840 pictures were normally distributed, one audit in 60 would name a picture."""

MOST_OUTLIERS = 20
"""Outliers that are named."""


def class_statistics(
    pictures: Sequence[Picture], parts: Mapping[str, str], classes: Sequence[str], measurements: Measurements
) -> list[ClassStatistics]:
    """Return the table of parts and classes. A class without pictures in a part has no row."""
    pictures_in_part = Counter(parts[picture.name] for picture in pictures)
    table = []
    for part in PARTS:
        for label, name in enumerate(classes):
            rows = [row for row, p in enumerate(pictures) if parts[p.name] == part and p.label == label]
            if not rows:
                continue
            readable = [row for row in rows if pictures[row].name not in measurements.unreadable]
            width, height = np.median(measurements.sizes[readable], axis=0).tolist() if readable else (0.0, 0.0)
            means = measurements.statistics[readable].mean(axis=0).tolist() if readable else (0.0, 0.0, 0.0)
            brightness, contrast, sharpness = means
            table.append(
                ClassStatistics(
                    part=part,
                    label=name,
                    pictures=len(rows),
                    patients=len({pictures[row].patient for row in rows}),
                    share=len(rows) / pictures_in_part[part],
                    width=width,
                    height=height,
                    modes=dict(Counter(measurements.modes[row] for row in readable).most_common()),
                    brightness=brightness,
                    contrast=contrast,
                    sharpness=sharpness,
                    unknown=sum(not pictures[row].known_by for row in rows),
                )
            )
    return table


def shift_findings(
    pictures: Sequence[Picture], parts: Mapping[str, str], classes: Sequence[str], measurements: Measurements
) -> list[Finding]:
    """Return the parts whose pictures of one class differ by more than `MOST_ERRORS` standard errors over patients."""
    findings = []
    for label, name in enumerate(classes):
        means = {part: _patient_means(pictures, parts, label, part, measurements) for part in PARTS}
        for first, second in combinations([part for part, mean in means.items() if len(mean) >= FEWEST], 2):
            for column, statistic in enumerate(STATISTICS):
                a, b = means[first][:, column], means[second][:, column]
                deviation = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
                error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
                errors = (b.mean() - a.mean()) / max(error, 1e-9)
                if abs(errors) <= MOST_ERRORS:
                    continue
                size = abs(b.mean() - a.mean()) / max(deviation, 1e-9)
                message = (
                    f"{printable(name)}: {statistic} is {'higher' if errors > 0 else 'lower'} in {second} than in {first} by "
                    f"{size:.2f} standard deviations of patients ({errors:+.1f} standard errors): the two are not alike, "
                    f"and a figure from one need not hold in the other"
                )
                findings.append(Finding("shift", "warning", message))
    return findings


def _patient_means(
    pictures: Sequence[Picture], parts: Mapping[str, str], label: int, part: str, measurements: Measurements
) -> NDArray[np.float64]:
    """Return the mean statistics of each patient's readable pictures of one part and class, float64 (patients, 3)."""
    rows_of_patient: dict[str, list[int]] = defaultdict(list)
    for row, picture in enumerate(pictures):
        if parts[picture.name] == part and picture.label == label and picture.name not in measurements.unreadable:
            rows_of_patient[picture.patient].append(row)
    means = [measurements.statistics[rows].mean(axis=0) for rows in rows_of_patient.values()]
    return np.array(means).reshape(-1, len(STATISTICS))


def balance_findings(table: Sequence[ClassStatistics]) -> list[Finding]:
    """Return the parts whose share of the positive class differs by more than `MOST_ERRORS` standard errors."""
    rows_of_part = {part: [row for row in table if row.part == part] for part in PARTS}
    findings = []
    for first, second in combinations([part for part, rows in rows_of_part.items() if len(rows) == 2], 2):
        (a, a_all), (b, b_all) = (
            (rows_of_part[part][1].pictures, sum(row.pictures for row in rows_of_part[part]))
            for part in (first, second)
        )
        pooled = (a + b) / (a_all + b_all)
        error = np.sqrt(pooled * (1 - pooled) * (1 / a_all + 1 / b_all))
        if abs(a / a_all - b / b_all) > MOST_ERRORS * error:
            name = printable(rows_of_part[first][1].label)
            message = (
                f"{name} is {a / a_all:.0%} of {first} and {b / b_all:.0%} of {second}: accuracy, precision and F1 of one need "
                f"not hold in the other; sensitivity, specificity and AUC do not depend on it"
            )
            findings.append(Finding("class-balance", "note", message))
    return findings


def outlier_findings(pictures: Sequence[Picture], measurements: Measurements) -> list[Finding]:
    """Return the blank pictures, and those far outside the rest, the farthest first."""
    readable = np.array([n for n, p in enumerate(pictures) if p.name not in measurements.unreadable], np.int64)
    blank = readable[measurements.statistics[readable, 1] < BLANK]
    findings = [
        Finding(
            "blank",
            "fault",
            f"{printable(pictures[row].name)}: shows nothing (contrast {measurements.statistics[row, 1]:.1f} of 255)",
            (pictures[row].name,),
        )
        for row in blank
    ]
    rows = np.setdiff1d(readable, blank)
    if len(rows) < FEWEST:
        return findings
    width, height = measurements.sizes[rows].T.astype(np.float64)
    likeness = _likeness(measurements.thumbnails[rows])
    values = {
        "size": np.log(width * height),
        "shape": np.log(width / height),
        "brightness": measurements.statistics[rows, 0],
        "contrast": np.log(measurements.statistics[rows, 1]),
        "likeness to the typical picture": likeness,
    }
    deviations = {name: np.abs(_robust_deviations(value)) for name, value in values.items()}
    # A picture that is more typical than the median is no outlier.
    deviations["likeness to the typical picture"][likeness > np.median(likeness)] = 0.0
    largest = np.max(list(deviations.values()), axis=0)
    for n in np.argsort(-largest)[:MOST_OUTLIERS]:
        if largest[n] < OUTLIER:
            break
        statistic = max(deviations, key=lambda name: deviations[name][n])
        name = pictures[rows[n]].name
        message = f"{printable(name)}: far outside the rest in {statistic} ({int(width[n])} x {int(height[n])} pixels)"
        findings.append(Finding("outlier", "warning", message, (name,)))
    return findings


def _likeness(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the correlation of each thumbnail with the median one, at 16 x 16 pixels, Fisher-transformed."""
    coarse = thumbnails.reshape(-1, 16, 4, 16, 4).mean(axis=(2, 4)).reshape(len(thumbnails), -1)
    coarse -= coarse.mean(axis=1, keepdims=True)
    coarse /= np.linalg.norm(coarse, axis=1, keepdims=True) + 1e-9
    typical = np.median(coarse, axis=0)
    likeness: NDArray[np.float64] = np.arctanh(np.clip(coarse @ typical / np.linalg.norm(typical), -0.999, 0.999))
    return likeness


def _robust_deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each value's distance from the median in robust standard deviations.

    If most values are equal, plain standard deviations are used.
    """
    distances = values - np.median(values)
    deviation = 1.4826 * float(np.median(np.abs(distances)))
    return distances / (deviation or float(distances.std()) or 1.0)
