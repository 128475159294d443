"""Find the pictures that a command line names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from pneumo.data.decoding import FORMATS, RECIPE, UnreadableError, decode
from pneumo.spec.errors import RequestError

SUFFIXES = tuple(FORMATS)
"""Suffixes of picture files, in lower case."""


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """Return the named pictures, with each folder replaced by the pictures below it in sorted order.

    A picture of a folder that cannot be opened safely, for example a symbolic link, is named on standard error and left
    out. Raises `RequestError` if a path does not exist, is not a picture by its suffix, or is a folder without pictures.
    """
    pictures: list[Path] = []
    for path in paths:
        if path.is_dir():
            pictures += _pictures_of_folder(path)
        elif not path.is_file():
            raise RequestError(f"{path}: {'not a file' if path.exists() else 'there is no such file or folder'}")
        elif path.suffix.lower() not in SUFFIXES:
            raise RequestError(f"{path}: not a picture by its suffix; expected {', '.join(SUFFIXES)}, or a folder")
        else:
            pictures.append(path)
    return pictures


def decoded_otherwise(paths: Sequence[Path], decoding: ModuleType, sizes: Sequence[int]) -> list[Path]:
    """Return the pictures that a model reads otherwise than the present decoder, because its own copy is an earlier one.

    Args:
        paths: The pictures. One that the model's decoder cannot read is not returned, because it is not predicted.
        decoding: The model's copy of `pneumo.data.decoding`.
        sizes: Sides of the networks' inputs in pixels.
    """
    if decoding.RECIPE == RECIPE:
        return []
    otherwise = []
    for path in paths:
        try:
            encoded = path.read_bytes()
            theirs = decoding.decode(encoded, sizes, str(path)).squares
        except (decoding.UnreadableError, ImportError, OSError):
            continue
        try:
            ours = decode(encoded, sizes, str(path)).squares
        except UnreadableError:
            otherwise.append(path)
        else:
            if any(
                np.abs(own.astype(int) - other).max() > 1 for own, other in zip(ours, theirs, strict=True)
            ):  # one grey level is what rounding may change
                otherwise.append(path)
    return otherwise


def _pictures_of_folder(folder: Path) -> list[Path]:
    from pneumo.data.archive import open_archive, printable
    from pneumo.data.picture_files import NO_SUFFIX, is_dicom, list_pictures
    from pneumo.data.pictures import describe_not_taken

    archive = open_archive(folder, "pictures")
    files = list_pictures(archive)
    for name, reason in files.left_out:
        print(f"{printable(str(folder / name))}: left out: {reason}", file=sys.stderr)
    dicom = [name for name in files.unnamed if is_dicom(archive, name)]
    not_taken = describe_not_taken((files.others | {NO_SUFFIX: len(files.unnamed) - len(dicom)}).items())
    # An empty picture is predicted like another broken one: its row has the error.
    names = sorted((*files.pictures, *files.empty, *dicom))
    if not names:
        listed = f"; {not_taken}" if not_taken else ""
        raise RequestError(f"{folder}: no pictures in this folder; expected {', '.join(SUFFIXES)}{listed}")
    if not_taken:
        print(f"{printable(str(folder))}: {not_taken}", file=sys.stderr)
    return [folder / name for name in names]
