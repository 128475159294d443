"""Which files of a folder or a zip are pictures by their names, and what the others are.

Every file is either a picture, or left out with a reason of its own, or counted by kind, so that nothing is dropped in silence.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

from pneumo.data.archive import FOLDER_LINK, Archive
from pneumo.data.decoding import FORMATS, PREAMBLE, UnreadableError

EMPTY = "empty: it has 0 bytes"
"""Why a picture file without content is left out."""

NO_SUFFIX = "without a suffix"
"""The kind of a file without a suffix that is no DICOM file."""

FORMAT_NAMES = f"{', '.join(dict.fromkeys(name for name in FORMATS.values() if name != 'DICOM'))} or DICOM"
"""The formats that are read, for people."""

_PATIENTS_TABLE = "patients.csv"
"""Read for the patients, and so not counted."""

_OTHER_PICTURES = re.compile(
    r"\.(avif|bpg|dng|eps|exr|hei[cf]|ico|ima|img|j2[ck]|jls|jp[2fx]|jx[lr]|mh[ad]|nii|nii\.gz|np[yz]|nrrd|p[bgnp]m|pcx|pdf|psd|raw|"
    r"svg|tga)"
)
"""Suffixes of picture formats that are not read."""


@dataclass(frozen=True)
class PictureFiles:
    """The files of an archive by what they are. All names are POSIX names relative to the archive.

    Attributes:
        pictures: Files with a picture's suffix.
        unnamed: Files without a suffix. Each may be a DICOM file (`is_dicom`).
        empty: Files with a picture's suffix and no content.
        left_out: Name and reason for each file that may be a picture and is not safe to read.
        others: Number of the other files by kind.
    """

    pictures: tuple[str, ...]
    unnamed: tuple[str, ...]
    empty: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    others: dict[str, int]


def list_pictures(archive: Archive) -> PictureFiles:
    """Sort the files of an archive by what they are, by their names. None is read."""
    pictures: list[str] = []
    unnamed: list[str] = []
    empty: list[str] = []
    others = Counter(dict(archive.ignored))
    for file in archive.files:
        path = PurePosixPath(file)
        if path.suffix.lower() in FORMATS:
            (empty if file in archive.empty else pictures).append(file)
        elif path.name.casefold() == _PATIENTS_TABLE:
            continue
        elif "." not in path.name and path.name.casefold() != "dicomdir" and file not in archive.empty:
            unnamed.append(file)
        else:
            others[_kind(path.name)] += 1
    named = []
    for file, reason in archive.left_out:
        name = PurePosixPath(file).name
        if reason == FOLDER_LINK or "." not in name or PurePosixPath(name).suffix.lower() in FORMATS:
            named.append((file, reason))
        else:
            others["not safe to read"] += 1
    return PictureFiles(tuple(pictures), tuple(unnamed), tuple(empty), tuple(named), others)


def is_dicom(archive: Archive, file: str) -> bool:
    """Return whether a file's content is that of a DICOM file. Raises `RequestError` if the file cannot be read."""
    try:
        return archive.read(file, None)[128:132] == PREAMBLE
    except UnreadableError:
        return False


def _kind(name: str) -> str:
    """Return the kind of a file that is no picture: its suffix, or what stands for it."""
    lower = name.lower()
    suffix = ".nii.gz" if lower.endswith(".nii.gz") else PurePosixPath(lower).suffix
    if _OTHER_PICTURES.fullmatch(suffix):
        return f"{suffix} (not read)"
    if re.fullmatch(r"\.\d+", suffix):
        return "with a number as suffix (not read; a DICOM file needs .dcm or no suffix)"
    if re.fullmatch(r"\.[a-z0-9_+~-]{1,12}", suffix):
        return suffix
    return "with another suffix" if "." in name else NO_SUFFIX
