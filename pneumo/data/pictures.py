"""A picture before it is decoded, and a source of pictures.

A source lists its pictures with name, label, patient and content digest, and returns the encoded bytes of one on request.
Only the pictures of the training pool can be read: the test pictures are listed under `sealed`, and reading one raises
`SealedError`. `pneumo.data.sealed` is the only way to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

from pneumo.spec.result import CLASSES

_UNKNOWN = (
    "nothing tells them, so each picture counts as a patient of its own, and one patient may be in several parts; "
    "a patients.csv in a folder or zip can state them"
)

_MOST_KINDS = 8
"""Kinds of files that are counted one by one in a line."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, not decoded.

    Attributes:
        name: POSIX path inside the layout (`train/NORMAL/IM-0115-0001.jpeg`), unique in its source.
        label: 0 for the negative class, 1 for the positive one.
        patient: Identifies the patient within the source. If nothing tells the patient, it is the picture's name: the picture
            counts as a patient of its own.
        digest: Identifies the encoded content. Usually CRC-32 and size, which a zip's directory has, so that a zip and its
            unpacked folder agree.
        known_by: How the patient is known, for people: `patients.csv`, `DICOM headers`, or a convention of names. "" if
            nothing tells the patient.
    """

    name: str
    label: int
    patient: str
    digest: str
    known_by: str = ""


class SealedError(Exception):
    """The requested picture is a sealed test picture, or the source has no picture of this name."""


@dataclass(frozen=True)
class Source:
    """A set of pictures with two classes.

    Attributes:
        kind: The name of the source, as in `data.source`.
        description: One line for people.
        pictures: The training pool, sorted by name.
        sealed: The test pictures, sorted by name.
        read: Returns a picture's bytes. Call `encoded` instead, which refuses sealed pictures.
        classes: The names of the labels 0 and 1.
        validation: Names of the pictures of the pool that the source sets aside for validation. If empty, validation is
            chosen by patient.
        left_out: Name and reason for each picture file that is not used.
        notes: Further lines for people.
        not_taken: Number of the files that are no pictures of the source, by kind.
    """

    kind: str
    description: str
    pictures: tuple[Picture, ...]
    sealed: tuple[Picture, ...]
    read: Callable[[Picture], bytes] = field(repr=False, compare=False)
    classes: tuple[str, str] = CLASSES
    validation: frozenset[str] = frozenset()
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    not_taken: tuple[tuple[str, int], ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines for people: the notes, each picture file that is not used, and how many other files there are."""
        left_out = (f"{name}: left out: {reason}" for name, reason in self.left_out)
        return tuple(filter(None, (*self.notes, *left_out, describe_not_taken(self.not_taken))))

    def encoded(self, picture: Picture) -> bytes:
        """Return the picture's file as bytes. Several threads may call it at once.

        Raises:
            SealedError: The picture is not in the training pool.
            UnreadableError: The content is broken.
            RequestError: The file cannot be read.
        """
        if picture.name not in self._pool:
            raise SealedError(f"{picture.name} is sealed: only the pictures of the training pool can be read")
        return self.read(picture)

    @property
    def test_digest(self) -> str:
        """The digest of the sealed test pictures. `Prepared.digest` is that of the training and validation pictures."""
        return pictures_digest("test", ((picture.name, picture.label, picture.digest) for picture in self.sealed))

    @cached_property
    def _pool(self) -> frozenset[str]:
        return frozenset(picture.name for picture in self.pictures)


def describe_patients(pictures: Sequence[Picture]) -> str:
    """Return how the patients of the pictures are known, for people.

    For example `told by patients.csv`, or `not known: nothing tells them, so each picture counts as a patient of its own`.
    """
    counts = Counter(picture.known_by for picture in pictures)
    unknown = counts.pop("", 0)
    if not counts:
        return f"not known: {_UNKNOWN}"
    several = len(counts) > 1 or unknown
    told = " and ".join(
        f"{known_by} ({count:,} pictures)" if several else known_by for known_by, count in counts.most_common()
    )
    return f"told by {told}" + (f"; not known of {unknown:,} pictures: {_UNKNOWN}" if unknown else "")


def describe_not_taken(not_taken: Iterable[tuple[str, int]]) -> str:
    """Return one line such as `12 files not taken: 7 in hidden folders, 3 .heic (not read), 2 .txt`; "" if there are none."""
    counts = sorted(((kind, count) for kind, count in not_taken if count), key=lambda item: (-item[1], item[0]))
    if not counts:
        return ""
    total = sum(count for _, count in counts)
    listed = [f"{count:,} {kind}" for kind, count in counts[:_MOST_KINDS]]
    if rest := sum(count for _, count in counts[_MOST_KINDS:]):
        listed.append(f"{rest:,} of other kinds")
    return f"{total:,} file{'' if total == 1 else 's'} not taken: {', '.join(listed)}"


def pictures_digest(part: str, pictures: Iterable[tuple[str, int, str]]) -> str:
    """Return 32 hexadecimal digits that identify the pictures (name, label, digest) of a part of the split."""
    lines = [f"{name} {label} {digest}" for name, label, digest in pictures]
    return sha256("\n".join([part, *lines]).encode()).hexdigest()[:32]


def content_digest(crc: int, size: int) -> str:
    """Return CRC-32 and size in bytes as text, for example `a3756483-1c75`."""
    return f"{crc:08x}-{size:x}"
