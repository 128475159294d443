"""A user's own folder: layouts, classes, patients, and the validation and test parts."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pneumo.data.pictures import Source
from pneumo.data.prepare import prepare
from pneumo.data.sealed import open_sealed_test
from pneumo.data.sources import open_source, source_at
from pneumo.data.split import split
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec
from tests.support.pictures import archive_files, encoded, write_folder, write_zip


def opened(path: Path, **spec: object) -> Source:
    return open_source(DataSpec.model_validate({"source": "folder", "path": str(path)} | spec))


def flat(patients: int = 20, classes: tuple[str, str] = ("normal", "Pneumonia")) -> dict[str, bytes]:
    """Return files in the layout `<class>/...`, with one picture of each patient."""
    numbered = [(label, name, n) for label, name in enumerate(classes) for n in range(patients)]
    return {f"{name}/p{n:02d}.png": encoded(n + 100 * label, kind="PNG") for label, name, n in numbered}


def names(source: Source) -> tuple[set[str], set[str]]:
    return {picture.name for picture in source.pictures}, {picture.name for picture in source.sealed}


@pytest.mark.parametrize("outer", ["", "deep/er"])
def test_classes_alone_are_cut_by_patient_and_the_test_pictures_stay_the_same(tmp_path: Path, outer: str) -> None:
    files = flat()
    zipped = opened(write_zip(tmp_path / "a.zip", files, f"{outer}/" if outer else ""))
    folder = opened(write_folder(tmp_path / "tree", files, outer))
    assert zipped.pictures == folder.pictures
    assert zipped.sealed == folder.sealed
    pool, sealed = names(zipped)
    assert pool | sealed == set(files)
    assert not pool & sealed
    assert [sum(picture.label == label for picture in zipped.sealed) for label in (0, 1)] == [3, 3]
    assert "no test folder" in zipped.notes[0]
    assert zipped.encoded(zipped.pictures[0]) == files[zipped.pictures[0].name]


def test_splits_by_their_usual_names_and_folders_below_the_class(tmp_path: Path) -> None:
    files = {
        f"{part}/{label}/{'site/' * (n % 2)}{n}.jpg": encoded(n)
        for part in ("Training", "testing")
        for label in ("NORMAL", "PNEUMONIA")
        for n in range(4)
    }
    pool, sealed = names(opened(write_zip(tmp_path / "a.zip", files)))
    assert {name.partition("/")[0] for name in pool} == {"Training"}
    assert {name.partition("/")[0] for name in sealed} == {"testing"}
    assert len(pool) == len(sealed) == 8


def test_classes_of_the_experiment_the_negative_first(tmp_path: Path) -> None:
    path = write_folder(tmp_path, flat(classes=("healthy", "tb")), "")
    with pytest.raises(RequestError, match=r"but (healthy, tb|tb, healthy); name the two classes.*classes"):
        opened(path)
    source = opened(path, classes=["Healthy", "TB"])
    assert source.classes == ("Healthy", "TB")
    assert {picture.name.partition("/")[0]: picture.label for picture in source.pictures} == {"healthy": 0, "tb": 1}
    with pytest.raises(RequestError, match=r"no folders healthy and covid, which data\.classes names"):
        opened(write_folder(tmp_path / "b", flat(classes=("a", "b")), ""), classes=["healthy", "covid"])
    assert source_at(str(path), classes=("healthy", "tb")).kind == "folder"


def pool_and_test(train: Mapping[str, int], test: Mapping[str, int]) -> dict[str, bytes]:
    """Pictures by class and part, one for each patient."""
    counts = [(part, name, n) for part, by_class in (("train", train), ("test", test)) for name, n in by_class.items()]
    return {
        f"{part}/{name}/{part}{i}.png": encoded(kind="PNG", seed=zlib.crc32(f"{part} {name} {i}".encode()))
        for part, name, count in counts
        for i in range(count)
    }


OWN_CLASSES = {
    "one patient to validate on": (pool_and_test({"healthy": 3, "ill": 1}, {}), "ill: pictures of 1 patients"),
    "one patient to test on": (
        {"healthy/a.png": b"a", "healthy/b.png": b"b", "ill/c.png": b"c"},
        "ill: pictures of 1 patients",
    ),
    "no training pictures": (pool_and_test({"healthy": 3}, {}), "no training pictures of ill"),
    "no test pictures": (pool_and_test({"healthy": 3, "ill": 3}, {"ill": 2}), "test has no pictures of healthy"),
    "no test folder": (pool_and_test({"healthy": 3, "ill": 3}, {}), "expected folders test/healthy and test/ill"),
    "other folders": (pool_and_test({"a": 3, "b": 3}, {}), "no folders healthy and ill"),
    "one unreadable class": (
        pool_and_test({"healthy": 300, "ill": 2}, {}) | {"train/ill/train0.png": b"0", "train/ill/train1.png": b"1"},
        "no ill picture of the training part can be decoded",
    ),
}


@pytest.mark.parametrize(("files", "message"), OWN_CLASSES.values(), ids=OWN_CLASSES.keys())
def test_errors_name_the_classes_of_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], message: str
) -> None:
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RequestError, match=message) as error:  # noqa: PT012
        source = opened(write_zip(tmp_path / "a.zip", files, ""), classes=["healthy", "ill"])
        prepare(source, [32], 0.3, 0)
        open_sealed_test(source)
    assert not {"NORMAL", "PNEUMONIA"} & set(str(error.value).replace(":", " ").replace("/", " ").split())


def with_val(size: int, shared: bool = False) -> dict[str, bytes]:
    files = archive_files(20, 1)
    small = encoded(3)
    for label in ("NORMAL", "PNEUMONIA"):
        files |= {f"val/{label}/person{'' if shared else 5}{n}_virus_{label}.jpeg": small for n in range(size)}
    return files


def test_a_val_folder_is_used_if_it_is_large_enough_and_has_patients_of_its_own(tmp_path: Path) -> None:
    large = opened(write_zip(tmp_path / "a.zip", with_val(40)))
    assert large.validation == {name for name in with_val(40) if name.startswith("val/")}
    training, validation = split(large.pictures, 0.12, 0, large.validation)
    assert {large.pictures[row].name for row in validation} == large.validation
    assert len(training) + len(validation) == len(large.pictures)
    small = opened(write_zip(tmp_path / "b.zip", with_val(8)))
    assert small.validation == frozenset()
    assert any("too few to choose by" in note for note in small.notes)
    shared = opened(write_zip(tmp_path / "c.zip", with_val(40, shared=True)))
    assert shared.validation == frozenset()
    assert any("stand in train too" in note for note in shared.notes)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"normal/a.png": b"a"}, "no training pictures of PNEUMONIA"),
        ({"readme.txt": b""}, "there are no pictures"),
        (flat(4) | {"train/normal/x.png": b"x", "train/pneumonia/y.png": b"y"}, "p00.png is outside the split folders"),
        (
            dict.fromkeys(["train/NORMAL/a.png", "train/PNEUMONIA/b.png", "test/NORMAL/x.png"], b"x"),
            "test has no pictures of PNEUMONIA",
        ),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, files: Mapping[str, bytes], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        opened(write_zip(tmp_path / "a.zip", files, ""))


LETTERS = st.text("abpIM-_ .0123456789é", min_size=1, max_size=8).filter(lambda text: text.strip(" .") == text)
STEMS = st.one_of(LETTERS, st.builds("person{}_virus_{}".format, st.integers(0, 9), st.integers(0, 99)))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seed=st.integers(0, 1000))
def test_every_picture_once_and_no_patient_on_two_sides(tmp_path: Path, data: st.DataObject, seed: int) -> None:
    layout = data.draw(st.sampled_from(["{label}", "train/{label}", "Training/{label}/deeper"]))
    files = {}
    for label, name in enumerate(data.draw(st.sampled_from([("NORMAL", "PNEUMONIA"), ("normal", "pneumonia")]))):
        # Each class has patients that the other does not share, enough for all three parts.
        for stem in [f"IM-900{label}{n}-1" for n in range(4)] + data.draw(st.lists(STEMS, max_size=12)):
            files[f"{layout.format(label=name)}/{stem}.png"] = f"{label}{stem}".encode()
    order = data.draw(st.permutations(sorted(files)))
    splits = []
    for number, listed in enumerate((sorted(files), order)):
        source = opened(write_zip(tmp_path / f"{number}.zip", {name: files[name] for name in listed}, ""))
        training, validation = split(source.pictures, 0.2, seed, source.validation)
        parts = [
            [source.pictures[row] for row in training],
            [source.pictures[row] for row in validation],
            list(source.sealed),
        ]
        assert sorted(picture.name for part in parts for picture in part) == sorted(files)
        patients = [{picture.patient for picture in part} for part in parts]
        assert not patients[0] & patients[1]
        assert not (patients[0] | patients[1]) & patients[2]
        splits.append([{picture.name for picture in part} for part in parts])
    assert splits[0] == splits[1]
