"""The public archive as a zip and as a folder: which files are pictures, where the layout may be, what is refused."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from pneumo.data.decoding import UnreadableError
from pneumo.data.pictures import Source
from pneumo.data.sealed import open_sealed_test
from pneumo.data.sources import open_source
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec
from tests.support.pictures import archive_files, encoded, write_folder, write_zip

JUNK = {
    ".DS_Store": b"junk",
    "train/.DS_Store": b"junk",
    "train/NORMAL/._IM-0001-0001.jpeg": b"junk",
    "train/NORMAL/notes.txt": b"not a picture",
    "__MACOSX/chest_xray/train/NORMAL/IM-0001-0001.jpeg": b"junk",
    "chest_xray/train/NORMAL/IM-0001-0001.jpeg": b"second copy",
    "chest_xray/train/PNEUMONIA/person1_virus_1.jpeg": b"second copy",
}


def opened(path: Path) -> Source:
    return open_source(DataSpec(path=str(path)))


def test_real_archive(archive: Path) -> None:
    source = opened(archive)
    counts = Counter((picture.name.split("/")[0], picture.label) for picture in source.pictures + source.sealed)
    assert counts == {
        ("train", 0): 1099,
        ("train", 1): 3477,
        ("val", 0): 8,
        ("val", 1): 8,
        ("test", 0): 234,
        ("test", 1): 390,
    }
    assert all("/" not in picture.patient for picture in source.pictures)
    assert source.description == "chest-xray-pneumonia.zip"


def test_zip_and_folder_agree_and_ignore_other_files(tmp_path: Path) -> None:
    files = archive_files()
    zipped = opened(write_zip(tmp_path / "a.zip", files | JUNK))
    folder = opened(write_folder(tmp_path / "tree", files | JUNK))
    assert [picture.name for picture in zipped.pictures] == sorted(name for name in files if name.startswith("train/"))
    assert zipped.pictures == folder.pictures
    assert zipped.sealed == folder.sealed
    for picture in zipped.pictures:
        assert zipped.encoded(picture) == folder.encoded(picture) == files[picture.name]


@pytest.mark.parametrize("outer", ["", "chest_xray", "some/where/else"])
def test_the_layout_is_found_below_any_folder(tmp_path: Path, outer: str) -> None:
    files = archive_files(2, 1)
    write_folder(tmp_path / "tree", files, outer)
    write_zip(tmp_path / "a.zip", files, f"{outer}/" if outer else "")
    assert opened(tmp_path / "tree").pictures == opened(tmp_path / "a.zip").pictures != ()


def test_suffixes_and_class_folders_in_any_case(tmp_path: Path) -> None:
    files = {
        "train/normal/a.PNG": encoded(1, kind="PNG"),
        "train/Pneumonia/b.JPG": encoded(2),
        "val/NORMAL/c.Jpeg": encoded(3),
    }
    source = opened(write_zip(tmp_path / "a.zip", files))
    assert [(picture.name, picture.label) for picture in source.pictures] == [
        ("train/NORMAL/a.PNG", 0),
        ("train/PNEUMONIA/b.JPG", 1),
        ("val/NORMAL/c.Jpeg", 0),
    ]
    assert source.sealed == ()
    for picture in source.pictures:
        assert source.encoded(picture)


def test_opening_a_test_set_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no test pictures"):
        open_sealed_test(opened(write_zip(tmp_path / "a.zip", archive_files(test=0))))


def test_only_the_damaged_member_is_unreadable(tmp_path: Path) -> None:
    files = archive_files()
    path = write_zip(tmp_path / "a.zip", files)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as opened_zip:
        member = opened_zip.getinfo("chest_xray/train/NORMAL/IM-0001-0001.jpeg")
    middle = member.header_offset + 30 + len(member.filename) + member.file_size // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    source = opened(path)
    with pytest.raises(UnreadableError, match="CRC"):
        source.encoded(source.pictures[0])
    assert source.encoded(source.pictures[1])


def test_only_changed_files_of_a_folder_are_read_again(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "tree", archive_files(2, 1))
    before = opened(root)
    changed = root / "chest_xray" / before.pictures[0].name
    untouched = root / "chest_xray" / before.pictures[1].name
    # A change that keeps size and time is not noticed, which shows that the file is not read again.
    state = untouched.stat()
    untouched.write_bytes(bytes(state.st_size))
    os.utime(untouched, ns=(state.st_atime_ns, state.st_mtime_ns))
    changed.write_bytes(encoded(99))
    after = opened(root)
    assert after.pictures[0].digest != before.pictures[0].digest
    assert after.pictures[1:] == before.pictures[1:]
    with pytest.raises(RequestError, match="changed after it was listed"):
        after.encoded(after.pictures[1])


def _without(part: str) -> dict[str, bytes]:
    return {name: content for name, content in archive_files().items() if not name.startswith(part)}


@pytest.mark.parametrize("write", [write_zip, write_folder], ids=["zip", "folder"])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (_without("train/PNEUMONIA"), "chest_xray/train/PNEUMONIA has no pictures"),
        (_without("test/NORMAL"), "test/NORMAL has no pictures"),
        (_without("train"), "no training pictures"),
        ({"train/NORMAL/readme.txt": b"text"}, "no training pictures"),
        (_without("test") | {"train/normal/IM-0001-0001.jpeg": b"other"}, "same picture by name"),
    ],
    ids=["empty class", "empty test class", "no train", "no pictures", "twice"],
)
def test_wrong_contents(tmp_path: Path, write: object, files: dict[str, bytes], message: str) -> None:
    assert callable(write)
    path = write(tmp_path / "data", files)
    with pytest.raises(RequestError, match=message) as caught:
        opened(path)
    assert str(path) in str(caught.value)


def test_two_sets_of_pictures_side_by_side_are_refused(tmp_path: Path) -> None:
    for outer in ("one", "two"):
        write_folder(tmp_path, archive_files(2, 1), outer)
    with pytest.raises(RequestError, match=r"several sets of pictures \(one, two\)"):
        opened(tmp_path)


def test_wrong_paths(tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 and then nothing of a zip")
    with pytest.raises(RequestError, match="is no zip"):
        opened(broken)
