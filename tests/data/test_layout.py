"""A tree of pictures, as a folder and as a zip: what is taken, what is counted, and what is asked about."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pneumo.data import archive as archive_module
from pneumo.data.audit import audit_source, last_audit, quick_findings
from pneumo.data.decoding import FORMATS
from pneumo.data.pictures import Source
from pneumo.data.prepare import prepare
from pneumo.data.sources import open_source, source_at
from pneumo.data.split import split
from pneumo.predict.pictures import find_pictures
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec
from tests.support.dicom_files import dicom
from tests.support.pictures import archive_files, encoded, write_folder, write_zip

NORMAL = "train/NORMAL"
PILLOW_SUFFIXES = [suffix for suffix, kind in FORMATS.items() if kind != "DICOM"]

Write = Callable[[Path, Mapping[str, bytes]], Path]


def as_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    return write_folder(path, files, "")


def as_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    return write_zip(path.with_suffix(".zip"), files, "")


def opened(path: Path, source: str) -> Source:
    return open_source(DataSpec.model_validate({"source": source, "path": str(path)}))


def names(source: Source) -> set[str]:
    return {picture.name for picture in (*source.pictures, *source.sealed)}


def lines(source: Source) -> list[str]:
    """Return what the audit and the search say of the source without decoding a picture."""
    return [finding.message for finding in quick_findings(source)]


def with_suffix(suffix: str) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(encoded(500))).save(out, FORMATS[suffix.lower()])
    return out.getvalue()


SIBLINGS: dict[str, tuple[Mapping[str, bytes], str]] = {
    "notebook checkpoints": (
        {".ipynb_checkpoints/a.png": b"a", f"{NORMAL}/.ipynb_checkpoints/b.jpeg": b"b"},
        "2 files not taken: 2 in hidden folders",
    ),
    "a repository and a trash can": (
        {".git/objects/1a/2b": b"a", f".Trash-1000/files/{NORMAL}/b.png": b"b"},
        "2 files not taken: 2 in hidden folders",
    ),
    "hidden files": (
        {".DS_Store": b"a", f"{NORMAL}/._IM-0001-0001.jpeg": b"b", f"{NORMAL}/.hidden.png": b"c"},
        "3 files not taken: 3 hidden",
    ),
    "folders of systems": (
        {f"__MACOSX/{NORMAL}/a.jpeg": b"a", f"{NORMAL}/@eaDir/a.jpeg/THUMB_M.jpg": b"b", "$RECYCLE.BIN/c.png": b"c"},
        "3 files not taken: 3 in system folders",
    ),
    "files of systems": (
        {f"{NORMAL}/Thumbs.db": b"a", "desktop.ini": b"b", f"{NORMAL}/Icon\r": b"c"},
        "3 files not taken: 3 of the system",
    ),
    "pictures of other formats": (
        {f"{NORMAL}/{name}": b"x" for name in ("a.heic", "b.HEIC", "c.jp2", "d.nii", "e.nii.gz", "f.svg", "g.avif")},
        "7 files not taken: 2 .heic (not read), 1 .avif (not read), 1 .jp2 (not read), 1 .nii (not read), "
        "1 .nii.gz (not read), 1 .svg (not read)",
    ),
    "other files": (
        {"a.csv": b"x", f"{NORMAL}/b.txt": b"x", "LICENSE": b"x", f"{NORMAL}/done": b"", "c.tar.gz": b"x", "d.ü": b"x"},
        "6 files not taken: 2 without a suffix, 1 .csv, 1 .gz, 1 .txt, 1 with another suffix",
    ),
    "a DICOM named by its UID": (
        {f"{NORMAL}/1.2.840.113619": b"x"},
        "1 file not taken: 1 with a number as suffix (not read; a DICOM file needs .dcm or no suffix)",
    ),
    "a third class, and a second copy": (
        {"train/COVID/a.png": b"a", "train/COVID/b.png": b"b"} | {f"copy/{name}": b"c" for name in archive_files()},
        "34 files not taken: 34 in other folders (copy: 32, train/COVID: 2)",
    ),
    "empty files": (
        {f"{NORMAL}/a.png": b"", f"{NORMAL}/b.JPG": b""},
        f"{NORMAL}/a.png: left out: empty: it has 0 bytes",
    ),
    "a backslash": ({f"{NORMAL}/a\\b.png": b"a"}, "a\\b.png: left out: a name with a backslash, as of another system"),
    "a control character": (
        {f"{NORMAL}/a\n.png": b"a"},
        f"{NORMAL}/a\\n.png: left out: a name with control characters, or one that is not UTF-8",
    ),
}
"""Files beside the pictures, and a line about them."""


@pytest.mark.parametrize("source", ["kaggle", "folder"])
@pytest.mark.parametrize(("others", "line"), SIBLINGS.values(), ids=SIBLINGS.keys())
def test_what_is_not_taken_is_said_alike_of_a_folder_and_a_zip(
    tmp_path: Path, source: str, others: Mapping[str, bytes], line: str
) -> None:
    files = archive_files()
    folder, zipped = (opened(write(tmp_path / "tree", {**files, **others}), source) for write in (as_folder, as_zip))
    assert names(folder) == names(zipped) == set(files)
    assert lines(folder) == lines(zipped)
    assert any(message.endswith(line) for message in lines(folder))


@pytest.mark.parametrize("source", ["kaggle", "folder"])
@pytest.mark.parametrize(
    "more",
    [
        *([f"{NORMAL}/a{suffix}", f"test/NORMAL/B{suffix.upper()}"] for suffix in PILLOW_SUFFIXES),
        [f"{NORMAL}/{'deeper/' * 30}a.jpeg"],
        [f"{NORMAL}/patient01/a.jpeg", f"{NORMAL}/patient01/study 2/b.jpeg", "train/PNEUMONIA/patient01/a.jpeg"],
        [f"{NORMAL}/e\N{COMBINING ACUTE ACCENT}/a.jpeg", f"{NORMAL}/é/a.jpeg", f"{NORMAL}/写真 1.jpeg"],
        [f"{NORMAL}/NORMAL/a.jpeg", f"{NORMAL}/a.b.c.jpeg", f"{NORMAL}/latest/-a.jpeg", f"{NORMAL}/train1/a.jpeg"],
    ],
    ids=str,
)
@pytest.mark.parametrize("outer", ["", "one/two/three/four/five/six/seven/eight/"])
def test_a_folder_and_a_zip_have_the_same_pictures_and_the_same_split(
    tmp_path: Path, source: str, more: list[str], outer: str
) -> None:
    files = archive_files() | {name: with_suffix(Path(name).suffix) for name in more}
    tree = {outer + name: content for name, content in files.items()}
    folder, zipped = (opened(write(tmp_path / "tree", tree), source) for write in (as_folder, as_zip))
    assert names(folder) == names(zipped) == set(files)
    assert (folder.pictures, folder.sealed, folder.notes) == (zipped.pictures, zipped.sealed, zipped.notes)
    first, second = (split(each.pictures, 0.3, 0, each.validation, each.classes) for each in (folder, zipped))
    assert all(np.array_equal(*parts) for parts in zip(first, second, strict=True))
    assert lines(folder) == lines(zipped)
    below = sum(len(Path(name).parts) > 3 for name in more)
    assert any(f"{below} of {len(files)} pictures are in subfolders" in line for line in lines(zipped)) == bool(below)
    for picture in folder.pictures:
        assert folder.encoded(picture) == zipped.encoded(picture) == files[picture.name]


def dos(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name.replace("/", "\\"))
    member.create_system = 0
    return member


FOLDERS = (
    *(
        "train",
        "Testing",
        "NORMAL",
        "NORMAL ",
        "pneumonia",
        "p1",
        "e\N{COMBINING ACUTE ACCENT}",
        "a b",
        "x.y",
        "~",
        "...",
    ),
    *(".h", "..x", "__MACOSX", "@eaDir"),
)
FILES = (
    *(
        "a.png",
        "a.PNG ",
        "b.JPG",
        "c.tif",
        "d.dcm",
        "é.png",
        "C:a.png",
        "e.heic",
        "f.nii.gz",
        "g.txt",
        "h",
        "i.",
        "1.2.3",
    ),
    *("x.png~", "a\\b.png", "a\nb.png", "Icon\r", "._a.png", ".x", "..a.png", "Thumbs.db", "DICOMDIR"),
)
PATHS = st.tuples(st.lists(st.sampled_from(FOLDERS), max_size=5), st.sampled_from(FILES)).map(
    lambda drawn: "/".join((*drawn[0], drawn[1]))
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    outer=st.lists(st.sampled_from(FOLDERS), max_size=2),
    others=st.dictionaries(PATHS, st.binary(max_size=2)),
    source=st.sampled_from(["kaggle", "folder"]),
)
def test_each_file_of_any_tree_is_accounted_for_alike(
    tmp_path_factory: pytest.TempPathFactory, outer: list[str], others: dict[str, bytes], source: str
) -> None:
    files = {"/".join((*outer, name)): content for name, content in (others | archive_files(2, 1)).items()}
    outcomes = []
    for write in (as_folder, as_zip):
        path = write(tmp_path_factory.mktemp("tree") / "tree", files)
        try:
            found = opened(path, source)
        except RequestError as error:
            outcomes.append([str(error).replace(str(path), "")])
        else:
            counted = sum(count for _, count in found.not_taken)
            assert len(names(found)) + len(found.left_out) + counted == len(files)
            outcomes.append([*lines(found), *map(str, found.pictures), *map(str, found.sealed)])
    assert outcomes[0] == outcomes[1]


class UnmarkedName(zipfile.ZipInfo):
    """A member whose name is UTF-8 and is not marked so, as macOS writes it."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - the name of zipfile's method
        return self.filename.encode(), self.flag_bits & ~0x800


