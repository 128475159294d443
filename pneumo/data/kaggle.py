"""The public archive `paultimothymooney/chest-xray-pneumonia`, as the zip or as the unpacked folder.

The layout is `chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`, whatever the folders around it are called. The
shallowest folder with `train` pictures of both classes is used, so the archive's nested second copy is ignored, as are
`__MACOSX`, `._*` and files that are no pictures. `val` has 16 pictures, too few to choose by; they join the training pool.

Nothing is decoded here. A zip's directory has each content digest. In a folder every file is read once, and its digest is
stored until the file's size or time changes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from pneumo.data.archive import open_archive, printable
from pneumo.data.patient_names import Patient
from pneumo.data.patients import identify_patients
from pneumo.data.pictures import Picture, Source
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec
from pneumo.spec.result import CLASSES

_EXPECTED = "the Kaggle zip paultimothymooney/chest-xray-pneumonia or its folder"
_LAYOUT = "chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}; any other layout needs data: {source: folder}"
_SUFFIXES = (".jpeg", ".jpg", ".png")
_PARTS = ("train", "val", "test")


def open_kaggle(_: DataSpec, path: Path) -> Source:
    """Return the archive at `path`, a zip or a folder. Raises `RequestError`."""
    archive = open_archive(path, _EXPECTED)
    files = _find_layout(archive.files, str(path))
    digests = archive.digests(files.values())
    name, file = next(iter(files.items()))
    root = file[: -len(name)].rstrip("/")
    patients, notes = identify_patients(archive, files, digests, CLASSES, root, str(path))
    pictures = tuple(_picture(name, patients[name], digests[file]) for name, file in sorted(files.items()))
    return Source(
        kind="kaggle",
        description=path.resolve().name,
        pictures=tuple(picture for picture in pictures if not picture.name.startswith("test/")),
        sealed=tuple(picture for picture in pictures if picture.name.startswith("test/")),
        read=lambda picture: archive.read(files[picture.name], picture.digest),
        left_out=tuple((name, reason) for name, reason in archive.left_out if _may_be_picture(name)),
        notes=tuple(notes),
    )


def _picture(name: str, patient: Patient, digest: str) -> Picture:
    return Picture(name, CLASSES.index(PurePosixPath(name).parts[1]), patient.id, digest, patient.known_by)


def _find_layout(files: Iterable[str], path: str) -> dict[str, str]:
    """Map the picture names of the shallowest complete layout (`train/NORMAL/a.jpeg`) to the archive's files."""
    layouts: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for file in files:
        *root, part, label, last = ("", "", *PurePosixPath(file).parts)
        if not _is_picture(file) or part.lower() not in _PARTS or label.upper() not in CLASSES:
            continue
        name = f"{part.lower()}/{label.upper()}/{last}"
        other = layouts[tuple(root)].setdefault(name, file)
        if other != file:
            raise RequestError(
                f"{path}: {printable(other)} and {printable(file)} are the same picture by name; remove one"
            )
    counts = {root: Counter(name.rsplit("/", 1)[0] for name in names) for root, names in layouts.items()}
    complete = [root for root, count in counts.items() if all(count[f"train/{label}"] for label in CLASSES)]
    if not complete:
        raise RequestError(f"{path}: {_describe_missing(counts)}")
    shallowest = [root for root in complete if len(root) == min(map(len, complete))]
    if len(shallowest) > 1:
        first, second = ("/".join(filter(None, root)) for root in sorted(shallowest)[:2])
        raise RequestError(f"{path}: holds several sets of pictures ({first}, {second}); give the path of one")
    empty = [f"test/{label}" for label in CLASSES if not counts[shallowest[0]][f"test/{label}"]]
    if len(empty) == 1:
        raise RequestError(f"{path}: {empty[0]} has no pictures; expected {_LAYOUT}, or no test folder at all")
    return layouts[shallowest[0]]


def _describe_missing(counts: Mapping[tuple[str, ...], Counter[str]]) -> str:
    """Say why no layout is complete; of several, the shallowest with training pictures is described."""
    partial = {root: count for root, count in counts.items() if any(count[f"train/{label}"] for label in CLASSES)}
    if not partial:
        return f"there are no training pictures (.jpeg or .png); expected {_LAYOUT}"
    shallowest = min(partial, key=len)
    empty = next(label for label in CLASSES if not partial[shallowest][f"train/{label}"])
    return f"{'/'.join(filter(None, (*shallowest, 'train', empty)))} has no pictures; expected {_LAYOUT}"


def _is_picture(file: str) -> bool:
    """Return whether a file is a picture by its name. Finder's `__MACOSX` and `._*` files have picture suffixes too."""
    path = PurePosixPath(file)
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith("._") and "__MACOSX" not in path.parts


def _may_be_picture(name: str) -> bool:
    """Return whether a file that was left out may be a picture, or a folder with pictures."""
    return _is_picture(name) or not PurePosixPath(name).suffix
