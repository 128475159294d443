"""Predictions on standard output, a row for each picture: a table, CSV or JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum

from pneumo.spec.errors import RequestError


class Format(StrEnum):
    """How predictions are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True)
class PredictionRow:
    """What is said of one picture: `probability` of the positive class and `label`, or `error`, why there is none."""

    name: str
    probability: float | None
    label: str | None
    threshold: float
    error: str | None


@contextmanager
def printed(format_: Format, names: Sequence[str]) -> Iterator[Callable[[Sequence[PredictionRow]], None]]:
    """A function that prints rows; at the end, however that comes, what was printed is made whole.

    `names` are of all pictures that may come. Rows stand on standard output when the function returns. It raises
    `BrokenPipeError` where the reader has gone, and `RequestError` where standard output cannot be written; nothing is
    printed afterwards.
    """
    match format_:
        case Format.TABLE:
            (head, rows_text), between, end = _table(names), "", ""
        case Format.CSV:
            head, rows_text, between, end = _csv([], head=True), _csv, "", ""
        case Format.JSON:
            head, rows_text, between, end = "[\n", _json, ",\n", "\n]\n"
    # A name that the reader's encoding does not know must not end it.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    parts = iter([head])
    try:
        yield lambda rows: _put(next(parts, between) + rows_text(rows))
    finally:
        _put(next(parts, "") + end)


def _put(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # What is left in the buffer must not be tried again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise RequestError(f"standard output: cannot be written: {error.strerror}") from None


def _table(names: Sequence[str]) -> tuple[str, Callable[[Sequence[PredictionRow]], str]]:
    """The header, and a function from rows to lines; the first column is as wide as the longest of all names."""
    from rich.cells import cell_len

    from pneumo.data.archive import printable

    width = max(cell_len(printable(name)) for name in ["name", *names])

    def line(name: str, probability: str, label: str) -> str:
        return f"{name}{' ' * (width - cell_len(name))}  {probability:>11}  {label}\n"

    def text(row: PredictionRow) -> str:
        probability = "" if row.probability is None else f"{row.probability:.4f}"
        return line(printable(row.name), probability, row.label or f"cannot be read: {row.error}")

    return line("name", "probability", "label"), lambda rows: "".join(map(text, rows))


def _csv(rows: Sequence[PredictionRow], *, head: bool = False) -> str:
    """The header, or a line for each row."""
    from pneumo.evidence.tables import rows_csv

    return rows_csv([asdict(row) for row in rows], ("name", "probability", "label", "threshold"), head=head)


def _json(rows: Sequence[PredictionRow]) -> str:
    """The rows as items of an array, without its brackets."""
    return ",\n".join(json.dumps(asdict(row)) for row in rows)
