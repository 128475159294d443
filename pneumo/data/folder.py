"""A folder of one's own, or a zip of one: `<split>/<class>/...` or just `<class>/...`.

The shallowest folder that holds pictures of both classes is taken, whatever lies around it is called. Splits are `train`,
`val` and `test` by their usual names. Where there is a `train` folder and no `test`, there are no test pictures; where there
are no splits at all, the test pictures are cut by patient, always the same ones: what is sealed must not move with the
seed of a search.

A patient is whom `patients.csv` (columns `file,patient`) or the DICOM header states, else whom the file's name tells.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pneumo.data.archive import Archive, open_archive, printable
from pneumo.data.decoding import PREAMBLE, UnreadableError
from pneumo.data.dicom_patients import SUFFIXES, patients_in
from pneumo.data.pictures import Picture, Source, patient_of
from pneumo.data.split import FEWEST_TO_CHOOSE_BY, patients_cut
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec
from pneumo.spec.result import CLASSES

PATIENTS = "patients.csv"

_WANTED = "a folder or zip of <split>/<class>/... or <class>/..."
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SUFFIXES = {".jpeg", ".jpg", ".png", *SUFFIXES}


@dataclass(frozen=True)
class _Found:
    """A file in a layout: its name below the layout's root, its label, and its split, "" where there are none."""

    file: str
    name: str
    label: int
    split: str


def open_folder(spec: DataSpec, path: Path) -> Source:
    """The folder or zip at `path`, its pictures listed and none of them decoded. Raises `RequestError`."""
    archive = open_archive(path, _WANTED)
    classes = spec.classes or CLASSES
    root, found = _layout(archive.files, classes, spec.classes is not None, str(path))
    found = [one for one in found if _is_picture(one.file, archive)]
    by_file = {one.file: one for one in found}
    digests = archive.digests(by_file)
    pictures = [
        Picture(one.name, one.label, patient_of(one.name), digests[one.file])
        for one in sorted(found, key=lambda one: one.name)
    ]
    files = {one.name: one.file for one in found}
    in_header = patients_in({files[p.name]: p.digest for p in pictures if _is_dicom(p.name)}, archive.read)
    stated = {by_file[file].name: patient for file, patient in in_header.items()}
    listed = _listed(archive, root, by_file, str(path))
    stated |= listed
    pictures = [replace(picture, patient=stated.get(picture.name, picture.patient)) for picture in pictures]
    notes = []
    if listed and len(listed) < len(pictures):
        notes.append(
            f"{PATIENTS}: {len(pictures) - len(listed):,} of {len(pictures):,} pictures are not in it; their patients are "
            f"told by file names or headers"
        )
    splits = {one.name: one.split for one in found}
    pool, sealed, kept = _parts(pictures, splits, spec.test, notes)
    return Source(
        kind="folder",
        description=path.resolve().name,
        pictures=tuple(pool),
        sealed=tuple(sealed),
        read=lambda picture: archive.read(files[picture.name], picture.digest),
        classes=classes,
        validation=kept,
        stated=frozenset(stated),
        left_out=tuple((name, reason) for name, reason in archive.left_out if _may_be_picture(name)),
        notes=tuple(notes),
    )


def _layout(files: Iterable[str], classes: Sequence[str], given: bool, where: str) -> tuple[str, list[_Found]]:
    """The root of the shallowest layout with pictures of both classes, and its files."""
    labels = {name.casefold(): label for label, name in enumerate(classes)}
    layouts: dict[tuple[str, ...], list[_Found]] = defaultdict(list)
    others: Counter[str] = Counter()
    for file in files:
        parts = PurePosixPath(file).parts
        if not _may_be_picture(file):
            continue
        at = next((i for i, part in enumerate(parts[:-1]) if part.casefold() in labels), None)
        if at is None:
            others["/".join(parts[:-1])] += 1
            continue
        split = _SPLITS.get(parts[at - 1].casefold(), "") if at else ""
        start = at - 1 if split else at
        layouts[parts[:start]].append(_Found(file, "/".join(parts[start:]), labels[parts[at].casefold()], split))
    complete = [root for root, found in layouts.items() if _trains(found)]
    if not complete:
        raise RequestError(f"{where}: {_lacking(layouts, classes, given, others)}")
    shallowest = [root for root in complete if len(root) == min(map(len, complete))]
    if len(shallowest) > 1:
        first, second = ("/".join(root) for root in sorted(shallowest)[:2])
        raise RequestError(f"{where}: holds several sets of pictures ({first}, {second}); give the path of one")
    found = layouts[shallowest[0]]
    whole = {split for split in ("train", "test") for one in found if one.split == split}
    if whole and any(not one.split for one in found):
        beside = next(one.name for one in found if not one.split)
        raise RequestError(f"{where}: {printable(beside)} stands beside the split folders; put it into one of them")
    tested = {one.label for one in found if one.split == "test"}
    if len(tested) == 1:
        raise RequestError(
            f"{where}: test has no pictures of {classes[1 - tested.pop()]}; wants both, or no test folder"
        )
    return "/".join(shallowest[0]), found


