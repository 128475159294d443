"""Print predictions on standard output, a row for each picture: as a table, CSV or JSON."""

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
    """The formats that predictions can be printed in."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True)
class PredictionRow:
    """The prediction for one picture: `probability` of the positive class and `label`, or an `error` if there is none."""

    name: str
    probability: float | None
    label: str | None
    threshold: float
    error: str | None


PrintRows = Callable[[Sequence[PredictionRow]], None]
"""Prints the rows of a batch."""


@contextmanager
def open_output(format_: Format, names: Sequence[str]) -> Iterator[PrintRows]:
    """Give a function that prints rows, and end the output properly when the context ends, whatever ends it.

    The rows are flushed when the function returns. It raises `BrokenPipeError` if the reader closed the pipe, and
    `RequestError` if standard output cannot be written; nothing is printed afterwards.

    Args:
        format_: The format.
        names: Names of all pictures that may be printed. The longest one sets the width of the table's first column.
    """
    match format_:
        case Format.TABLE:
            (header, format_rows), separator, end = _table(names), "", ""
        case Format.CSV:
            header, format_rows, separator, end = _csv([], head=True), _csv, "", ""
        case Format.JSON:
            header, format_rows, separator, end = "[\n", _json, ",\n", "\n]\n"
    # A name that the encoding of standard output cannot represent must not stop the predictions.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    header_once = iter([header])
    try:
        yield lambda rows: _print(next(header_once, separator) + format_rows(rows))
    finally:
        _print(next(header_once, "") + end)


def _print(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # Python flushes the buffer again when it exits; the rest of the buffer must then go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise RequestError(f"standard output: cannot be written: {error.strerror}") from None


def _table(names: Sequence[str]) -> tuple[str, Callable[[Sequence[PredictionRow]], str]]:
    """Return the header, and a function that formats rows as lines."""
    from rich.cells import cell_len

    from pneumo.data.archive import printable

    width = max(cell_len(printable(name)) for name in ["name", *names])

    def format_line(name: str, probability: str, label: str) -> str:
        return f"{name}{' ' * (width - cell_len(name))}  {probability:>11}  {label}\n"

    def format_row(row: PredictionRow) -> str:
        probability = "" if row.probability is None else f"{row.probability:.4f}"
        return format_line(printable(row.name), probability, row.label or f"cannot be read: {row.error}")

    return format_line("name", "probability", "label"), lambda rows: "".join(map(format_row, rows))


def _csv(rows: Sequence[PredictionRow], *, head: bool = False) -> str:
    """Return the header, or a line for each row."""
    from pneumo.evidence.tables import rows_csv

    return rows_csv([asdict(row) for row in rows], ("name", "probability", "label", "threshold"), head=head)


def _json(rows: Sequence[PredictionRow]) -> str:
    """Return the rows as items of an array, without its brackets."""
    return ",\n".join(json.dumps(asdict(row)) for row in rows)