@pytest.mark.parametrize(
    "member", [dos, UnmarkedName, lambda name: zipfile.ZipInfo(f"./{name}")], ids=["backslashes", "UTF-8", "./"]
)
@pytest.mark.parametrize("source", ["kaggle", "folder"])
def test_a_zip_of_another_program_has_the_pictures_of_its_folder(
    tmp_path: Path, source: str, member: Callable[[str], zipfile.ZipInfo]
) -> None:
    files = archive_files() | {f"{NORMAL}/é/ü.jpeg": encoded(500)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member("train/"), b"")
        for name, content in files.items():
            archive.writestr(member(name), content)
    folder, zipped = opened(as_folder(tmp_path / "tree", files), source), opened(tmp_path / "a.zip", source)
    assert (folder.pictures, folder.sealed) == (zipped.pictures, zipped.sealed)
    assert lines(folder) == lines(zipped)
    assert [zipped.encoded(picture) for picture in zipped.pictures] == [files[p.name] for p in zipped.pictures]


def test_a_class_is_found_whatever_the_unicode_form_of_its_folder(tmp_path: Path) -> None:
    files = {
        f"{name}/{n}.png": f"{name}{n}".encode() for name in ("sane\N{COMBINING ACUTE ACCENT}", "ILL") for n in range(4)
    }
    source = source_at(str(as_folder(tmp_path, files)), classes=("sané", "ill"))
    assert len(names(source)) == 8