def _trains(found: Sequence[_Found]) -> bool:
    return {one.label for one in found if one.split in ("train", "")} == {0, 1}


def _lacking(
    layouts: Mapping[tuple[str, ...], Sequence[_Found]], classes: Sequence[str], given: bool, others: Counter[str]
) -> str:
    present = {one.label for found in layouts.values() for one in found if one.split in ("train", "")}
    if len(present) == 1:
        return f"no training pictures of {classes[1 - present.pop()]}; wants {_WANTED}"
    if not others:
        return f"there are no pictures (.jpeg, .png or DICOM); wants {_WANTED}"
    named = ", ".join(printable(PurePosixPath(folder).name or ".") for folder, _ in others.most_common(4))
    wanted = " and ".join(classes)
    if given:
        return f"there are no folders {wanted}, as data.classes says, but {named}"
    return (
        f"there are no folders {wanted}, but {named}; name the two classes, the negative one first: "
        f"data: {{classes: [A, B]}}"
    )


def _parts(
    pictures: Sequence[Picture], splits: Mapping[str, str], share: float, notes: list[str]
) -> tuple[list[Picture], list[Picture], frozenset[str]]:
    """The pool, the sealed pictures, and the names of those kept for validation."""
    if not any(splits.values()):
        tested = patients_cut(pictures, share, seed=0)
        notes.append(
            f"no test folder: the pictures of {len(tested):,} patients, always the same, are kept as the test set"
        )
        pool = [picture for picture in pictures if picture.patient not in tested]
        return pool, [picture for picture in pictures if picture.patient in tested], frozenset()
    pool = [picture for picture in pictures if splits[picture.name] != "test"]
    sealed = [picture for picture in pictures if splits[picture.name] == "test"]
    val = [picture for picture in pool if splits[picture.name] == "val"]
    if not val:
        return pool, sealed, frozenset()
    patients = {picture.patient for picture in pool if splits[picture.name] != "val"}
    twice = sorted({picture.patient for picture in val} & patients)
    fewest = min(sum(picture.label == label for picture in val) for label in (0, 1))
    if twice:
        why = f"{len(twice)} of its patients stand in train too ({printable(twice[0])})"
    elif fewest < FEWEST_TO_CHOOSE_BY:
        why = f"{fewest} pictures of a class are too few to choose by (at least {FEWEST_TO_CHOOSE_BY})"
    else:
        return pool, sealed, frozenset(picture.name for picture in val)
    notes.append(f"val: {why}; its pictures join training, and validation is cut by patient")
    return pool, sealed, frozenset()


def _listed(archive: Archive, root: str, by_file: Mapping[str, _Found], where: str) -> dict[str, str]:
    """Patients by picture, as `patients.csv` says; empty where there is none."""
    tables = [name for name in dict.fromkeys((PATIENTS, f"{root}/{PATIENTS}")) if name in archive.files]
    if not tables:
        return {}
    table = tables[-1]
    here = f"{where}: {table}"
    try:
        text = archive.read(table, None).decode("utf-8-sig")
    except (UnreadableError, UnicodeDecodeError) as error:
        raise RequestError(f"{here}: cannot be read: {error}") from None
    rows = csv.DictReader(io.StringIO(text))
    if not {"file", "patient"} <= set(rows.fieldnames or ()):
        raise RequestError(f"{here}: wants the columns file,patient")
    by_name: dict[str, list[str]] = defaultdict(list)
    for file, one in by_file.items():
        for key in {file, one.name, PurePosixPath(file).name}:
            by_name[key].append(one.name)
    patients: dict[str, str] = {}
    for row in rows:
        line = f"{here}:{rows.line_num}"
        file, patient = (row["file"] or "").strip(), (row["patient"] or "").strip()
        names = by_name.get(PurePosixPath(file).as_posix(), [])
        if not patient:
            raise RequestError(f"{line}: {printable(file)} has no patient")
        if len(names) != 1:
            what = (
                f"is the name of {len(names)} pictures; give its folder too"
                if names
                else "is no picture of this folder"
            )
            raise RequestError(f"{line}: {printable(file)!r} {what}")
        if patients.setdefault(names[0], patient) != patient:
            raise RequestError(f"{line}: {printable(file)} stands there twice, with different patients")
    return patients


def _may_be_picture(file: str) -> bool:
    """Whether a file may count, by its name: a DICOM may have no suffix."""
    path = PurePosixPath(file)
    usual = path.suffix.lower() in _SUFFIXES or ("." not in path.name and path.name != "DICOMDIR")
    return usual and not path.name.startswith(".") and "__MACOSX" not in path.parts


def _is_picture(file: str, archive: Archive) -> bool:
    """Whether a file counts: without a suffix, its content has to say that it is a DICOM."""
    if PurePosixPath(file).suffix:
        return True
    try:
        return archive.read(file, None)[128:132] == PREAMBLE
    except UnreadableError:
        return False


def _is_dicom(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in {*SUFFIXES, ""}
