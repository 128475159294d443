"""The public archive `paultimothymooney/chest-xray-pneumonia`, as the zip or as the unpacked folder.

The layout is `chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`, whatever the folders around it are called. The
shallowest folder with `train` pictures of both classes is used. The archive's nested second copy is not taken, nor are
`__MACOSX`, `._*` and files that are no pictures; they are counted. `val` has 16 pictures, too few to choose by; they join the
training pool.

Nothing is decoded here. A zip's directory has each content digest. In a folder every file is read once, and its digest is
stored until the file's size or time changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from pneumo.data.archive import open_archive, printable
from pneumo.data.decoding import FORMATS
from pneumo.data.layout import Entry, find_layout, training_labels
from pneumo.data.patient_names import Patient
from pneumo.data.patients import identify_patients
from pneumo.data.pictures import Picture, Source
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec
from pneumo.spec.result import CLASSES

_EXPECTED = "the Kaggle zip paultimothymooney/chest-xray-pneumonia or its folder"
_LAYOUT = "chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}; any other layout needs data: {source: folder}"
_PARTS = {part: part for part in ("train", "val", "test")}
_FORMATS = ", ".join(dict.fromkeys(name for name in FORMATS.values() if name != "DICOM"))


def open_kaggle(_: DataSpec, path: Path) -> Source:
    """Return the archive at `path`, a zip or a folder. Raises `RequestError`."""
    archive = open_archive(path, _EXPECTED)
    layout = find_layout(archive, str(path), CLASSES, _PARTS, _describe_missing, needs_split=True, dicom=False)
    files = _name_files(layout.entries, layout.root, str(path))
    digests = archive.digests(files.values())
    patients, notes = identify_patients(archive, files, digests, CLASSES, layout.root, str(path))
    pictures = tuple(_picture(name, patients[name], digests[file]) for name, file in sorted(files.items()))
    return Source(
        kind="kaggle",
        description=path.resolve().name,
        pictures=tuple(picture for picture in pictures if not picture.name.startswith("test/")),
        sealed=tuple(picture for picture in pictures if picture.name.startswith("test/")),
        read=lambda picture: archive.read(files[picture.name], picture.digest),
        left_out=layout.left_out,
        notes=(*notes, *layout.notes),
        not_taken=layout.not_taken,
    )


def _picture(name: str, patient: Patient, digest: str) -> Picture:
    return Picture(name, CLASSES.index(PurePosixPath(name).parts[1]), patient.id, digest, patient.known_by)


def _name_files(entries: Sequence[Entry], root: str, path: str) -> dict[str, str]:
    """Map the picture names (`train/NORMAL/a.jpeg`) to the archive's files."""
    files: dict[str, str] = {}
    for entry in entries:
        name = "/".join((entry.split, CLASSES[entry.label], *entry.below))
        other = files.setdefault(name, entry.file)
        if other != entry.file:
            raise RequestError(
                f"{path}: {printable(other)} and {printable(entry.file)} are the same picture by name; remove one"
            )
    test_labels = {entry.label for entry in entries if entry.split == "test"}
    if len(test_labels) == 1:
        empty = "/".join(filter(None, (root, "test", CLASSES[1 - test_labels.pop()])))
        raise RequestError(f"{path}: {empty} has no pictures; expected {_LAYOUT}, or no test folder at all")
    return files


def _describe_missing(layouts: Mapping[tuple[str, ...], Sequence[Entry]], _: Counter[str]) -> str:
    """Say why no layout is complete; of several, the shallowest with training pictures is described."""
    partial = {root: labels for root, entries in layouts.items() if (labels := training_labels(entries))}
    if not partial:
        return f"there are no training pictures ({_FORMATS}); expected {_LAYOUT}"
    shallowest = min(partial, key=len)
    empty = CLASSES[1 - next(iter(partial[shallowest]))]
    return f"{'/'.join((*shallowest, 'train', empty))} has no pictures; expected {_LAYOUT}"
