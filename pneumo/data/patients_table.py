"""`patients.csv`: the table that states the patients of a folder's pictures.

The table has a header with the columns `file` and `patient`, in any case and order; further columns are ignored. Commas,
semicolons or tabs separate the columns, as spreadsheets write them. Lines end in LF, CR LF or CR. The text is UTF-8, or UTF-16
with a byte order mark. A row names a picture by its path in the archive, its path below the layout's root, or its bare name.

A table is never ignored: one in another place, one that cannot be read and one that states nothing are errors.
"""

from __future__ import annotations

import codecs
import csv
import io
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from pneumo.data.archive import Archive, printable
from pneumo.data.decoding import UnreadableError
from pneumo.spec.errors import RequestError

TABLE = "patients.csv"

MOST_BYTES = 64 * 2**20
"""Largest size of the table: 2 million rows of 32 bytes."""

MOST_CHARACTERS = 1_000
"""Largest length of a file's or a patient's name in the table."""

MOST_LINE = 100_000
"""Largest length of a line in characters. Python's parser refuses a value of 131,072."""

_COLUMNS = ("file", "patient")
_EXPECTED = ",".join(_COLUMNS)
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


class _Row(NamedTuple):
    line: int
    file: str
    patient: str


class PatientsTable(NamedTuple):
    """Patients by picture name, and lines for people. Both are empty if there is no table."""

    patients: dict[str, str]
    notes: tuple[str, ...] = ()


def read_patients_table(archive: Archive, root: str, files: Mapping[str, str], path: str) -> PatientsTable:
    """Return what `patients.csv` states.

    Args:
        archive: The files.
        root: The folder of the layout, in which the table may be, as in any folder above it; "" for the archive itself.
        files: The archive's file of each picture name.
        path: The archive's path, for errors.

    Raises:
        RequestError: The table is in another place, cannot be read, names a file that is no picture, or states no patient.
    """
    file, notes = _find_table(archive, root, path)
    if file is None:
        return PatientsTable({}, notes)
    where = f"{path}: {printable(file)}"
    try:
        text = _decode(archive.read(file, None), where)
    except UnreadableError as error:
        raise RequestError(f"{where}: cannot be read: {error}") from None
    rows, separator = _rows(text, where)
    patients = _patients(rows, files, where)
    if not patients:
        raise RequestError(f"{where}: states no patient; expected a row {_EXPECTED} for each picture, or no such file")
    if separator != ",":
        notes += (f"{TABLE}: its columns are separated by {_SEPARATORS[separator]}",)
    return PatientsTable(patients, notes)


