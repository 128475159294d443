"""Shortcuts: planted ones are found, and labels that nothing tells stay unexplained."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from pneumo.data.audit import audit_source
from pneumo.data.audit.findings import Audit
from pneumo.data.audit.page import audit_page
from pneumo.data.audit.report import format_report
from pneumo.data.audit.shortcuts import SUSPICIOUS, clustered_auc
from pneumo.data.sources import source_at
from tests.support.pictures import write_zip

Grey = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))


def no_change(grey: Grey, ill: bool) -> Grey:
    return grey


def corner_mark(grey: Grey, ill: bool) -> Grey:
    if not ill:
        grey[2:8, -12:-4] = 255
    return grey


def grey_border(grey: Grey, ill: bool) -> Grey:
    for edge in (grey[:3], grey[-3:], grey[:, :3], grey[:, -3:]):
        edge[:] = 60 if ill else 90
    return grey


def brighter(grey: Grey, ill: bool) -> Grey:
    return grey // 2 + (60 if ill else 30)


def audit_of(
    tmp_path: Path,
    change: Callable[[Grey, bool], Grey] = no_change,
    *,
    seed: int = 0,
    patients: int = 60,
    alike: int = 1,
    taller: int = 0,
) -> Audit:
    """Audit pictures of noise that nothing but `change` tells apart.

    Args:
        tmp_path: Where the zip is written.
        change: Changes a picture, given whether it has pneumonia.
        seed: Seed of the noise.
        patients: Patients of each class.
        alike: Pictures of a patient, which differ by little.
        taller: By how many pixels the pictures with pneumonia are taller.
    """
    rng, files = np.random.default_rng(seed), {}
    for patient in range(2 * patients):
        ill = patient % 2 == 1
        coarse = rng.integers(40, 200, (8, 8), np.uint8)
        for number in range(alike):
            size = (72, 64 + taller * ill)
            grey = np.array(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
            grey = grey + rng.integers(0, 20, grey.shape, np.uint8)
            out = io.BytesIO()
            Image.fromarray(change(grey, ill)).save(out, "PNG")
            folder, stem = ("PNEUMONIA", "person{}_virus_{}") if ill else ("NORMAL", "IM-{:04d}-{:04d}")
            files[f"train/{folder}/{stem.format(patient + 1, number + 1)}.png"] = out.getvalue()
    first_of_each = list(files)[::alike][:2]
    files |= {name.replace("train/", "test/"): files[name] for name in first_of_each}
    source = source_at(str(write_zip(tmp_path / f"{seed}.zip", files)))
    audit, measurements = audit_source(source)
    report, page = format_report(audit), audit_page(audit, source, measurements)
    for shortcut in audit.shortcuts:
        assert f"{shortcut.auc:.3f}" in report
        assert f"{shortcut.low:.3f} to {shortcut.high:.3f}" in page
    return audit


def shortcuts_found(audit: Audit) -> set[str]:
    return {f.kind.removeprefix("shortcut-") for f in audit.findings if f.kind.startswith("shortcut")}


@pytest.mark.parametrize(
    ("change", "taller", "name"),
    [
        (corner_mark, 0, "frame"),
        (grey_border, 0, "frame"),
        (brighter, 0, "brightness"),
        (no_change, 8, "files"),
    ],
)
def test_a_planted_shortcut_is_found(
    tmp_path: Path, change: Callable[[Grey, bool], Grey], taller: int, name: str
) -> None:
    audit = audit_of(tmp_path, change, taller=taller)
    (finding,) = [finding for finding in audit.findings if finding.kind == f"shortcut-{name}"]
    (shortcut,) = [shortcut for shortcut in audit.shortcuts if shortcut.name == name]
    assert finding.severity == "warning"
    assert f"AUC of {shortcut.auc:.3f}" in finding.message
    assert shortcut.low > 0.9
    folders = [name.split("/")[:2] for name in finding.pictures]
    assert folders == [["train", "NORMAL"]] * 6 + [["train", "PNEUMONIA"]] * 6


@pytest.mark.parametrize("seed", range(2))
def test_labels_that_nothing_tells_give_no_warning(tmp_path: Path, seed: int) -> None:
    audit = audit_of(tmp_path, seed=seed)
    assert [shortcut.name for shortcut in audit.shortcuts] == ["files", "brightness", "frame"]
    assert shortcuts_found(audit) == set()
    assert all(shortcut.low <= 0.5 for shortcut in audit.shortcuts)


def test_a_patient_who_is_recognized_is_no_shortcut(tmp_path: Path) -> None:
    """Pictures of a patient look alike. If the folds cut patients apart, that tells nothing."""
    audit = audit_of(tmp_path, alike=4, patients=30)
    assert shortcuts_found(audit) == set()
    assert max(shortcut.low for shortcut in audit.shortcuts) < SUSPICIOUS


def test_too_few_patients_say_nothing(tmp_path: Path) -> None:
    audit = audit_of(tmp_path, corner_mark, patients=19)
    assert audit.shortcuts == ()
    assert shortcuts_found(audit) == set()


def test_the_interval_is_that_of_resampled_patients() -> None:
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(150), rng.integers(1, 5, 150))
    labels = (patients % 3 > 0).astype(np.int64)
    labels[::17] = 1 - labels[::17]  # some patients have pictures of both classes
    scores = labels + rng.normal(size=150)[patients] + 0.5 * rng.normal(size=len(labels))
    auc, low, high = clustered_auc(labels, scores, patients)
    assert auc == pytest.approx(roc_auc_score(labels, scores))
    rows = [np.flatnonzero(patients == patient) for patient in range(150)]
    draws = (np.concatenate([rows[n] for n in rng.integers(0, 150, 150)]) for _ in range(400))
    error = np.std([roc_auc_score(labels[draw], scores[draw]) for draw in draws])
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    assert (low + high) / 2 == pytest.approx(auc)


def test_ties_count_half() -> None:
    labels = np.array([0, 1] * 20)
    auc, low, high = clustered_auc(labels, np.zeros(40), np.arange(40))
    assert (auc, low, high) == (0.5, 0.5, 0.5)
