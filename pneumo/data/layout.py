"""The layout of a folder or a zip of pictures: `<split>/<class>/...` or `<class>/...`, below any other folders.

Below a class folder there may be further folders, of patients or sites. All pictures in them are of the class. A folder with
another class's name, a split's name, or a name such as `masks` or `labels` shows that they are not: then the layout is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pneumo.data.archive import Archive, printable
from pneumo.data.decoding import FORMATS
from pneumo.data.picture_files import EMPTY, NO_SUFFIX, is_dicom, list_pictures
from pneumo.data.pictures import describe_not_taken
from pneumo.spec.errors import RequestError

SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The usual names of split folders, in lower case."""

_NO_PICTURES_OF_THE_CLASS = re.compile(
    r"(annotation|gradcam|groundtruth|heatmap|label|mask|overlay|preview|segmentation|thumb|thumbnail)s?"
)
"""Words in the names of folders of drawings, or of pictures that are there twice."""

_MOST_NAMED = 3
"""Folders that a line names."""


@dataclass(frozen=True)
class Entry:
    """A picture file in a layout.

    Attributes:
        file: The file's name in the archive.
        root: The folders around the layout.
        folders: The split folder, if there is one, and the class folder.
        below: The folders below the class folder, and the file's own name.
        split: `train`, `val` or `test`, or "" if there are no split folders.
        label: 0 for the negative class, 1 for the positive one.
    """

    file: str
    root: tuple[str, ...]
    folders: tuple[str, ...]
    below: tuple[str, ...]
    split: str
    label: int

    @property
    def name(self) -> str:
        """The file's name below the layout's root."""
        return "/".join((*self.folders, *self.below))


@dataclass(frozen=True)
class Layout:
    """The layout that is used.

    Attributes:
        root: The folders around it, "" if there are none.
        entries: Its picture files.
        left_out: Name in the archive and reason for each picture file that is not used.
        not_taken: Number of the other files by kind, sorted.
        notes: Lines for people.
    """

    root: str
    entries: tuple[Entry, ...]
    left_out: tuple[tuple[str, str], ...]
    not_taken: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]


def find_layout(
    archive: Archive,
    path: str,
    classes: Sequence[str],
    splits: Mapping[str, str],
    describe_missing: Callable[[Mapping[tuple[str, ...], Sequence[Entry]], Counter[str]], str],
    *,
    needs_split: bool = False,
    dicom: bool = True,
) -> Layout:
    """Return the shallowest layout with training pictures of both classes.

    Args:
        archive: The files.
        path: The archive's path, for errors.
        classes: The names of the class folders, in any case, the negative class first.
        splits: The split of each name of a split folder, in lower case.
        describe_missing: Returns why no layout is complete, given the entries by root and the number of pictures by folder
            outside of class folders.
        needs_split: Whether a class folder counts only in a split folder.
        dicom: Whether DICOM files are taken.

    Raises:
        RequestError: There is no such layout or there are several, or a class folder has subfolders that are not of its class.
    """
    files = list_pictures(archive)
    others = Counter(files.others)
    labels = {_key(name): label for label, name in enumerate(classes)}
    layouts: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    other_folders: Counter[str] = Counter()
    for file in (*files.pictures, *files.unnamed):
        entry = _place(file, labels, splits, needs_split)
        suffix = PurePosixPath(file).suffix.lower()
        if not suffix and not (dicom and entry and is_dicom(archive, file)):
            others[NO_SUFFIX] += 1
        elif not dicom and FORMATS.get(suffix) == "DICOM":
            others[f"{suffix} (read by data: {{source: folder}})"] += 1
        elif entry:
            layouts[entry.root].append(entry)
        else:
            other_folders[PurePosixPath(file).parent.as_posix()] += 1
    complete = [root for root, entries in layouts.items() if training_labels(entries) == {0, 1}]
    shallowest = [root for root in complete if len(root) == min(map(len, complete))]
    chosen = shallowest or list(layouts)
    _check_subfolders([entry for root in chosen for entry in layouts[root]], classes, labels, path)
    left_out = sorted((*files.left_out, *((printable(file), EMPTY) for file in files.empty)))
    if not shallowest:
        reason = describe_missing(layouts, other_folders)
        if left_out:
            name, why = left_out[0]
            others[f"left out ({name}: {why})"] = len(left_out)
        not_taken = describe_not_taken(others.items())
        raise RequestError(f"{path}: {reason}{f'; {not_taken}' if not_taken else ''}")
    if len(shallowest) > 1:
        first, second = ("/".join(root) for root in sorted(shallowest)[:2])
        raise RequestError(f"{path}: holds several sets of pictures ({first}, {second}); give the path of one")
    root = shallowest[0]
    for folders, entries in layouts.items():
        if folders != root:
            other_folders["/".join(folders) or "."] += len(entries)
    if other_folders:
        others[f"in other folders ({_list_folders(other_folders)})"] = other_folders.total()
    return Layout(
        root="/".join(root),
        entries=tuple(layouts[root]),
        left_out=tuple(left_out),
        not_taken=tuple(sorted(others.items())),
        notes=_describe_subfolders(layouts[root]),
    )