def _find_table(archive: Archive, root: str, path: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the table that counts, if there is one, and a note about those that belong to other pictures."""
    left_out = [(name, why) for name, why in archive.left_out if PurePosixPath(name).name.casefold() == TABLE]
    if left_out:
        raise RequestError(f"{path}: {printable(left_out[0][0])}: cannot be used: {left_out[0][1]}")
    layout = PurePosixPath(root)
    places = {"" if folder == PurePosixPath() else folder.as_posix() for folder in (layout, *layout.parents)}
    right, elsewhere = [], []
    for name in archive.files:
        table = PurePosixPath(name)
        if table.name.casefold() != TABLE or "__MACOSX" in table.parts:
            continue
        folder = "" if table.parent == PurePosixPath() else table.parent.as_posix()
        if folder in places and table.name != TABLE:
            raise RequestError(f"{path}: {printable(name)}: is not read under this name; rename it to {TABLE}")
        if folder in places:
            right.append(name)
        elif table.is_relative_to(layout):
            raise RequestError(
                f"{path}: {printable(name)}: is not read there; move its rows to {(layout / TABLE).as_posix()}, which states "
                f"the patients of all pictures"
            )
        else:
            elsewhere.append(name)
    if len(right) > 1:
        raise RequestError(f"{path}: there are {' and '.join(map(printable, sorted(right)))}; expected one of them")
    notes = tuple(f"{printable(name)} is in another folder than these pictures, and is not read" for name in elsewhere)
    return (right[0] if right else None), notes


def _decode(content: bytes, where: str) -> str:
    """Return the table's text with LF line ends."""
    if len(content) > MOST_BYTES:
        raise RequestError(f"{where}: has {len(content):,} bytes; at most {MOST_BYTES:,}")
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RequestError(
            f"{where}:{line}: is no {'UTF-16' if is_utf16 else 'UTF-8'} text; save it as UTF-8"
        ) from None
    if "\0" in text:
        raise RequestError(f"{where}: holds NUL characters, so it is no table; expected text, UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _rows(text: str, where: str) -> tuple[Iterator[_Row], str]:
    """Return the rows below the header, and the separator of the columns."""
    if not text.strip(f'{"".join(_SEPARATORS)} \n"'):
        raise RequestError(f"{where}: is empty; expected the columns {_EXPECTED}")
    for line, content in enumerate(text.split("\n"), 1):
        if len(content) > MOST_LINE:
            raise RequestError(f"{where}:{line}: has {len(content):,} characters; at most {MOST_LINE:,} in a line")
    for separator in _SEPARATORS:
        rows = _parse(text, separator, where)
        columns = [column.casefold() for column in next(rows)[1]]
        if set(_COLUMNS) <= set(columns):
            break
    else:
        columns = next(_parse(text, ",", where))[1]
        found = ", ".join(printable(column[:50]) for column in columns[:4])
        raise RequestError(f"{where}: has the columns {found}; expected the columns {_EXPECTED}")
    for column in _COLUMNS:
        if columns.count(column) > 1:
            raise RequestError(f"{where}: has {columns.count(column)} columns {column}; expected one")
    return _check_rows(rows, columns, where), separator


def _parse(text: str, separator: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each row that is not blank."""
    # With strict=True a quote that is not closed is an error; without, it would swallow the rest of the table.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = f"a quote is not closed, or text follows it ({error})"
            raise RequestError(f"{where}:{line}: {reason}; expected quotes around a whole value, or none") from None
        if any(cell.strip() for cell in cells):
            yield line, [cell.strip() for cell in cells]


def _check_rows(rows: Iterable[tuple[int, list[str]]], columns: Sequence[str], where: str) -> Iterator[_Row]:
    file_at, patient_at = (columns.index(column) for column in _COLUMNS)
    for line, cells in rows:
        if any(cells[len(columns) :]):
            raise RequestError(
                f"{where}:{line}: has {len(cells)} values in {len(columns)} columns; a value with a separator needs quotes"
            )
        file, patient = (cells[column] if column < len(cells) else "" for column in (file_at, patient_at))
        shown = printable(file[:100])
        if not file:
            raise RequestError(f"{where}:{line}: names no file")
        if not patient:
            raise RequestError(f"{where}:{line}: {shown} has no patient")
        if max(len(file), len(patient)) > MOST_CHARACTERS or not patient.isprintable():
            raise RequestError(
                f"{where}:{line}: {shown} or its patient has a line break, a control character or more than "
                f"{MOST_CHARACTERS:,} characters; is a quote not closed?"
            )
        yield _Row(line, file, patient)


def _patients(rows: Iterable[_Row], files: Mapping[str, str], where: str) -> dict[str, str]:
    """Return the patients by picture name."""
    candidates: dict[str, list[str]] = defaultdict(list)
    for name, file in files.items():
        for key in {_key(file), _key(name), _key(PurePosixPath(file).name)}:
            candidates[key].append(name)
    patients: dict[str, str] = {}
    for line, file, patient in rows:
        shown = printable(file)
        matches = candidates.get(_key(file)) or candidates.get(_key(file.replace("\\", "/")), [])
        if not matches:
            raise RequestError(f"{where}:{line}: {shown!r} is no picture of this folder")
        if len(matches) > 1:
            raise RequestError(f"{where}:{line}: {shown!r} is the name of {len(matches)} pictures; give its folder too")
        if patients.setdefault(matches[0], patient) != patient:
            raise RequestError(f"{where}:{line}: {shown} is listed twice, with different patients")
    return patients


def _key(file: str) -> str:
    """Return a path as it is looked up. macOS composes letters with accents otherwise than a table may."""
    return unicodedata.normalize("NFC", PurePosixPath(file).as_posix())
