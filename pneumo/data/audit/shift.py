"""How the splits and classes look: the table of them, splits that differ, pictures far outside the rest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pneumo.data.archive import printable
from pneumo.data.audit.copies import BLANK
from pneumo.data.audit.findings import Finding, GroupRow
from pneumo.data.audit.look import Looks
from pneumo.data.pictures import Picture

FIGURES = ("brightness", "contrast", "sharpness")

MOST_ERRORS = 3.3
"""Standard errors by which two splits may differ: of the 18 comparisons of an audit (three figures, two classes, three pairs
of splits) 2 % show one beyond it by chance."""

FEWEST = 10
"""Patients of a split and class whose mean is compared."""

OUTLIER, MOST_OUTLIERS = 5.0, 20
"""Robust standard deviations (1.4826 x the median's absolute deviation) from the median, and how many are named. Were the
five figures of 5,840 pictures normally distributed, one audit in 60 would name a picture."""


def rows_of(
    pictures: Sequence[Picture], parts: Mapping[str, str], classes: Sequence[str], looks: Looks
) -> list[GroupRow]:
    """The table of splits and classes."""
    in_part = Counter(parts[picture.name] for picture in pictures)
    rows = []
    for part in ("train", "val", "test"):
        for label, name in enumerate(classes):
            some = [n for n, p in enumerate(pictures) if parts[p.name] == part and p.label == label]
            if not some:
                continue
            readable = [n for n in some if pictures[n].name not in looks.unreadable]
            width, height = np.median(looks.sizes[readable], axis=0).tolist() if readable else (0.0, 0.0)
            brightness, contrast, sharpness = looks.figures[readable].mean(axis=0).tolist() if readable else (0.0,) * 3
            rows.append(
                GroupRow(
                    part=part,
                    label=name,
                    pictures=len(some),
                    patients=len({pictures[n].patient for n in some}),
                    share=len(some) / in_part[part],
                    width=width,
                    height=height,
                    modes=dict(Counter(looks.modes[n] for n in readable).most_common()),
                    brightness=brightness,
                    contrast=contrast,
                    sharpness=sharpness,
                )
            )
    return rows


def shifts(
    pictures: Sequence[Picture], parts: Mapping[str, str], classes: Sequence[str], looks: Looks
) -> list[Finding]:
    """Splits whose pictures of one class differ by more than their standard error allows; patients are the unit."""
    found = []
    for label, name in enumerate(classes):
        means = {part: _patient_means(pictures, parts, label, part, looks) for part in ("train", "val", "test")}
        for one, other in combinations([part for part, mean in means.items() if len(mean) >= FEWEST], 2):
            for column, figure in enumerate(FIGURES):
                a, b = means[one][:, column], means[other][:, column]
                spread = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
                error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
                away = (b.mean() - a.mean()) / max(error, 1e-9)
                if abs(away) <= MOST_ERRORS:
                    continue
                size = abs(b.mean() - a.mean()) / max(spread, 1e-9)
                said = (
                    f"{printable(name)}: {figure} is {'higher' if away > 0 else 'lower'} in {other} than in {one} by "
                    f"{size:.2f} standard deviations of patients ({away:+.1f} standard errors): the two are not alike, "
                    f"and a figure from one need not hold in the other"
                )
                found.append(Finding("shift", "warning", said))
    return found


def balances(rows: Sequence[GroupRow]) -> list[Finding]:
    """Splits whose share of the positive class differs by more than their standard errors allow."""
    of = {part: [row.pictures for row in rows if row.part == part] for part in ("train", "val", "test")}
    found = []
    for one, other in combinations([part for part, counts in of.items() if len(counts) == 2], 2):
        (a, a_all), (b, b_all) = ((of[part][1], sum(of[part])) for part in (one, other))
        both = (a + b) / (a_all + b_all)
        error = np.sqrt(both * (1 - both) * (1 / a_all + 1 / b_all))
        if abs(a / a_all - b / b_all) > MOST_ERRORS * error:
            name = printable([row.label for row in rows if row.part == one][1])
            said = (
                f"{name} is {a / a_all:.0%} of {one} and {b / b_all:.0%} of {other}: accuracy, precision and F1 of one need "
                f"not hold in the other; sensitivity, specificity and AUC do not depend on it"
            )
            found.append(Finding("class-balance", "note", said))
    return found


def _patient_means(
    pictures: Sequence[Picture], parts: Mapping[str, str], label: int, part: str, looks: Looks
) -> NDArray[np.float64]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, picture in enumerate(pictures):
        if parts[picture.name] == part and picture.label == label and picture.name not in looks.unreadable:
            rows[picture.patient].append(row)
    return np.array([looks.figures[some].mean(axis=0) for some in rows.values()]).reshape(-1, len(FIGURES))


def odd_ones(pictures: Sequence[Picture], looks: Looks) -> list[Finding]:
    """Pictures that show nothing, and those far outside the rest, the farthest first."""
    readable = np.array([n for n, p in enumerate(pictures) if p.name not in looks.unreadable], np.int64)
    blank = readable[looks.figures[readable, 1] < BLANK]
    found = [
        Finding(
            "blank",
            "fault",
            f"{printable(pictures[n].name)}: shows nothing (contrast {looks.figures[n, 1]:.1f} of 255)",
            (pictures[n].name,),
        )
        for n in blank
    ]
    rest = np.setdiff1d(readable, blank)
    if len(rest) < FEWEST:
        return found
    coarse = looks.thumbnails[rest].reshape(-1, 16, 4, 16, 4).mean(axis=(2, 4)).reshape(len(rest), -1)
    coarse -= coarse.mean(axis=1, keepdims=True)
    coarse /= np.linalg.norm(coarse, axis=1, keepdims=True) + 1e-9
    mean = np.median(coarse, axis=0)
    likeness = np.arctanh(np.clip(coarse @ mean / np.linalg.norm(mean), -0.999, 0.999))
    width, height = looks.sizes[rest].T.astype(np.float64)
    figures = {
        "size": np.log(width * height),
        "shape": np.log(width / height),
        "brightness": looks.figures[rest, 0],
        "contrast": np.log(looks.figures[rest, 1]),
        "likeness to the typical picture": likeness,
    }
    away = {name: np.abs(_robust(values)) for name, values in figures.items()}
    away["likeness to the typical picture"][likeness > np.median(likeness)] = 0.0  # only too little is odd
    worst = np.max(list(away.values()), axis=0)
    for n in np.argsort(-worst)[:MOST_OUTLIERS]:
        if worst[n] < OUTLIER:
            break
        name = max(away, key=lambda figure: away[figure][n])
        picture = pictures[rest[n]].name
        said = f"{printable(picture)}: far outside the rest in {name} ({int(width[n])} x {int(height[n])} pixels)"
        found.append(Finding("outlier", "warning", said, (picture,)))
    return found


def _robust(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many robust standard deviations each value is from the median; plain ones where most values are equal."""
    away = values - np.median(values)
    spread = 1.4826 * float(np.median(np.abs(away)))
    return away / (spread or float(away.std()) or 1.0)
