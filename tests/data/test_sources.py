"""What every source of pictures has to do, and how sources are found by name and by path."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pneumo.data.audit import audit_source
from pneumo.data.decoding import decode
from pneumo.data.pictures import SealedError, Source
from pneumo.data.prepare import prepare
from pneumo.data.sealed import open_sealed_test
from pneumo.data.sources import FETCHES, OPENERS, open_source, path_sources, source_at
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec, PhantomSpec
from pneumo.spec.sources import DEFAULT_SOURCE, GENERATED_SOURCES, SOURCE_OF_SUFFIX, SOURCES
from tests.support.medmnist_files import arrays, save_arrays
from tests.support.pictures import archive_files, write_folder, write_zip


def kaggle_spec(folder: Path) -> DataSpec:
    return DataSpec(source="kaggle", path=str(write_zip(folder / "archive.zip", archive_files())))


def folder_spec(folder: Path) -> DataSpec:
    files = {name.replace("NORMAL", "healthy").replace("PNEUMONIA", "ill"): c for name, c in archive_files().items()}
    return DataSpec(source="folder", path=str(write_folder(folder / "tree", files)), classes=("healthy", "ill"))


def medmnist_spec(folder: Path) -> DataSpec:
    return DataSpec(source="medmnist", path=str(save_arrays(folder / "pneumoniamnist.npz", arrays())))


def phantom_spec(_: Path) -> DataSpec:
    return DataSpec(source="phantom", phantom=PhantomSpec(patients=20, size=64))


SPECS: dict[str, Callable[[Path], DataSpec]] = {
    "kaggle": kaggle_spec,
    "folder": folder_spec,
    "medmnist": medmnist_spec,
    "phantom": phantom_spec,
}
"""For each source a function that writes a small set of pictures and returns the block that opens it."""


@pytest.fixture(params=SOURCES)
def spec(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSpec:
    """The data block of a small set of pictures, for each source."""
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    return SPECS[request.param](tmp_path)


@pytest.fixture
def source(spec: DataSpec) -> Source:
    return open_source(spec)


def test_the_table_has_the_sources_that_an_experiment_can_name() -> None:
    assert tuple(OPENERS) == SOURCES
    assert DEFAULT_SOURCE in path_sources()
    assert {*GENERATED_SOURCES, *SOURCE_OF_SUFFIX.values()} <= set(SOURCES)
    assert [name for name, opener in OPENERS.items() if not opener.reads] == list(GENERATED_SOURCES)


def test_every_fetch_command_exists() -> None:
    from pneumo.data.__main__ import fetch_app

    assert {command.name for command in fetch_app.registered_commands} == set(FETCHES)


def test_pictures_are_listed_by_name_once_with_labels_and_patients(spec: DataSpec, source: Source) -> None:
    assert source.kind == spec.source
    names = [picture.name for picture in (*source.pictures, *source.sealed)]
    assert len(set(names)) == len(names)
    for pictures in (source.pictures, source.sealed):
        assert [picture.name for picture in pictures] == sorted(picture.name for picture in pictures)
        assert {picture.label for picture in pictures} == {0, 1}
        assert all(picture.patient and picture.digest for picture in pictures)
    assert len(set(source.classes)) == 2
    assert source.validation <= {picture.name for picture in source.pictures}
    unknown = [picture for picture in (*source.pictures, *source.sealed) if not picture.known_by]
    assert all(picture.patient == picture.name for picture in unknown)
    assert "\n" not in source.description


def test_a_source_opened_twice_is_the_same(spec: DataSpec, source: Source) -> None:
    again = open_source(spec)
    assert again == source
    assert again.encoded(again.pictures[0]) == source.encoded(source.pictures[0])


def test_every_picture_can_be_decoded_by_several_threads(source: Source) -> None:
    with ThreadPoolExecutor(8) as threads:
        encoded = list(threads.map(source.encoded, source.pictures))
    squares = [decode(e, [32], p.name).squares[0] for e, p in zip(encoded, source.pictures, strict=True)]
    assert all(square.shape == (32, 32) for square in squares)
    assert len({square.tobytes() for square in squares}) == len({picture.digest for picture in source.pictures})


def test_test_pictures_are_sealed(source: Source) -> None:
    with pytest.raises(SealedError, match="sealed"):
        source.encoded(source.sealed[0])
    # Nor can a picture of the training pool be read under the name of a test picture.
    with pytest.raises(SealedError):
        source.encoded(replace(source.pictures[0], name=source.sealed[0].name))
    test = open_sealed_test(source)
    assert test.pictures == source.sealed
    assert test.encoded(test.pictures[0])
    with pytest.raises(SealedError):
        test.encoded(source.pictures[0])


def test_a_source_can_be_audited_and_prepared(source: Source) -> None:
    result, _ = audit_source(source)
    assert sum(row.pictures for row in result.rows) == len(source.pictures) + len(source.sealed)
    assert [finding for finding in result.findings if finding.kind in ("unreadable", "left-out")] == []
    prepared = prepare(source, [32], 0.3, 0)
    assert (prepared.kind, prepared.classes, prepared.unreadable) == (source.kind, source.classes, ())
    assert sorted(np.r_[prepared.training, prepared.validation]) == list(range(len(source.pictures)))
    assert prepared.pixels(32).any(axis=(1, 2)).all()


@pytest.mark.parametrize("name", path_sources())
def test_a_missing_path_names_the_command_that_fetches_such_pictures(tmp_path: Path, name: str) -> None:
    opener = OPENERS[name]
    advice = f"give --data {opener.reads}; python -m pneumo.data fetch {opener.fetch} fetches it"
    with pytest.raises(RequestError) as error:
        open_source(DataSpec(source=name))
    assert str(error.value) == f"data.path: no path is given; {advice}"
    with pytest.raises(RequestError) as error:
        open_source(DataSpec(source=name, path=str(tmp_path / "nowhere")))
    assert str(error.value) == f"{tmp_path / 'nowhere'}: there is no such file or folder; {advice}"


@pytest.mark.parametrize("name", path_sources())
def test_the_source_of_a_path_is_found(tmp_path: Path, name: str) -> None:
    spec = SPECS[name](tmp_path)
    assert spec.path is not None
    assert source_at(spec.path, classes=spec.classes) == open_source(spec)
    assert source_at(spec.path, name, spec.classes) == open_source(spec)


@pytest.mark.parametrize("name", ["nothing", *GENERATED_SOURCES])
def test_a_source_that_reads_no_path_is_refused_for_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match=f"--source {name}: expected kaggle, folder or medmnist"):
        source_at(str(tmp_path), name)


@pytest.mark.parametrize("name", [name for name, opener in OPENERS.items() if not opener.takes_classes])
def test_class_names_that_a_source_does_not_take_are_told(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    spec = SPECS[name](tmp_path)
    named = spec.model_copy(update={"classes": ("healthy", "sick")})
    assert open_source(spec).notes == open_source(named).notes[:-1]
    note = f"data.classes is not used: the source {name} has the classes NORMAL and PNEUMONIA"
    assert open_source(named).notes[-1] == note
    if spec.path is not None:
        for folder in ("train/healthy", "train/sick"):
            (tmp_path / "other" / folder).mkdir(parents=True)
        wrong = named.model_copy(update={"path": str(tmp_path / "other")})
        with pytest.raises(
            RequestError, match=rf"the source {name} has these .* data.classes needs data: .source: folder"
        ):
            open_source(wrong)


def test_a_relative_path_counts_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "a.zip", archive_files(2, 1))
    assert len(open_source(DataSpec(path="a.zip")).pictures) == 4
