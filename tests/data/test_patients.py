"""The patients of a folder's pictures: archives' names, folders, patients.csv, and what is said if nothing tells them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pneumo.data.audit import audit_source, leaks, quick_findings
from pneumo.data.pictures import Picture, Source, describe_patients
from pneumo.data.sources import open_source
from pneumo.data.split import count_split, describe_split, split
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec
from tests.support.pictures import encoded, write_folder, write_zip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))


def opened(path: Path, kind: str = "folder") -> Source:
    return open_source(DataSpec.model_validate({"source": kind, "path": str(path)}))


def pictures(source: Source) -> dict[str, Picture]:
    return {picture.name: picture for picture in (*source.pictures, *source.sealed)}


ARCHIVES = {
    "Kermany": ("person{0}_virus_{1}.jpeg", "person{0}"),
    "Kermany, normal": ("IM-{0:04d}-000{1}-0001.jpeg", "IM-{0:04d}"),
    "Kermany, normal 2": ("NORMAL2-IM-{0:04d}-000{1}.jpeg", "NORMAL2-IM-{0:04d}"),
    "Kermany, Mendeley": ("BACTERIA-10080{0}-000{1}.jpeg", "10080{0}"),
    "phantoms": ("phantom{0:04d}_{1}.png", "phantom{0:04d}"),
    "NIH": ("000000{0}_00{1}.png", "000000{0}"),
    "NIH, renamed": ("nih_000000{0}_00{1}_png.rf.0af.jpg", "000000{0}"),
    "CheXpert": ("patient000{0}/study{1}/view1_frontal.jpg", "patient000{0}"),
    "CheXpert, flat": ("patient000{0}_study{1}_view1_frontal.jpg", "patient000{0}"),
    "MIMIC": ("p10/p100000{0}/s5041426{1}/02aa804e-bde0afdd.jpg", "p100000{0}"),
    "BRAX": ("id_003af52e-{0}/Study_4504.{1}/Series_1/image-7.png", "id_003af52e-{0}"),
    "BIMCV": ("sub-S030{0}/ses-E0798{1}/mod-rx/vp-ap_dx.png", "sub-S030{0}"),
    "BIMCV, flat": ("sub-S030{0}_ses-E0798{1}_run-1_vp-ap_dx.png", "sub-S030{0}"),
    "Open-i": ("CXR{0}_1_IM-0001-300{1}.png", "CXR{0}"),
    "Indiana on Kaggle": ("{0}_IM-0001-400{1}.dcm.png", "{0}"),
    "Shenzhen": ("CHNCXR_00{0}_{1}.png", "CHNCXR_00{0}"),
    "Montgomery": ("MCUCXR_00{0}_{1}.png", "MCUCXR_00{0}"),
    "JSRT": ("JPCLN0{0}.{1}.png", "JPCLN0{0}"),
    "folders": ("Patient_{0}/{1}.png", "Patient_{0}"),
    "folders, short": ("site/P00{0}/{1}.png", "P00{0}"),
    "numbers": ("subject-{0}_{1}.png", "subject-{0}"),
}

UNKNOWN = {
    "dates": "20200315_00{1}{0}.png",
    "a counter": "img_0001_{0}{1}.png",
    "the class's name": "COVID-{0}{1}.png",
    "PadChest": "2168401113669640134_01-{1}-{0}.png",
    "VinDr": "0a1b2c3d4e5f60718293a4b5c6d7e8{0}{1}.png",
    "RSNA": "0004cfab-14fd-4e49-80ba-63a80b6bdd{0}{1}.png",
    "COVIDx": "ARDSSevere{0}{1}.png",
    "batches": "p01/{0}{1}.png",
    "years": "2019/{0}{1}.png",
    "another word": "notperson{0}_virus_{1}.png",
    "a folder for many": "case_1/{0}{1}.png",
}


def layout(name: str, patients: int = 12) -> dict[str, bytes]:
    """Return two pictures of each patient of two classes, named by number (from 10) and picture (0 or 1)."""
    return {
        f"{label}/{name.format(10 + offset + n, number)}": encoded(2 * n + number + 100 * bool(offset))
        for label, offset in (("NORMAL", 0), ("PNEUMONIA", 40))
        for n in range(patients)
        for number in range(2)
    }


@pytest.mark.parametrize(("name", "patient"), ARCHIVES.values(), ids=ARCHIVES.keys())
def test_names_of_public_archives_tell_the_patient_and_no_patient_is_in_two_parts(
    tmp_path: Path, name: str, patient: str
) -> None:
    source = opened(write_zip(tmp_path / "a.zip", layout(name), ""))
    expected = {patient.format(10 + offset + n, 0) for offset in (0, 40) for n in range(12)}
    by_patient: dict[str, set[str]] = {}
    for picture in pictures(source).values():
        by_patient.setdefault(picture.patient, set()).add(picture.name)
    assert set(by_patient) == expected
    assert {len(names) for names in by_patient.values()} == {2}
    training, validation = split(source.pictures, 0.2, 0)
    parts = [{source.pictures[row].patient for row in rows} for rows in (training, validation)]
    parts.append({picture.patient for picture in source.sealed})
    assert sum(map(len, parts)) == len(set.union(*parts)) == 24
    assert "told by" in describe_patients(source.pictures)
    assert not [finding for finding in quick_findings(source) if finding.kind == "patients-unknown"]


@pytest.mark.parametrize("name", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_a_name_that_tells_no_patient_is_not_guessed_at_and_that_is_said(tmp_path: Path, name: str) -> None:
    files = layout(name)
    source = opened(write_zip(tmp_path / "a.zip", files, ""))
    assert {picture.patient for picture in pictures(source).values()} == set(files)
    text = describe_split("x", count_split(source, 0.2, 0), source.classes, describe_patients(source.pictures))
    assert "patients: not known" in text
    assert "patients.csv" in text
    assert not [line for line in text.splitlines()[:2] if "patients" in line]
    (finding,) = quick_findings(source)[:1]
    assert (finding.kind, finding.severity) == ("patients-unknown", "warning")


def test_a_mixed_set_goes_by_the_convention_of_each_picture(tmp_path: Path) -> None:
    files = {f"NORMAL/{n:08d}_{number:03d}.png": encoded(9 * n + number) for n in range(4) for number in range(2)}
    files |= {f"PNEUMONIA/person{n}_virus_1.jpeg": encoded(100 + n) for n in range(4)}
    files |= {f"PNEUMONIA/ARDSSevere{n}.jpeg": encoded(200 + n) for n in range(4)}
    source = opened(write_zip(tmp_path / "a.zip", files, ""))
    assert len({picture.patient for picture in pictures(source).values()}) == 12
    told = describe_patients(list(pictures(source).values()))
    assert told.startswith(
        "told by names as in NIH ChestX-ray14 (8 pictures) and names as in Kermany's archive (4 pictures)"
    )
    assert "not known of 4 pictures" in told


@pytest.mark.parametrize("name", ["Patient_{0}/{1}.png", "subject-{0}_{1}.png"])
def test_a_general_convention_that_holds_for_a_part_of_a_class_only_tells_nothing(tmp_path: Path, name: str) -> None:
    files = layout(name) | {f"{label}/{n}.png": encoded(n) for label in ("NORMAL", "PNEUMONIA") for n in range(4)}
    known = {picture.known_by for picture in pictures(opened(write_zip(tmp_path / "a.zip", files, ""))).values()}
    assert known == {""}


def test_a_patient_of_chestxray14_on_both_sides_is_a_leak_however_many_there_are(tmp_path: Path) -> None:
    files = {
        f"{part}/{label}/{n:08d}_{number:03d}.png": encoded(100 * number + n)
        for number, part in enumerate(("train", "test"))
        for label, first in (("NORMAL", 0), ("PNEUMONIA", 20))
        for n in range(first, first + 20)
    }
    found = leaks(quick_findings(opened(write_zip(tmp_path / "a.zip", files, ""))))
    assert [finding.kind for finding in found] == ["patient-leak"] * 40


@pytest.mark.parametrize(("known", "severity"), [(True, "warning"), (False, "fault")])
def test_near_copies_weigh_more_if_the_patients_are_not_known(tmp_path: Path, known: bool, severity: str) -> None:
    name = "{:08d}_000.png" if known else "{}.png"
    files = {
        f"{part}/{label}/{name.format(offset + first + n)}": encoded(offset + first + n, (256, 256), kind="PNG")
        for part, first in (("train", 0), ("test", 500))
        for label, offset in (("NORMAL", 0), ("PNEUMONIA", 1000))
        for n in range(4)
    }
    files[f"train/NORMAL/{name.format(90)}"] = encoded(0, (250, 250), kind="PNG")
    audit, _ = audit_source(opened(write_zip(tmp_path / "a.zip", files, "")))
    near = [finding.severity for finding in audit.findings if finding.kind.startswith("near-copy-of")]
    assert near == [severity]


def flat(patients: int = 8) -> dict[str, bytes]:
    """Return one picture of each patient of two classes, whose names tell no patient."""
    return {
        f"{label}/x{n:02d}.png": encoded(n + 100 * at, kind="PNG")
        for at, label in enumerate(("NORMAL", "PNEUMONIA"))
        for n in range(patients)
    }


STATED = {"NORMAL/x00.png": "anna", "NORMAL/x01.png": "anna", "PNEUMONIA/x01.png": "ben, the 2nd"}
ROWS = 'NORMAL/x00.png,anna\nNORMAL/x01.png,anna\nPNEUMONIA/x01.png,"ben, the 2nd"\n'
TABLE = f"file,patient\n{ROWS}"

TABLES = {
    "plain": TABLE.encode(),
    "a byte order mark, as of a spreadsheet": TABLE.encode("utf-8-sig"),
    "UTF-16, little end first": TABLE.encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + TABLE.encode("utf-16-be"),
    "CR LF": TABLE.replace("\n", "\r\n").encode(),
    "CR alone, as of an old Mac": TABLE.replace("\n", "\r").encode(),
    "no last line end": TABLE.rstrip().encode(),
    "semicolons": TABLE.replace(",", ";").replace("ben;", "ben,").encode(),
    "tabs": TABLE.replace(",", "\t").replace("ben\t", "ben,").encode(),
    "capitals and spaces in the header": f" File , PATIENT \n{ROWS}".encode(),
    "spaces around values": TABLE.replace(",anna", " ,  anna ").encode(),
    "all in quotes": TABLE.replace("NORMAL/x00.png,anna", '"NORMAL/x00.png","anna"').encode(),
    "further columns": b'note,file,age,patient\n"a\nb",NORMAL/x00.png,3,anna\n'
    b'c,NORMAL/x01.png,,anna\n,PNEUMONIA/x01.png,5,"ben, the 2nd"\n',
    "empty lines": f"\n\nfile,patient\n\n{ROWS}\n,\n\n".encode(),
    "empty cells at the end": TABLE.replace("anna\n", "anna,,\n").encode(),
    "a row twice": f"{TABLE}NORMAL/x00.png,anna\n".encode(),
    "a path of Windows": TABLE.replace("NORMAL/x00", ".\\NORMAL\\x00").encode(),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize("kind", ["folder", "kaggle"])
def test_patients_csv_states_patients(tmp_path: Path, table: bytes, kind: str) -> None:
    files = {("train/" + name if kind == "kaggle" else name): content for name, content in flat().items()}
    if kind == "kaggle":
        table = table.replace(b"NORMAL/", b"train/NORMAL/").replace(b"NORMAL\\", b"train\\NORMAL\\")
        table = table.replace(b"PNEUMONIA/", b"train/PNEUMONIA/")
        if table.startswith((b"\xff\xfe", b"\xfe\xff")):
            table = (
                table.decode("utf-16")
                .replace("NORMAL/", "train/NORMAL/")
                .replace("PNEUM", "train/PNEUM")
                .encode("utf-16")
            )
    path = write_folder(tmp_path / "tree", files | {"patients.csv": table}, "")
    source = opened(path, kind)
    stated = {
        name.removeprefix("train/"): p.patient for name, p in pictures(source).items() if p.known_by == "patients.csv"
    }
    assert stated == STATED
    assert any("13 of 16 pictures are not in it" in note for note in source.notes)
    separators = {"semicolons", "tabs"} & {word for note in source.notes for word in note.split()}
    assert separators == {
        word for word in ("semicolons", "tabs") if TABLES[word] in (table, table.replace(b"train/", b""))
    }


WRONG: Mapping[str, tuple[bytes, str]] = {
    "other columns": (b"name,who\nx,y\n", "has the columns name, who; expected the columns file,patient"),
    "another separator": (b"file|patient\nx|y\n", r"has the columns file\|patient; expected"),
    "no header": (ROWS.encode(), "has the columns NORMAL/x00.png, anna; expected"),
    "empty": (b"", "is empty; expected the columns file,patient"),
    "blank": (b"\n , \n\n", "expected the columns file,patient"),
    "a header alone": (b"file,patient\n", "states no patient"),
    "blank rows": (b"file,patient\n,\n\n,\n", "states no patient"),
    "a column twice": (b"file,patient,Patient\nNORMAL/x00.png,a,b\n", "has 2 columns patient; expected one"),
    "no picture": (b"file,patient\nNORMAL/x77.png,anna\n", r"patients.csv:2: 'NORMAL/x77.png' is no picture"),
    "no patient": (b"file,patient\nNORMAL/x00.png,\n", "patients.csv:2: .* has no patient"),
    "too few values": (b"file,patient\nNORMAL/x00.png\n", "patients.csv:2: .* has no patient"),
    "too many values": (b"file,patient\nNORMAL/x00.png,a,b\n", "patients.csv:2: has 3 values in 2 columns"),
    "no file": (b"file,patient\n,anna\n", "patients.csv:2: names no file"),
    "an ambiguous name": (b"file,patient\nx00.png,anna\n", "patients.csv:2: .* is the name of 2 pictures"),
    "twice": (b"file,patient\nNORMAL/x00.png,a\nNORMAL/x00.png,b\n", "patients.csv:3: .* twice"),
    "a quote that is not closed": (
        b'file,patient\nNORMAL/x00.png,"anna\nNORMAL/x01.png,ben\n',
        "csv:2: a quote is not",
    ),
    "such a quote in a long table": (
        b'file,patient\n"' + b"NORMAL/x00.png,a\n" * 20_000,
        "csv:2: a quote is not closed",
    ),
    "such a quote and CR": (b'file,patient\r"' + b"NORMAL/x00.png,a\r" * 20_000, "csv:2: a quote is not closed"),
    "text after a quote": (b'file,patient\n"NORMAL/x00.png"x,anna\n', "csv:2: a quote is not closed, or text follows"),
    "a patient of two lines": (b'file,patient\nNORMAL/x00.png,"an\nna"\n', "csv:2: .* line break"),
    "a long patient": (b"file,patient\nNORMAL/x00.png," + b"a" * 2_000, "csv:2: .* more than 1,000 characters"),
    "a long line": (
        b"file,patient\nNORMAL/x00.png," + b"a" * 200_000,
        "csv:2: has 200,015 characters; at most 100,000",
    ),
    "many columns": (b"file,patient" + b"," * 40_000_000, "csv:1: has 40,000,012 characters; at most 100,000"),
    "large": (b"file,patient\n" + b"\n" * 70_000_000, "has 70,000,013 bytes; at most 67,108,864"),
    "NUL": (b"file,patient\nNORMAL/x00.png,an\0na\n", "holds NUL"),
    "UTF-16 without a mark": (TABLE.encode("utf-16-le"), "holds NUL"),
    "UTF-32": (TABLE.encode("utf-32"), "holds NUL"),
    "half UTF-16": (TABLE.encode("utf-16")[:-1], "is no UTF-16 text"),
    "Latin-1": (
        "file,patient\nNORMAL/x00.png,J\xe9r\xf4me\n".encode("latin-1"),
        "csv:2: is no UTF-8 text; save it as UTF-8",
    ),
    "a picture": (encoded(kind="PNG"), "is no UTF-8 text"),
}


@pytest.mark.parametrize(("table", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_patients_csv_is_refused_in_one_line(tmp_path: Path, table: bytes, message: str) -> None:
    path = write_folder(tmp_path / "tree", flat(4) | {"patients.csv": table}, "")
    with pytest.raises(RequestError, match=message) as error:
        opened(path)
    assert "patients.csv" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < len(str(path)) + 300


@pytest.mark.parametrize("kind", ["folder", "kaggle"])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("set/train/patients.csv", "is not read there; move its rows to set/patients.csv"),
        ("set/train/NORMAL/patients.csv", "is not read there; move its rows to set/patients.csv"),
        ("set/Patients.csv", "is not read under this name; rename it to patients.csv"),
        ("PATIENTS.CSV", "is not read under this name; rename it to patients.csv"),
    ],
)
def test_a_patients_csv_in_another_place_is_refused(tmp_path: Path, kind: str, place: str, message: str) -> None:
    files = {f"set/train/{name}": content for name, content in flat(4).items()}
    path = write_zip(tmp_path / "a.zip", files | {place: TABLE.encode()}, "")
    with pytest.raises(RequestError, match=message):
        opened(path, kind)


def test_two_tables_and_one_of_other_pictures(tmp_path: Path) -> None:
    files = {f"a/set/train/{name}": content for name, content in flat(4).items()}
    table = b"file,patient\ntrain/NORMAL/x00.png,anna\n"
    for place in ("patients.csv", "a/patients.csv", "a/set/patients.csv"):
        source = opened(write_zip(tmp_path / f"{len(place)}.zip", files | {place: table}, ""))
        assert pictures(source)["train/NORMAL/x00.png"].patient == "anna"
    with pytest.raises(RequestError, match=r"there are a/set/patients.csv and patients\.csv; expected one of them"):
        opened(write_zip(tmp_path / "two.zip", files | {"patients.csv": table, "a/set/patients.csv": table}, ""))
    other = opened(write_zip(tmp_path / "other.zip", files | {"b/patients.csv": table}, ""))
    assert other.notes[0] == "b/patients.csv is in another folder than these pictures, and is not read"


def test_a_table_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "tree", flat(4), "")
    (tmp_path / "patients.csv").write_text(TABLE)
    (path / "patients.csv").symlink_to(tmp_path / "patients.csv")
    with pytest.raises(RequestError, match=r"patients\.csv: cannot be used: a link that leads out of the folder"):
        opened(path)
