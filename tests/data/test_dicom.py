"""DICOM as hospitals write it: the pixels are those of a viewer, and patient ids are stored nowhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import (
    JPEG2000Lossless,
    RLELossless,
)

from pneumo.data.decoding import UnreadableError, decode
from pneumo.data.prepare import prepare
from pneumo.data.sources import source_at
from pneumo.spec.errors import RequestError
from tests.support.dicom_files import dicom, ramp
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


def test_narrow_values_without_a_window_fill_the_range() -> None:
    square = decode(dicom(ramp(16) // 64 + 3000, 16), (64,), "a").squares[0]
    assert (square.min(), square.max()) == (0, 255)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dicom(ramp(12), 12, NumberOfFrames=2), "2 frames"),
        (dicom(ramp(12), 12, Rows=60_000, Columns=60_000), "too many"),
        (dicom(ramp(12), 12, "YBR_FULL"), "expected MONOCHROME1"),
        (dicom(ramp(12), 12)[:700], None),
        (dicom(ramp(12), 12)[:132], None),
        (dicom(ramp(12), 12).replace(b"DICM", b"DICN"), "neither"),
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
    assert source.stated == {picture.name for picture in pictures}
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
