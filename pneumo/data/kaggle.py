"""The public archive `paultimothymooney/chest-xray-pneumonia`, as the zip or as the unpacked folder.

The layout is `chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`, whatever lies around it is called: the shallowest
folder with `train` pictures of both classes is taken, so that the archive's nested second copy is passed over, as
are `__MACOSX`, `._*` and files that are no pictures. `val` (16 pictures, too few to choose by) joins the training pool.

Nothing is decoded here. A zip's directory names each content digest; for a folder every file is read once and its digest
remembered, as long as size and time of the file stay the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from pneumo.data.archive import open_archive, printable
from pneumo.data.pictures import Picture, Source, patient_of
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec
from pneumo.spec.result import CLASSES

_SLUG = "paultimothymooney/chest-xray-pneumonia"
_LAYOUT = "chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}; any other layout wants data: {source: folder}"
_SUFFIXES = (".jpeg", ".jpg", ".png")
_PARTS = ("train", "val", "test")


def open_kaggle(_: DataSpec, path: Path) -> Source:
    """Return the archive at `path`, a zip or a folder. Raises `RequestError` with what would be right."""
    archive = open_archive(path, f"the Kaggle zip {_SLUG} or its folder")
    files = _in_layout(archive.files, str(path))
    digests = archive.digests(files.values())
    pictures = tuple(_picture(name, digests[file]) for name, file in sorted(files.items()))
    return Source(
        kind="kaggle",
        description=path.resolve().name,
        pictures=tuple(picture for picture in pictures if not picture.name.startswith("test/")),
        sealed=tuple(picture for picture in pictures if picture.name.startswith("test/")),
        read=lambda picture: archive.read(files[picture.name], picture.digest),
        left_out=tuple((name, reason) for name, reason in archive.left_out if _left_out(name)),
    )


def _left_out(name: str) -> bool:
    """Whether a file that was left out would have counted, or may have hidden some that would."""
    return _is_picture(name) or not PurePosixPath(name).suffix


def _picture(name: str, digest: str) -> Picture:
    return Picture(name, CLASSES.index(PurePosixPath(name).parts[1]), patient_of(name), digest)


def _in_layout(files: Iterable[str], where: str) -> dict[str, str]:
    """The pictures of the shallowest complete layout: name inside the layout (`train/NORMAL/a.jpeg`) to file."""
    layouts: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for file in files:
        *outer, part, label, last = ("", "", *PurePosixPath(file).parts)
        if not _is_picture(file) or part.lower() not in _PARTS or label.upper() not in CLASSES:
            continue
        name = f"{part.lower()}/{label.upper()}/{last}"
        other = layouts[tuple(outer)].setdefault(name, file)
        if other != file:
            raise RequestError(
                f"{where}: {printable(other)} and {printable(file)} are the same picture by name; leave one out"
            )
    counts = {root: Counter(name.rsplit("/", 1)[0] for name in found) for root, found in layouts.items()}
    complete = [root for root, count in counts.items() if all(count[f"train/{label}"] for label in CLASSES)]
    if not complete:
        raise RequestError(f"{where}: {_lacking(counts)}")
    shallowest = [root for root in complete if len(root) == min(map(len, complete))]
    if len(shallowest) > 1:
        first, second = ("/".join(filter(None, root)) for root in sorted(shallowest)[:2])
        raise RequestError(f"{where}: holds several sets of pictures ({first}, {second}); give the path of one")
    empty = [f"test/{label}" for label in CLASSES if not counts[shallowest[0]][f"test/{label}"]]
    if len(empty) == 1:
        raise RequestError(f"{where}: {empty[0]} has no pictures; wants {_LAYOUT}, or no test folder at all")
    return layouts[shallowest[0]]


def _lacking(counts: Mapping[tuple[str, ...], Counter[str]]) -> str:
    """Why no layout is complete, told of the one that is nearest to it."""
    train = {root: count for root, count in counts.items() if any(count[f"train/{label}"] for label in CLASSES)}
    if not train:
        return f"there are no training pictures (.jpeg or .png); wants {_LAYOUT}"
    nearest = min(train, key=len)
    empty = next(label for label in CLASSES if not train[nearest][f"train/{label}"])
    return f"{'/'.join(filter(None, (*nearest, 'train', empty)))} has no pictures; wants {_LAYOUT}"


def _is_picture(file: str) -> bool:
    """Whether a file counts, by its name: Finder's `__MACOSX` and `._*` carry picture suffixes and are none."""
    path = PurePosixPath(file)
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith("._") and "__MACOSX" not in path.parts
