"""A picture before it is decoded, and a source of pictures.

A source lists its pictures by name, label, patient and content digest, and gives the encoded bytes of one when asked.
It gives only those of the training pool: the test pictures are listed under `sealed`, and asking for one raises
`SealedError`. `pneumo.data.sealed` is the one road to them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import PurePosixPath

from pneumo.spec.result import CLASSES

_PATIENT = re.compile(r"(person\d+)_|((?:NORMAL2-)?IM-\d+)-|(phantom\d+)_", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, not decoded.

    `name` is the POSIX path inside the layout (`train/NORMAL/IM-0115-0001.jpeg`) and unique in its source. `digest` tells
    the encoded content: CRC-32 and size, as a zip's directory has them, so that a zip and its unpacked folder agree.
    """

    name: str
    label: int
    patient: str
    digest: str


class SealedError(Exception):
    """A test picture was asked for where test pictures are sealed, or a name that the source does not have."""


@dataclass(frozen=True)
class Source:
    """Where pictures come from.

    `pictures` is the training pool, `sealed` the test pictures; both sorted by name. `description` is one line for people.
    `read` gives a picture's bytes and is handed over by whoever makes the source; callers use `encoded`, which keeps the
    seal.

    `classes` are the names of the labels 0 and 1. `validation` are the names of pictures of the pool that the source
    itself sets aside for validation; where it is empty, validation is cut by patient. `stated` are the names of pictures
    whose patient is stated, by a table or a DICOM header, and not merely told by numbers in a file's name. `left_out` are
    files that count as pictures and are not taken, name and reason; `notes` what else a person should know, a line each.
    """

    kind: str
    description: str
    pictures: tuple[Picture, ...]
    sealed: tuple[Picture, ...]
    read: Callable[[Picture], bytes] = field(repr=False, compare=False)
    classes: tuple[str, str] = CLASSES
    validation: frozenset[str] = frozenset()
    stated: frozenset[str] = frozenset()
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def encoded(self, picture: Picture) -> bytes:
        """The picture's file as bytes. May be called from several threads at once.

        Raises `SealedError` for a picture outside the pool, `UnreadableError` where the content is broken and
        `RequestError` where the file cannot be read.
        """
        if picture.name not in self._pool:
            raise SealedError(f"{picture.name} is sealed: only the pictures of the training pool can be read")
        return self.read(picture)

    @property
    def test_digest(self) -> str:
        """Tells the sealed test pictures, as `Prepared.digest` tells those that a search sees."""
        return pictures_digest("test", ((one.name, one.label, one.digest) for one in self.sealed))

    @cached_property
    def _pool(self) -> frozenset[str]:
        return frozenset(picture.name for picture in self.pictures)


def patient_of(name: str) -> str:
    """The patient that a picture's name tells, or the whole name where it tells none.

    `person12_virus_30.jpeg` and `person12_bacteria_31.jpeg` are of one patient, `person12`.
    """
    match = _PATIENT.match(PurePosixPath(name).name)
    return next(part for part in match.groups() if part) if match else name


def pictures_digest(part: str, pictures: Iterable[tuple[str, int, str]]) -> str:
    """32 hexadecimal digits that tell the pictures of a part of the split, of which each is name, label and digest."""
    lines = [f"{name} {label} {digest}" for name, label, digest in pictures]
    return sha256("\n".join([part, *lines]).encode()).hexdigest()[:32]


def content_digest(crc: int, size: int) -> str:
    """CRC-32 and size in bytes, as `a3756483-1c75`."""
    return f"{crc:08x}-{size:x}"
