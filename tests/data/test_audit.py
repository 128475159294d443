"""The audit of the real archive, of a copy of it with planted faults, and of small sets with one fault each."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pneumo.data.audit import Audit, audit_source, last_audit, leaks, measure, quick_findings
from pneumo.data.audit.findings import Finding, from_json, to_json
from pneumo.data.audit.page import audit_page
from pneumo.data.audit.report import format_report
from pneumo.data.patient_names import ARCHIVES, GENERAL, RESTARTING
from pneumo.data.pictures import Picture, Source
from pneumo.data.sources import source_at
from tests.support.pictures import archive_files, encoded, write_zip

ROOT = "chest_xray/"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def of_kind(result: Audit, kind: str) -> list[set[str]]:
    """Return the pictures of each finding of a kind."""
    return [set(finding.pictures) for finding in result.findings if finding.kind == kind]


def altered(content: bytes, shift: int = 0, brightness: float = 1.0, quality: int = 90) -> bytes:
    """Return a JPEG shifted by some pixels, brightened, and encoded again."""
    image = Image.open(io.BytesIO(content)).convert("L")
    if shift:
        moved = Image.new("L", image.size)
        moved.paste(image, (shift, shift))
        image = moved
    out = io.BytesIO()
    ImageEnhance.Brightness(image).enhance(brightness).save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.mark.slow
def test_the_real_archive_has_exact_copies_and_no_leak(archive: Path) -> None:
    source = source_at(str(archive))
    result, _ = audit_source(source)
    (copies,) = of_kind(result, "copies")
    assert len(copies) == 50
    assert "24 groups of exact copies (50 pictures)" in format_report(result)
    assert result.faults == ()
    assert leaks(result.findings) == []
    assert of_kind(result, "near-copies") == []
    assert {row.part: row.pictures for row in result.rows if row.label == "NORMAL"} == {
        "train": 1099,
        "val": 8,
        "test": 234,
    }
    notes = {finding.kind: finding.message for finding in result.findings if finding.severity == "note"}
    assert set(notes) == {"small-val", "class-balance", "not-taken"}
    others = "16 in other folders (chest_xray/chest_xray: 16), 16 in system folders, 2 hidden"
    assert notes["not-taken"] == f"34 files not taken: {others}"
    assert "PNEUMONIA is 76% of train and 62% of test" in notes["class-balance"]
    assert len(of_kind(result, "outlier")) == 5
    assert {shortcut.name: round(shortcut.auc, 2) for shortcut in result.shortcuts} == {
        "files": 0.89,
        "brightness": 0.76,
        "frame": 0.96,
    }
    assert [finding.message for finding in quick_findings(source) if finding.kind == "copies"] == [
        finding.message for finding in result.findings if finding.kind == "copies"
    ]


@pytest.fixture
def planted(archive: Path, tmp_path: Path) -> Iterator[tuple[Path, dict[str, set[str]]]]:
    """Yield the path of a copy of the archive with planted faults, and the pictures of each kind of fault."""
    with zipfile.ZipFile(archive) as real:
        names = [n.removeprefix(ROOT) for n in real.namelist() if n.startswith(f"{ROOT}train/") and n.endswith(".jpeg")]
        normal = [name for name in names if "/NORMAL/" in name]
        ill = [name for name in names if "/PNEUMONIA/" in name]

        def read(name: str) -> bytes:
            return real.read(ROOT + name)

        leaks = {
            "test/NORMAL/IM-7001-0001.jpeg": (normal[10], read(normal[10])),
            "test/PNEUMONIA/person7002_virus_1.jpeg": (ill[20], read(ill[20])),
            "test/NORMAL/IM-7003-0001.jpeg": (normal[30], altered(read(normal[30]), quality=40)),
            "test/PNEUMONIA/person7004_virus_1.jpeg": (ill[40], altered(read(ill[40]), quality=75)),
            "test/NORMAL/IM-7005-0001.jpeg": (normal[50], altered(read(normal[50]), shift=4, brightness=1.15)),
        }
        conflicts = {f"train/PNEUMONIA/person800{n}_virus_1.jpeg": normal[60 + n] for n in range(3)}
        broken = {f"train/NORMAL/IM-810{n}-0001.jpeg": read(normal[70 + n])[: 500 * (n + 1)] for n in range(4)}
        patient = ill[100].rsplit("/", 1)[1].split("_")[0]
        with zipfile.ZipFile(tmp_path / "planted.zip", "w") as copy:
            for name in real.namelist():
                if name.startswith((f"{ROOT}train/", f"{ROOT}val/", f"{ROOT}test/")):
                    copy.writestr(name, real.read(name))
            for name, (_, content) in leaks.items():
                copy.writestr(ROOT + name, content)
            for name, other in conflicts.items():
                copy.writestr(ROOT + name, read(other))
            for name, content in broken.items():
                copy.writestr(ROOT + name, content)
            stranger = f"test/PNEUMONIA/{patient}_virus_9999.jpeg"
            copy.writestr(ROOT + stranger, encoded(5, (224, 224)))
        near = ["IM-7003", "person7004", "IM-7005"]
        yield (
            tmp_path / "planted.zip",
            {
                "copy-leak": {name for name in leaks if not any(n in name for n in near)},
                "near-copy-leak": {name for name in leaks if any(n in name for n in near)},
                "label-conflict": set(conflicts),
                "unreadable": set(broken),
                "patient-leak": {stranger},
                "originals": {original for original, _ in leaks.values()} | set(conflicts.values()),
            },
        )


def test_all_planted_faults_are_reported_by_name(planted: tuple[Path, dict[str, set[str]]]) -> None:
    path, expected = planted
    source = source_at(str(path))
    result, measurements = audit_source(source)
    text = format_report(result)
    for kind in ("copy-leak", "near-copy-leak", "label-conflict", "unreadable", "patient-leak"):
        findings = of_kind(result, kind)
        assert len(findings) == len(expected[kind]), kind
        for name in expected[kind]:
            assert any(name in pictures for pictures in findings), (kind, name)
            assert name in text
    in_faults = {name for finding in result.faults for name in finding.pictures}
    assert in_faults >= expected["originals"]
    assert {finding.kind for finding in result.faults} == set(expected) - {"originals"}
    page = audit_page(result, source, measurements)
    assert all(name in page for kind in expected for name in expected[kind])
    assert page.count("data:image/jpeg;base64,") >= 10
    assert "http" not in page


def test_exact_leaks_are_found_without_decoding_and_confirmed_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr(measure, "decode", refuse)
    files = archive_files()
    train, test = "train/NORMAL/IM-0001-0001.jpeg", "test/NORMAL/IM-9009-0001.jpeg"
    source = source_at(str(write_zip(tmp_path / "a.zip", files | {test: files[train]})))
    (leak,) = leaks(quick_findings(source))
    assert leak.pictures == (test, train)
    assert quick_findings(source_at(str(write_zip(tmp_path / "b.zip", files)))) == ()

    # Equal CRC-32 and size by chance make no copy.
    def read(picture: Picture) -> bytes:
        return picture.name.encode()

    pool = Picture("train/NORMAL/a.png", 0, "a", "same", "patients.csv")
    sealed = Picture("test/NORMAL/b.png", 0, "b", "same", "patients.csv")
    assert quick_findings(Source("kaggle", "chance", (pool,), (sealed,), read)) == ()


def test_a_patient_who_is_stated_on_both_sides_is_a_leak_and_restarted_numbering_is_not() -> None:
    def source(patients: int, shared: int, known_by: str) -> Source:
        def picture(part: str, n: int) -> Picture:
            return Picture(f"{part}/PNEUMONIA/person{n}_virus_1.jpeg", 1, f"person{n}", f"{part}{n}", known_by)

        pool = tuple(picture("train", n) for n in range(patients))
        test = tuple(picture("test", n) for n in (*range(shared), *range(9100, 9120)))
        return Source("kaggle", "numbers", pool, test, lambda picture: b"")

    (restarting,) = RESTARTING
    kinds = [(finding.kind, finding.severity) for finding in quick_findings(source(200, 170, restarting))]
    assert kinds == [("numbering-restarts", "note")]
    few = leaks(quick_findings(source(200, 2, restarting)))
    assert [finding.pictures for finding in few] == [
        (f"train/PNEUMONIA/person{n}_virus_1.jpeg", f"test/PNEUMONIA/person{n}_virus_1.jpeg") for n in range(2)
    ]
    for known_by in (
        "patients.csv",
        "DICOM headers",
        *(convention.known_by for convention in (*ARCHIVES[1:], *GENERAL)),
    ):
        assert len(leaks(quick_findings(source(200, 170, known_by)))) == 170


def test_numbering_that_restarts_is_a_leak_where_pictures_agree(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for part, seed in (("train", 0), ("test", 50)):
        files |= {f"{part}/PNEUMONIA/person{n}_virus_{part}.jpeg": encoded(seed + n) for n in range(20)}
        files |= {f"{part}/NORMAL/IM-{seed + n:04d}-1.jpeg": encoded(100 + seed + n) for n in range(5)}
    files["test/PNEUMONIA/person7_virus_test.jpeg"] = files["train/PNEUMONIA/person7_virus_train.jpeg"]
    findings = quick_findings(source_at(str(write_zip(tmp_path / "a.zip", files))))
    assert [finding.kind for finding in findings] == ["copy-leak", "patient-leak", "numbering-restarts"]
    assert "patient person7 " in findings[1].message


def test_blank_pictures_and_outliers_are_named(tmp_path: Path) -> None:
    files = archive_files(12, 2)
    blank, wide = "train/NORMAL/IM-0900-0001.jpeg", "train/NORMAL/IM-0901-0001.jpeg"
    out = io.BytesIO()
    Image.new("L", (80, 60), 90).save(out, "JPEG")
    files |= {blank: out.getvalue(), wide: encoded(900, (800, 10))}
    for case, widths in enumerate(([80], range(80, 89))):  # the sizes of the other pictures are equal, or differ
        usual = [name for name in files if name not in (blank, wide)]
        files |= {name: encoded(n, (widths[n % len(widths)], 60)) for n, name in enumerate(usual)}
        result, _ = audit_source(source_at(str(write_zip(tmp_path / f"{case}.zip", files))))
        assert of_kind(result, "blank") == [{blank}]
        assert of_kind(result, "outlier") == [{wide}]


def test_a_part_that_is_brighter_is_reported(tmp_path: Path) -> None:
    def files(lift: int) -> dict[str, bytes]:
        contents = {}
        for n, name in enumerate(archive_files(40, 1, 40)):
            base = np.asarray(Image.open(io.BytesIO(encoded(n))), np.float64)
            out = io.BytesIO()
            Image.fromarray((base * 0.6 + (lift if name.startswith("test/") else 0)).astype(np.uint8)).save(out, "JPEG")
            contents[name] = out.getvalue()
        return contents

    shifted, _ = audit_source(source_at(str(write_zip(tmp_path / "a.zip", files(40)))))
    messages = [finding.message for finding in shifted.findings if finding.kind == "shift"]
    assert [line.split(" is ")[0] for line in messages] == ["NORMAL: brightness", "PNEUMONIA: brightness"]
    assert all("higher in test than in train" in line for line in messages)
    alike, _ = audit_source(source_at(str(write_zip(tmp_path / "b.zip", files(0)))))
    assert of_kind(alike, "shift") == of_kind(alike, "class-balance") == []


def test_the_last_audit_of_the_same_content_is_found_unless_it_is_damaged(tmp_path: Path, cache: Path) -> None:
    files = archive_files()
    source = source_at(str(write_zip(tmp_path / "a.zip", files)))
    assert last_audit(source) is None
    result, _ = audit_source(source)
    assert last_audit(source) == result
    assert from_json(to_json(result)) == result
    assert json.loads(to_json(result))["description"] == "a.zip"
    other = source_at(str(write_zip(tmp_path / "b.zip", files | {"train/NORMAL/IM-0001-0001.jpeg": encoded(77)})))
    assert last_audit(other) is None
    (path,) = cache.glob("audits/*/audit.json")
    path.write_text(path.read_text()[:100])
    assert last_audit(source) is None


def test_a_second_audit_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_at(str(write_zip(tmp_path / "a.zip", archive_files())))
    first, _ = audit_source(source)

    def refuse(*_: object) -> None:
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr(measure, "decode", refuse)
    assert audit_source(source)[0] == first


def test_names_cannot_write_html_into_the_page(tmp_path: Path) -> None:
    name = "train/NORMAL/<img src=x onerror=alert(1)>.jpeg"
    source = source_at(str(write_zip(tmp_path / "a.zip", archive_files() | {name: b"no picture"})))
    result, measurements = audit_source(source)
    assert of_kind(result, "unreadable") == [{name}]
    assert "<img src=x" not in audit_page(result, source, measurements)
    readable = tuple(picture.name for picture in source.pictures if picture.name != name)
    many = replace(result, findings=(Finding("outlier", "note", "look", readable),))
    page = audit_page(many, source, measurements)
    assert f"12 of {len(readable)} pictures shown" in page
    assert page.count("<figure>") == 12
