"""A user's own folder, or a zip of one: `<split>/<class>/...` or just `<class>/...`.

The shallowest folder with pictures of both classes is used, whatever the folders around it are called. Splits are folders
named `train`, `val` or `test`, or a usual variant. If there is a `train` folder and no `test` folder, there are no test
pictures. If there are no split folders at all, the test pictures are chosen by patient with a fixed seed: the sealed test
set must not change with the seed of a search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from pneumo.data.archive import open_archive, printable
from pneumo.data.layout import SPLITS, Entry, find_layout, training_labels
from pneumo.data.patients import identify_patients
from pneumo.data.picture_files import FORMAT_NAMES
from pneumo.data.pictures import Picture, Source
from pneumo.data.split import FEWEST_TO_CHOOSE_BY, choose_patients
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec
from pneumo.spec.result import CLASSES

_EXPECTED = "a folder or zip of <split>/<class>/... or <class>/..."


def open_folder(spec: DataSpec, path: Path) -> Source:
    """Return the folder or zip at `path`, its pictures listed and none of them decoded. Raises `RequestError`."""
    archive = open_archive(path, _EXPECTED)
    classes = spec.classes or CLASSES
    describe_missing = partial(_describe_missing, classes=classes, classes_given=spec.classes is not None)
    layout = find_layout(archive, str(path), classes, SPLITS, describe_missing)
    root, entries = layout.root, sorted(layout.entries, key=lambda entry: entry.name)
    _check_splits(entries, classes, str(path))
    digests = archive.digests([entry.file for entry in entries])
    files = {entry.name: entry.file for entry in entries}
    patients, notes = identify_patients(archive, files, digests, classes, root, str(path))
    pictures = [
        Picture(entry.name, entry.label, patients[entry.name].id, digests[entry.file], patients[entry.name].known_by)
        for entry in entries
    ]
    splits = {entry.name: entry.split for entry in entries}
    pool, sealed, validation = _assign_parts(pictures, splits, spec.test, classes, notes)
    return Source(
        kind="folder",
        description=path.resolve().name,
        pictures=tuple(pool),
        sealed=tuple(sealed),
        read=lambda picture: archive.read(files[picture.name], picture.digest),
        classes=classes,
        validation=validation,
        left_out=layout.left_out,
        notes=(*notes, *layout.notes),
        not_taken=layout.not_taken,
    )


def _check_splits(entries: Sequence[Entry], classes: Sequence[str], path: str) -> None:
    """Refuse pictures beside the split folders, and test pictures of one class alone."""
    has_splits = any(entry.split in ("train", "test") for entry in entries)
    outside = next((entry.name for entry in entries if not entry.split), None)
    if has_splits and outside is not None:
        raise RequestError(f"{path}: {printable(outside)} is outside the split folders; move it into one of them")
    test_labels = {entry.label for entry in entries if entry.split == "test"}
    if len(test_labels) == 1:
        raise RequestError(
            f"{path}: test has no pictures of {classes[1 - test_labels.pop()]}; expected both classes, or no test folder"
        )


def _describe_missing(
    layouts: Mapping[tuple[str, ...], Sequence[Entry]],
    other_folders: Counter[str],
    classes: Sequence[str],
    classes_given: bool,
) -> str:
    """Say why no layout has training pictures of both classes."""
    present = training_labels(entry for entries in layouts.values() for entry in entries)
    if len(present) == 1:
        return f"no training pictures of {classes[1 - present.pop()]}; expected {_EXPECTED}"
    if not other_folders:
        return f"there are no pictures ({FORMAT_NAMES}); expected {_EXPECTED}"
    actual = ", ".join(printable(PurePosixPath(folder).name or ".") for folder, _ in other_folders.most_common(4))
    expected = " and ".join(classes)
    if classes_given:
        return f"there are no folders {expected}, which data.classes names, but {actual}"
    return (
        f"there are no folders {expected}, but {actual}; name the two classes, the negative one first: "
        f"data: {{classes: [A, B]}}"
    )


def _assign_parts(
    pictures: Sequence[Picture], splits: Mapping[str, str], share: float, classes: Sequence[str], notes: list[str]
) -> tuple[list[Picture], list[Picture], frozenset[str]]:
    """Return the training pool, the test pictures, and the names of the pictures of a `val` folder that can be used.

    `share` is the share of the patients who go to the test set if there are no split folders. Lines for people are appended
    to `notes`.
    """
    if not any(splits.values()):
        patients = choose_patients(pictures, share, seed=0, classes=classes)
        known = any(picture.known_by for picture in pictures if picture.patient in patients)
        chosen = f"the pictures of {len(patients):,} patients" if known else f"{len(patients):,} pictures"
        notes.append(f"no test folder: {chosen}, always the same, are kept as the test set")
        pool = [picture for picture in pictures if picture.patient not in patients]
        return pool, [picture for picture in pictures if picture.patient in patients], frozenset()
    pool = [picture for picture in pictures if splits[picture.name] != "test"]
    sealed = [picture for picture in pictures if splits[picture.name] == "test"]
    val = [picture for picture in pool if splits[picture.name] == "val"]
    if not val:
        return pool, sealed, frozenset()
    train_patients = {picture.patient for picture in pool if splits[picture.name] != "val"}
    shared = sorted({picture.patient for picture in val} & train_patients)
    fewest = min(sum(picture.label == label for picture in val) for label in (0, 1))
    if shared:
        reason = f"{len(shared)} of its patients stand in train too ({printable(shared[0])})"
    elif fewest < FEWEST_TO_CHOOSE_BY:
        reason = f"{fewest} pictures of a class are too few to choose by (at least {FEWEST_TO_CHOOSE_BY})"
    else:
        return pool, sealed, frozenset(picture.name for picture in val)
    notes.append(f"val: {reason}; its pictures join training, and validation is cut by patient")
    return pool, sealed, frozenset()
