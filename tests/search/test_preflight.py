"""A study that is resumed after the patients of its pictures are known in another way."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pneumo.data.pictures import Source
from pneumo.data.prepare import Prepared, prepare
from pneumo.data.sources import source_at
from pneumo.search.preflight import check_common_folder, check_same_data
from pneumo.spec.compute import ComputeSpec
from pneumo.spec.errors import RequestError
from pneumo.spec.names import Tags
from pneumo.tracking.study import RecordedStudy
from tests.support.pictures import encoded, write_zip


@pytest.mark.parametrize("recorded_by_this_version", [True, False])
def test_another_split_is_refused_with_how_the_patients_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded_by_this_version: bool
) -> None:
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    files = {
        f"train/{label}/{first + n:08d}_{number:03d}.png": encoded(100 * first + 3 * n + number, kind="PNG")
        for label, first in (("NORMAL", 0), ("PNEUMONIA", 50))
        for n in range(10)
        for number in range(3)
    }
    source = source_at(str(write_zip(tmp_path / "a.zip", files, "")), "folder")
    # An earlier version took each of these pictures for a patient.
    by_picture = replace(source, pictures=tuple(replace(p, patient=p.name, known_by="") for p in source.pictures))
    before = prepared(by_picture)
    tags = {Tags.data(part): before.digest(part) for part in ("training", "validation")}
    if recorded_by_this_version:
        tags[Tags.DATA_PATIENTS] = before.patients_known
    recorded = RecordedStudy("run", None, tags, closed=True)
    check_same_data(recorded, prepared(by_picture), "s", 1)
    known_before = "not known: nothing tells them" if recorded_by_this_version else "not recorded"
    with pytest.raises(RequestError, match=f"before {known_before}.*, now told by names as in NIH") as error:
        check_same_data(recorded, prepared(source), "s", 1)
    assert len(str(error.value).splitlines()) == 1


def test_a_common_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_common_folder(ComputeSpec())
    check_common_folder(ComputeSpec(shared=str(tmp_path / "new" / "folder")))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(
        RequestError, match=r"^compute\.shared: .*/file/in cannot be written: .*/file is no folder; give"
    ):
        check_common_folder(ComputeSpec(shared=str(tmp_path / "file" / "in")))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(RequestError, match=r"^compute\.shared: .*: this user may not write there; give"):
        check_common_folder(ComputeSpec(shared=str(tmp_path)))


def prepared(source: Source) -> Prepared:
    return prepare(source, [16], 0.2, 0)
