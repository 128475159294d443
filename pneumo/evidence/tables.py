"""Write the figures of trials and studies as CSV text.

File names may be hostile: a text cell that a spreadsheet would read as a formula gets an apostrophe in front, and letters
that do not print are written as escapes. Source: OWASP, CSV Injection.
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
    """Return one line per epoch and one column per metric, in order of first appearance. Missing values are empty."""
    return _table(history)


def predictions_csv(
    names: Sequence[str], patients: Sequence[str], labels: Array, probabilities: Array, classes: Sequence[str] = CLASSES
) -> str:
    """Return one line per picture: name, patient, label and probability of the second class.

    A probability is written with the fewest digits that restore its float32 or float64.

    Args:
        names: Names of the pictures, n entries.
        patients: Their patients, n entries.
        labels: 0 or 1, shape (n,).
        probabilities: Floats, shape (n,).
        classes: Names of the two classes.

    Raises:
        ValueError: The lengths differ.
    """
    return _table(
        [
            {"name": name, "patient": patient, "label": classes[int(label)], "probability": probability}
            for name, patient, label, probability in zip(names, patients, labels, probabilities, strict=True)
        ],
        columns=("name", "patient", "label", "probability"),
    )


def trials_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Return one line per trial and one column per key, in order of first appearance. Missing values are empty."""
    return _table(rows)


def pareto_csv(trials: Sequence[Trial], objectives: Sequence[str]) -> str:
    """Return one line per trial of the Pareto front: number, objectives, run id, active hyperparameters."""
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
    """Return one line per confirmation training.

    Args:
        rows: Mappings with the keys `trial` (number of the trial that was trained again), `seed`, `value` and `run_id`. A
            value that is missing or None, as that of a failed training, leaves its cell empty.
    """
    return _table(rows, columns=("trial", "seed", "value", "run_id"))


def csv_cell(value: object) -> str:
    """Return the text of a cell."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value)  # for NumPy numbers too the fewest digits that restore them
    # A line break in a name could start a line of its own, and a name that is not UTF-8 has surrogates, which cannot be
    # encoded; so all letters that do not print are written as escapes.
    text = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def rows_csv(rows: Sequence[Mapping[str, object]], columns: Sequence[str], *, head: bool = True) -> str:
    """Return one line per row with the given columns, and a header line if `head` is True."""
    return _table(rows, columns, head=head)


def _table(rows: Sequence[Mapping[str, object]], columns: Sequence[str] = (), *, head: bool = True) -> str:
    """Return rows as CSV. Without `columns`, those are the keys in order of first appearance."""
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return ""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if head:
        writer.writerow(columns)
    writer.writerows([csv_cell(row.get(column)) for column in columns] for row in rows)
    return out.getvalue()