def training_labels(entries: Iterable[Entry]) -> set[int]:
    """Return the labels of the entries that may be trained on."""
    return {entry.label for entry in entries if entry.split in ("train", "")}


def _key(name: str) -> str:
    """Return a folder's name without differences of case or of Unicode form, which macOS changes."""
    return unicodedata.normalize("NFC", name).casefold()


def _place(file: str, labels: Mapping[str, int], splits: Mapping[str, str], needs_split: bool) -> Entry | None:
    """Return the place of a file in a layout, or None. Of several class folders around it, the outermost counts."""
    parts = PurePosixPath(file).parts
    for at, folder in enumerate(parts[:-1]):
        split = splits.get(_key(parts[at - 1]), "") if at else ""
        if _key(folder) in labels and (split or not needs_split):
            start = at - 1 if split else at
            return Entry(file, parts[:start], parts[start : at + 1], parts[at + 1 :], split, labels[_key(folder)])
    return None


def _check_subfolders(entries: Iterable[Entry], classes: Sequence[str], labels: Mapping[str, int], path: str) -> None:
    """Refuse a class folder with a subfolder whose name says that its pictures are not all of the class."""
    found: Counter[str] = Counter()
    for entry in entries:
        for at, folder in enumerate(entry.below[:-1]):
            key = _key(folder)
            words = (*re.split(r"[^a-z]+", key), re.sub(r"[^a-z]+", "", key))
            other_class = labels.get(key, entry.label) != entry.label
            if other_class or key in SPLITS or any(map(_NO_PICTURES_OF_THE_CLASS.fullmatch, words)):
                found["/".join((*entry.root, *entry.folders, *entry.below[: at + 1]))] += 1
                break
    if found:
        raise RequestError(
            f"{path}: not all pictures in the class folders are of their class, by the names of the subfolders "
            f"{_list_folders(found)}; move these out, or give the path of a folder whose class folders "
            f"{' and '.join(classes)} hold pictures of their class only"
        )


def _describe_subfolders(entries: Sequence[Entry]) -> tuple[str, ...]:
    folders = Counter("/".join((*entry.folders, entry.below[0])) for entry in entries if len(entry.below) > 1)
    if not folders:
        return ()
    counted = f"{folders.total():,} of {len(entries):,} pictures"
    listed = _list_folders(folders)
    return (f"{counted} are in subfolders of the class folders ({listed}), and are taken as pictures of their class",)


def _list_folders(folders: Counter[str]) -> str:
    """Return the first folders by name, with the number of files in each."""
    listed = ", ".join(f"{printable(folder)}: {count:,}" for folder, count in sorted(folders.items())[:_MOST_NAMED])
    return f"{listed} and {len(folders) - _MOST_NAMED:,} more" if len(folders) > _MOST_NAMED else listed
