"""DICOM as hospitals write it: the pixels are those of a viewer, and patient ids are stored nowhere."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000Lossless,
    RLELossless,
)

from pneumo.data.decoding import UnreadableError, decode
from pneumo.data.dicom_patients import read_patients
from pneumo.data.prepare import prepare
from pneumo.data.sources import source_at
from pneumo.spec.errors import RequestError
from tests.support.deep_pictures import EMPTY, table
from tests.support.dicom_files import dicom, ramp
from tests.support.pictures import write_folder
from tests.support.program import runs, search, write

SECRET = "MRN-4711-KOWALSKI"


@pytest.mark.parametrize("compression", ["", RLELossless, JPEG2000Lossless], ids=["plain", "rle", "jpeg2000"])
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("mode", ["MONOCHROME1", "MONOCHROME2"])
def test_grey_as_a_viewer_shows_it(mode: str, bits: int, compression: str) -> None:
    decoded = decode(dicom(ramp(bits), bits, mode, compression=compression), (64,), "a.dcm")
    square = decoded.squares[0].astype(int)
    expected = np.rint(np.linspace(0, 255, 64)).astype(int)
    assert np.abs(square - (expected[::-1] if mode == "MONOCHROME1" else expected)).max() <= 1
    assert (decoded.width, decoded.height, decoded.mode) == (64, 64, f"{mode} {bits} bit")


def test_rescale_and_window_are_applied() -> None:
    window: dict[str, Any] = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 1000, "WindowWidth": 1000}
    square = decode(dicom(ramp(12), 12, **window), (64,), "a.dcm").squares[0][0].astype(int)
    values = ramp(12)[0] * 2.0 - 1000
    assert (square[values < 500] == 0).all()
    assert (square[values > 1500] == 255).all()
    inside = (values > 500) & (values < 1500)
    assert np.abs(square[inside] - (values[inside] - 500) * 0.255).max() <= 2


@pytest.mark.parametrize("bits", [12, 16])
def test_without_a_window_brightness_can_be_compared(bits: int) -> None:
    """The range is that of 12 bits, whether the file states it or the values tell it, and not that of one picture."""
    bright, dark = (decode(dicom(ramp(10) + first, bits), (64,), "a").squares[0] for first in (3000, 1100))
    assert (bright.min(), bright.max()) == (round(3000 / 4095 * 255), round(4023 / 4095 * 255))
    assert (dark.min(), dark.max()) == (round(1100 / 4095 * 255), round(2123 / 4095 * 255))


SHOWN = np.rint(np.linspace(0, 255, 64)).astype(int)
"""The greys that `ramp` shows."""


def shown(content: bytes) -> Any:
    """Return the greys of a ramp, left to right."""
    return decode(content, (64,), "a.dcm").squares[0][0].astype(int)


WINDOW: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096}


@pytest.mark.parametrize("keyword", EMPTY)
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize(
    "others", [{}, WINDOW, {"RescaleSlope": 1, "RescaleIntercept": 0}], ids=["", "window", "rescale"]
)
def test_an_empty_element_counts_as_absent(keyword: str, bits: int, others: dict[str, Any]) -> None:
    empty = others | {keyword: EMPTY[keyword]}
    without = {other: value for other, value in others.items() if other != keyword}
    content = dicom(ramp(12), bits, **empty)
    assert np.array_equal(shown(content), shown(dicom(ramp(12), bits, **without)))
    assert np.abs(shown(content) - SHOWN).max() <= 1


def test_a_window_of_empty_values_counts_as_absent() -> None:
    for center, width in ((["", ""], ["", ""]), (["", 2048], ["", 4096]), ([2048, 5], [4096, 5]), ("", 10), (10, "")):
        assert np.abs(shown(dicom(ramp(12), 16, WindowCenter=center, WindowWidth=width)) - SHOWN).max() <= 1


@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
def test_a_lookup_table_is_applied(keyword: str) -> None:
    all_values = np.arange(4096)
    for item in (
        table(all_values // 16, 8),
        table(all_values // 16, 8, packed=True),
        table(all_values, 12),
        table(all_values, 12, packed=True),
        table(all_values * 16, 16),
        table(all_values, 16),  # the table itself uses 12 of its 16 bits
    ):
        assert np.abs(shown(dicom(ramp(12), 12, **dict[str, Any]({keyword: [item]}))) - SHOWN).max() <= 1
    clipped = shown(dicom(ramp(12), 12, **dict[str, Any]({keyword: [table(np.arange(256), 8, first=1000)]})))
    assert (clipped[0], clipped[-1]) == (0, 255)
    without_data = table(all_values, 12)
    without_data.LUTData = None
    for item in (Dataset(), without_data):
        assert np.abs(shown(dicom(ramp(12), 12, **dict[str, Any]({keyword: [item]}))) - SHOWN).max() <= 1


@pytest.mark.parametrize("window", [{}, WINDOW])
def test_a_rescale_may_invert_or_be_half_stated(window: dict[str, Any]) -> None:
    inverted = dicom(4095 - ramp(12), 12, RescaleSlope=-1, RescaleIntercept=4095, **window)
    assert np.abs(shown(inverted) - SHOWN).max() <= 1
    halves: tuple[dict[str, Any], ...] = ({"RescaleSlope": 1}, {"RescaleIntercept": 0})
    for half in halves:
        assert np.abs(shown(dicom(ramp(12), 12, **half, **window)) - SHOWN).max() <= 1


def test_signed_values_are_read() -> None:
    centered = ramp(12).astype(np.int16) - 2048
    for values, bits in (
        (centered.view(np.uint16), 12),
        (centered.view(np.uint16) & 0x0FFF, 12),  # the sign is not extended into the unused bits
        (ramp(12), 16),
        ((ramp(16).astype(np.int32) - 32768).astype(np.int16).view(np.uint16), 16),
    ):
        assert np.abs(shown(dicom(values, bits, PixelRepresentation=1)) - SHOWN).max() <= 1


def test_padding_does_not_count_and_is_black() -> None:
    for mode in ("MONOCHROME1", "MONOCHROME2"):
        padded = ramp(12) if mode == "MONOCHROME2" else 4095 - ramp(12)
        padded[:, :8] = 65535
        padded[:, 8:16] = 65000
        greys = shown(dicom(padded, 16, mode, PixelPaddingValue=65535, PixelPaddingRangeLimit=65000))
        assert not greys[:16].any()
        assert np.abs(greys[16:] - SHOWN[16:]).max() <= 1


def test_other_bits_of_a_cell_do_not_count() -> None:
    assert np.abs(shown(dicom(ramp(12) << 4, 12, HighBit=15)) - SHOWN).max() <= 1
    with_overlay = ramp(12)
    with_overlay[::2] |= 0x1000
    # An overlay element names the bit that it uses. Without it, the bit belongs to the value.
    with pytest.raises(UnreadableError, match="in 12 bits; BitsStored is wrong"):
        decode(dicom(with_overlay, 12), (64,))
    header = pydicom.dcmread(io.BytesIO(dicom(with_overlay, 12)))
    header.add_new((0x6000, 0x0102), "US", 12)
    out = io.BytesIO()
    header.save_as(out)
    assert np.abs(shown(out.getvalue()) - SHOWN).max() <= 1


EMPTY_ID = (None, "", " ", "\0\0", ["", ""])


@pytest.mark.parametrize("patient_id", EMPTY_ID)
def test_an_empty_patient_id_counts_as_absent(
    patient_id: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    contents = {
        "empty": dicom(ramp(12), 12, PatientID=patient_id),
        "named": dicom(ramp(12), 12, PatientID="A", IssuerOfPatientID=patient_id),
        "plain": dicom(ramp(12), 12, patient="A"),
    }
    patients = read_patients({name: name for name in contents}, lambda file, digest: contents[file])
    assert set(patients) == {"named", "plain"}
    assert patients["named"] == patients["plain"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dicom(ramp(12), 12, NumberOfFrames=2), "2 frames"),
        (dicom(ramp(12), 12, Rows=60_000, Columns=60_000), "too many"),
        (dicom(ramp(12), 12, "YBR_FULL"), "expected MONOCHROME1"),
        (dicom(ramp(12), 12)[:700], None),
        (dicom(ramp(12), 12)[:132], None),
        (dicom(ramp(12), 12).replace(b"DICM", b"DICN"), "neither"),
        *(
            (dicom(ramp(12), 12, **dict[str, Any]({keyword: None})), f"{keyword} is missing")
            for keyword in ("PhotometricInterpretation", "SamplesPerPixel", "BitsStored", "PixelRepresentation")
        ),
        (dicom(ramp(12), 12, RescaleSlope=0, RescaleIntercept=1), "RescaleSlope is 0"),
        (dicom(ramp(12), 12, WindowCenter=0, WindowWidth=0), "Window Width must be greater"),
        (dicom(ramp(12), 12, **WINDOW, VOILUTFunction="ODD"), "VOI LUT Function value 'ODD'"),
        (dicom(ramp(12), 12, **WINDOW).replace(b"2048.0", b"20x8.0"), "WindowCenter is '20x8.0'; expected a number"),
        (dicom(ramp(12), 12, **WINDOW).replace(b"4096.0", b"nan   "), "WindowWidth is 'nan'; expected a number"),
        (dicom(ramp(12), 12, HighBit=3), "HighBit is 3; expected 11 to 15"),
        (dicom(ramp(16), 12), "BitsStored is wrong"),
    ],
)
def test_an_unreadable_file_says_why(content: bytes, message: str | None) -> None:
    with pytest.raises(UnreadableError, match=message):
        decode(content, (64,), "a.dcm")


def hospital(folder: Path, patients: int = 10) -> Path:
    """Write `<class>/...` with two pictures of each patient, in every supported encoding, some without a suffix."""
    for label, name in enumerate(("NORMAL", "PNEUMONIA")):
        (folder / name).mkdir(parents=True)
        for number in range(2 * patients):
            noise = np.random.default_rng([label, number]).integers(0, 400, (72, 64), np.uint16)
            pixels = (ramp(12, 64)[:1].repeat(72, 0) // (2 + label) + noise).astype(np.uint16)
            content = dicom(
                pixels,
                12 if number % 2 else 16,
                f"MONOCHROME{1 + number % 2}",
                f"{SECRET}-{label}-{number // 2}",
                ("", RLELossless, JPEG2000Lossless)[number % 3],
            )
            (folder / name / f"I{number:06d}{('', '.dcm')[number % 2]}").write_bytes(content)
    (folder / "DICOMDIR").write_bytes(b"an index")
    return folder


def secrets_in(folder: Path) -> list[Path]:
    """Return the files that contain the patient id."""
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_patients_are_read_from_headers_and_their_ids_are_stored_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    path = hospital(tmp_path / "pictures")
    source = source_at(str(path))
    pictures = [*source.pictures, *source.sealed]
    assert len(pictures) == 40
    assert {picture.known_by for picture in pictures} == {"DICOM headers"}
    assert len({picture.patient for picture in pictures}) == 20
    assert all(len(picture.patient) == len("dicom-") + 16 for picture in pictures)
    prepared = prepare(source, [32], 0.2, 0)
    assert prepared.unreadable == ()
    assert not {prepared.patients[row] for row in prepared.training} & {
        prepared.patients[row] for row in prepared.validation
    }
    assert secrets_in(tmp_path / "cache") == []
    # Opened again, the patients come from the cache.
    assert source_at(str(path)).pictures == source.pictures


@pytest.mark.parametrize("patient", ["ANONYMOUS", "0", ""])
def test_a_patient_id_that_all_files_share_tells_no_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: str
) -> None:
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    content = [dicom(ramp(12) + n, 12, patient=patient) for n in range(8)]
    files = {f"{('NORMAL', 'PNEUMONIA')[n % 2]}/scan{n}.dcm": content[n] for n in range(8)}
    source = source_at(str(write_folder(tmp_path / "pictures", files, "")), "folder")
    assert {picture.known_by for picture in source.pictures} == {""}
    assert any("the same PatientID" in note for note in source.notes) == bool(patient)


def test_without_pydicom_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hospital(tmp_path / "pictures", 4)
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(RequestError, match=r"pneumo\[dicom\]"):
        source_at(str(path))


@pytest.mark.slow
def test_a_trial_is_trained_on_dicom(tmp_path: Path) -> None:
    path = hospital(tmp_path / "pictures")
    project = tmp_path / "project"
    project.mkdir()
    experiment = write(project, data={"source": "folder", "validation": 0.3}, search={"trials": 1})
    done = search(experiment, "--data", path, folder=project, PNEUMO_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    _, (trial,) = runs(project, "small")
    assert trial.data.tags["pneumo.state"] == "complete"
    assert secrets_in(project) == secrets_in(tmp_path / "cache") == []