MIXED_FOLDERS = (
    *("PNEUMONIA", "pneumonia", "site/PNEUMONIA", "train", "Testing", "valid"),
    *("masks", "lung_masks", "Mask1", "patient01/masks", "labels", "ground truth", "annotations", "heatmaps"),
    *("thumbs", "thumbnails", "segmentation"),
)
"""Folders in a class folder whose names say that their pictures are not all of the class."""


@pytest.mark.parametrize("write", [as_folder, as_zip])
@pytest.mark.parametrize("source", ["kaggle", "folder"])
@pytest.mark.parametrize("subfolder", MIXED_FOLDERS)
def test_a_class_folder_with_pictures_that_are_not_all_of_the_class_is_asked_about(
    tmp_path: Path, source: str, write: Write, subfolder: str
) -> None:
    files = archive_files() | {f"{NORMAL}/{subfolder}/{n}.png": encoded(n, kind="PNG") for n in range(3)}
    path = write(tmp_path / "tree", files)
    for name in (source, None):
        with pytest.raises(RequestError, match=rf"not all pictures .*{NORMAL}/{subfolder}: 3; move these out") as error:
            source_at(str(path), name)
        assert "\n" not in str(error.value)
    # Without pictures, the folder is not asked about.
    texts = {**archive_files(), f"{NORMAL}/{subfolder}/notes.txt": b"text"}
    assert names(opened(write(tmp_path / "texts", texts), source)) == set(archive_files())


@pytest.mark.parametrize("write", [as_folder, as_zip])
@pytest.mark.parametrize("source", ["kaggle", "folder"])
def test_a_layout_within_a_class_folder_is_named_and_not_missed(tmp_path: Path, source: str, write: Write) -> None:
    files = {f"{label}/train/{n}.png": encoded(n, kind="PNG") for label in ("NORMAL", "PNEUMONIA") for n in range(3)}
    path = write(tmp_path / "tree", files)
    expected = "NORMAL/train: 3" if source == "folder" else "there are no training pictures"
    with pytest.raises(RequestError, match=expected):
        opened(path, source)


@pytest.mark.parametrize("write", [as_folder, as_zip])
@pytest.mark.parametrize("source", ["kaggle", "folder"])
def test_an_error_says_what_was_not_taken(tmp_path: Path, source: str, write: Write) -> None:
    files = {
        f"{part}/{label}/{n}.heic": b"x"
        for part in ("train", "test")
        for label in ("NORMAL", "PNEUMONIA")
        for n in "ab"
    }
    files |= {f".cache/{NORMAL}/a.png": b"x", f"{NORMAL}/a.png": b""}
    with pytest.raises(RequestError) as error:
        opened(write(tmp_path / "tree", files), source)
    assert (
        f"10 files not taken: 8 .heic (not read), 1 in hidden folders, 1 left out ({NORMAL}/a.png: empty: it has 0 bytes)"
        in str(error.value)
    )


