"""A trial's and a study's figures as CSV text.

File names are not ours to trust: a text cell that a spreadsheet would read as a formula gets an apostrophe in front,
and letters that do not print are written as escapes. Source: OWASP, CSV Injection.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from pneumo.spec.result import CLASSES, Trial
from pneumo.spec.selection import metric_value, pareto_front

Array = NDArray[Any]

_FORMULA_STARTS = ("=", "+", "-", "@")


def history_csv(history: Sequence[Mapping[str, float]]) -> str:
    """One line per epoch; a column per metric in the order of first appearance, empty where an epoch lacks it."""
    return _table(history)


def predictions_csv(
    names: Sequence[str], patients: Sequence[str], labels: Array, probabilities: Array, classes: Sequence[str] = CLASSES
) -> str:
    """One line per picture: name, patient, label (one of `classes`), probability of the second class.

    All four have n entries; labels are 0 or 1. A probability has the fewest digits that give its float32 or float64
    back. Raises `ValueError` where the lengths differ.
    """
    return _table(
        [
            {"name": name, "patient": patient, "label": classes[int(label)], "probability": probability}
            for name, patient, label, probability in zip(names, patients, labels, probabilities, strict=True)
        ],
        columns=("name", "patient", "label", "probability"),
    )


def trials_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """One line per trial; a column per key in the order of first appearance, empty where a trial lacks it."""
    return _table(rows)


def pareto_csv(trials: Sequence[Trial], objectives: Sequence[str]) -> str:
    """One line per trial of the Pareto front: number, each objective, run id, then the active hyperparameters."""
    front = pareto_front(trials, objectives)
    rows = [
        {"trial": trial.number}
        | {objective: metric_value(trial.result, objective, objectives) for objective in objectives}
        | {"run_id": trial.result.run_id}
        | dict(trial.candidate.hyperparameters)
        for trial in front
    ]
    return _table(rows, columns=() if rows else ("trial", *objectives, "run_id"))


def confirm_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """One line per training: `trial` (the number of the one trained again), `seed`, `value`, `run_id`, by these keys.

    A value that is missing or None, as of a training that failed, leaves its cell empty.
    """
    return _table(rows, columns=("trial", "seed", "value", "run_id"))


def cell(value: object) -> str:
    """A value as it stands in a cell."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value)  # of a NumPy number, too, the fewest digits that give it back
    # A line break within a name could begin a line of its own, and a name that is no UTF-8 has surrogates, which no
    # file can hold: whatever does not print is written as an escape.
    text = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def rows_csv(rows: Sequence[Mapping[str, object]], columns: Sequence[str], *, head: bool = True) -> str:
    """One line per row, of these keys; without the `head` for rows that are appended."""
    return _table(rows, columns, head=head)


def _table(rows: Sequence[Mapping[str, object]], columns: Sequence[str] = (), *, head: bool = True) -> str:
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return ""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if head:
        writer.writerow(columns)
    writer.writerows([cell(row.get(column)) for column in columns] for row in rows)
    return out.getvalue()