@pytest.mark.parametrize("write", [as_folder, as_zip])
@pytest.mark.parametrize("source", ["kaggle", "folder"])
def test_too_many_files_are_refused_and_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, write: Write
) -> None:
    path = write(tmp_path / "tree", archive_files())
    monkeypatch.setattr(archive_module, "MOST_FILES", 20)
    with pytest.raises(RequestError, match="holds more than 20 files and folders; give the path of the pictures alone"):
        opened(path, source)


DICOM = dicom(np.arange(4096, dtype=np.uint16).reshape(64, 64), 12, patient="anna")


def test_the_source_of_a_path_is_the_one_that_takes_the_most_pictures(tmp_path: Path) -> None:
    files = archive_files()
    for number, name in enumerate((f"{NORMAL}/a.dcm", f"{NORMAL}/a.DICOM", f"{NORMAL}/IM0001")):
        path = as_folder(tmp_path / f"dicom {number}", files | {name: DICOM})
        assert names(source_at(str(path))) == {*files, name}
        assert source_at(str(path)).kind == "folder"
        (line,) = (line for line in lines(opened(path, "kaggle")) if "not taken" in line)
        assert line.startswith("1 file not taken: 1 ")
    path = as_zip(tmp_path / "splits", files | {"validation/NORMAL/a.jpeg": b"a", "validation/PNEUMONIA/b.jpeg": b"b"})
    assert len(names(source_at(str(path)))) == len(files) + 2
    assert source_at(str(as_folder(tmp_path / "plain", files))).kind == "kaggle"


def test_empty_files_are_no_copies_of_one_picture(tmp_path: Path) -> None:
    files = archive_files() | {
        f"{NORMAL}/person1_a.png": b"",
        "test/NORMAL/person2_b.png": b"",
        "train/PNEUMONIA/c.tif": b"",
    }
    for write in (as_folder, as_zip):
        source = source_at(str(write(tmp_path / "tree", files)))
        result, _ = audit_source(source)
        for findings in (quick_findings(source), result.findings):
            assert [f.message for f in findings if f.severity == "fault"] == [
                f"{name}: left out: empty: it has 0 bytes"
                for name in ("test/NORMAL/person2_b.png", f"{NORMAL}/person1_a.png", "train/PNEUMONIA/c.tif")
            ]
            assert not any("patient" in f.kind or "cop" in f.kind for f in findings)


def test_a_search_refuses_many_empty_files_and_names_few(tmp_path: Path) -> None:
    files = archive_files(60, 2)
    few: list[str] = []
    path = as_zip(tmp_path / "few", files | {f"{NORMAL}/a.png": b"", f"{NORMAL}/a.jp2": b"x"})
    prepare(source_at(str(path)), [16], 0.3, 0, say=few.append)
    assert few == [f"{NORMAL}/a.png: left out: empty: it has 0 bytes", "1 file not taken: 1 .jp2 (not read)"]
    many = files | {f"{NORMAL}/{n}.png": b"" for n in range(9)}
    with pytest.raises(RequestError, match="9 of 249 pictures cannot be decoded, more than 1 %"):
        prepare(source_at(str(as_zip(tmp_path / "many", many))), [16], 0.3, 0)


def test_the_last_audit_is_found_beside_its_own_page(tmp_path: Path) -> None:
    path = as_folder(tmp_path / "tree", archive_files() | {"a.csv": b"x"})
    audit_source(source_at(str(path)))
    (path / "audit.html").write_text("page")
    (path / "audit.json").write_text("{}")
    audit = last_audit(source_at(str(path)))
    assert audit is not None
    (line,) = (finding.message for finding in audit.findings if "not taken" in finding.message)
    assert line == "3 files not taken: 1 .csv, 1 .html, 1 .json"


def test_predict_says_what_it_does_not_take_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "a.png": b"",
        f"{'deeper/' * 10}b.tif": b"x",
        "IM0001": DICOM,
        "README": b"x",
        "c.heic": b"x",
        ".d/e.png": b"x",
    }
    assert {path.name for path in find_pictures([as_folder(tmp_path, files)])} == {"a.png", "b.tif", "IM0001"}
    assert capsys.readouterr().err == (
        f"{tmp_path}: 3 files not taken: 1 .heic (not read), 1 in hidden folders, 1 without a suffix\n"
    )
