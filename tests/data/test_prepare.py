"""Decoding, the cache of decoded pictures, and phantoms."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import pneumo.data.prepare as prepare_module
from pneumo.compute.footprint import pictures_bytes
from pneumo.data.decoding import Decoded, UnreadableError, decode
from pneumo.data.pictures import Source
from pneumo.data.prepare import Prepared, prepare, sizes_to_decode
from pneumo.data.sealed import open_sealed_test
from pneumo.data.sources import open_source
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec, PhantomSpec
from tests.conftest import ROOT
from tests.support.pictures import archive_files, encoded, write_folder, write_zip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set an empty cache folder and return its path."""
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def opened(path: Path) -> Source:
    return open_source(DataSpec(path=str(path)))


def refuse(*_: object) -> list[NDArray[np.uint8]]:
    raise AssertionError("a picture was decoded")


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


# decoding


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(1300, 1000), (64, 64), (90, 200)])
def test_a_square_resembles_the_picture(kind: str, mode: str, size: tuple[int, int]) -> None:
    content = encoded(3, size, mode, kind)
    plain = Image.open(io.BytesIO(content)).convert("L").resize((64, 64), Image.Resampling.BOX)
    square = decode(content, [64], f"a.{kind.lower()}").squares[0]
    assert square.shape == (64, 64)
    assert square.dtype == np.uint8
    assert np.abs(square.astype(int) - np.asarray(plain, int)).mean() < 3


def test_a_size_does_not_depend_on_the_other_sizes() -> None:
    content = encoded(1, (1300, 1000))
    together = decode(content, [48, 64, 96, 128, 300], "a.jpeg").squares
    for size, square in zip([48, 64, 96, 128, 300], together, strict=True):
        assert np.array_equal(decode(content, [size], "a.jpeg").squares[0], square)


def test_modes_become_8_bit_grey() -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    grey = Image.fromarray(ramp)
    clear = grey.convert("RGBA")
    clear.putalpha(0)
    palette = grey.convert("P")
    assert np.array_equal(decode(saved(Image.fromarray(ramp.astype(np.uint16) * 257)), [64], "a.png").squares[0], ramp)
    assert np.abs(decode(saved(palette), [64], "a.png").squares[0].astype(int) - ramp).max() <= 1
    assert np.array_equal(decode(saved(grey.convert("RGBA")), [64], "a.png").squares[0], ramp)
    assert not decode(saved(clear), [64], "a.png").squares[0].any()
    assert set(np.unique(decode(saved(grey.convert("1")), [64], "a.png").squares[0])) <= {0, 255}


def test_content_that_is_no_picture_is_unreadable() -> None:
    complete = encoded(0, (400, 300))
    png = encoded(0, kind="PNG")
    huge = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(huge)) + b"IHDR" + huge + struct.pack(">I", zlib.crc32(b"IHDR" + huge))
    for content in (
        b"",
        b"text",
        complete[: len(complete) // 2],
        png[:60],
        saved(Image.new("L", (9, 9)), "BMP"),
        png[:8] + chunk,
    ):
        for name in ("a.jpeg", "a.png", "a.dcm", "a"):
            with pytest.raises(UnreadableError):
                decode(content, [64], name)


@pytest.mark.parametrize(("kind", "name", "claimed"), [("PNG", "a.jpg", "JPEG"), ("JPEG", "b.PNG", "PNG")])
def test_content_of_another_format_than_the_name_says_is_refused(kind: str, name: str, claimed: str) -> None:
    with pytest.raises(UnreadableError, match=f"is a {kind}, though its name says {claimed}"):
        decode(encoded(1, kind=kind), [64], name)


# the cache


def test_prepared_pictures(cache: Path, tmp_path: Path) -> None:
    files = archive_files()
    source = opened(write_zip(tmp_path / "a.zip", files))
    seen: list[tuple[int, int]] = []
    prepared = prepare(source, [64, 32], 0.3, 0, progress=lambda done, total: seen.append((done, total)))
    assert prepared.sizes == (32, 64)
    assert seen[0] == (0, 24)
    assert seen[-1] == (24, 24)
    for size in prepared.sizes:
        rows = prepared.pixels(size)
        assert isinstance(rows, np.memmap)
        assert not rows.flags.writeable
        for row, name in enumerate(prepared.names):
            assert np.array_equal(rows[row], decode(files[name], [size], name).squares[0])
    assert [f"{label}" for label in prepared.labels] == [str(int("PNEUMONIA" in name)) for name in prepared.names]
    assert sorted([*prepared.training, *prepared.validation]) == list(range(24))
    assert len(source.sealed) == 8
    assert prepared.test == source.test_digest != prepared.digest("training")
    with pytest.raises(ValueError, match="not prepared"):
        prepared.pixels(48)
    worker: Prepared = pickle.loads(pickle.dumps(prepared))
    assert np.array_equal(worker.pixels(64), prepared.pixels(64))
    assert worker.digest("training") == prepared.digest("training")


def test_no_test_picture_is_decoded(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = archive_files()
    source = opened(write_zip(tmp_path / "a.zip", files))
    sealed = {files[picture.name] for picture in source.sealed}
    decoded: set[bytes] = set()

    def recording_decode(content: bytes, sizes: Sequence[int], name: str) -> Decoded:
        assert content not in sealed
        decoded.add(content)
        return decode(content, sizes, name)

    monkeypatch.setattr(prepare_module, "decode", recording_decode)
    prepare(source, [32], 0.3, 0)
    assert decoded == {files[picture.name] for picture in source.pictures}
    with pytest.raises(AssertionError):
        prepare(open_sealed_test(source), [32], 0.5, 0)


def test_a_second_start_decodes_nothing_and_one_more_size_only_that(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = archive_files()
    first = prepare(opened(write_zip(tmp_path / "a.zip", files)), [32], 0.3, 0)
    decoded_sizes: list[list[int]] = []

    def recording_decode(content: bytes, sizes: Sequence[int], name: str) -> Decoded:
        decoded_sizes.append(list(sizes))
        return decode(content, sizes, name)

    monkeypatch.setattr(prepare_module, "decode", recording_decode)
    # The unpacked folder has the same content, so it uses the zip's cache.
    folder = opened(write_folder(tmp_path / "tree", files))
    again = prepare(folder, [32], 0.3, 0)
    assert decoded_sizes == []
    assert again.digest("validation") == first.digest("validation")
    prepare(folder, [32, 48], 0.3, 0)
    assert decoded_sizes == [[48]] * 24


def test_the_digest_depends_on_content_names_and_split(cache: Path, tmp_path: Path) -> None:
    files = archive_files()
    base = prepare(opened(write_zip(tmp_path / "a.zip", files)), [32], 0.3, 0)
    other_seed = prepare(opened(tmp_path / "a.zip"), [32], 0.3, 1)
    name = base.names[base.training[0]]
    content = prepare(opened(write_zip(tmp_path / "b.zip", files | {name: encoded(77)})), [32], 0.3, 0)
    assert len(base.digest("training")) <= 36
    assert base.digest("training") != base.digest("validation")
    assert base.digest("training") != other_seed.digest("training")
    assert base.digest("training") != content.digest("training")
    assert base.digest("validation") == content.digest("validation")


def test_unreadable_pictures_are_named_each_time_and_left_out(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = archive_files(patients=30, pictures=2)
    bad = "train/PNEUMONIA/person7_virus_2.jpeg"
    source = opened(write_zip(tmp_path / "a.zip", files | {bad: b"no picture"}))
    for _ in range(2):
        lines: list[str] = []
        prepared = prepare(source, [32], 0.2, 0, say=lines.append)
        assert len(lines) == 1
        assert bad in lines[0]
        row = prepared.names.index(bad)
        assert prepared.unreadable == ((bad, "neither a JPEG nor a PNG, TIFF, BMP, GIF, WebP or DICOM"),)
        assert row not in {*prepared.training, *prepared.validation}
        assert len(prepared.training) + len(prepared.validation) == 119
        assert sum(count.pictures for count in prepared.counts[:4]) == 119
        monkeypatch.setattr(prepare_module, "decode", refuse)


def test_over_one_percent_unreadable_is_refused(cache: Path, tmp_path: Path) -> None:
    files = archive_files(patients=30, pictures=2)
    for name in list(files)[:2]:
        files[name] = b"no picture"
    source = opened(write_zip(tmp_path / "a.zip", files))
    for _ in range(2):
        with pytest.raises(RequestError, match=r"2 of 120 pictures cannot be decoded.*IM-0001-0001\.jpeg"):
            prepare(source, [32], 0.2, 0)


@pytest.mark.parametrize("remaining_bytes", [0, 100])
@pytest.mark.parametrize("name", ["32.npy", "unreadable.json", "split-*.npz"])
def test_a_damaged_cache_is_filled_again(cache: Path, tmp_path: Path, name: str, remaining_bytes: int) -> None:
    files = archive_files(patients=60) | {"train/NORMAL/IM-0001-0001.jpeg": b"no picture"}
    source = opened(write_zip(tmp_path / "a.zip", files))
    before = prepare(source, [32], 0.3, 0)
    complete = np.array(before.pixels(32))
    (damaged,) = before.folder.glob(name)
    os.truncate(damaged, min(remaining_bytes, damaged.stat().st_size - 1))
    after = prepare(source, [32], 0.3, 0)
    assert np.array_equal(after.pixels(32), complete)
    assert after.unreadable == before.unreadable
    assert after.digest("validation") == before.digest("validation")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "file"))
    with pytest.raises(RequestError, match="PNEUMO_CACHE"):
        prepare(open_source(DataSpec(source="phantom")), [64], 0.2, 0)


def test_the_folder_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(DataSpec(source="phantom", phantom=PhantomSpec(patients=8, size=64)))
    monkeypatch.delenv("PNEUMO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert prepare(source, [16], 0.2, 0).folder.is_relative_to(tmp_path / "xdg" / "pneumo")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert prepare(source, [16], 0.2, 0).folder.is_relative_to(tmp_path / "home" / ".cache" / "pneumo")


PREPARING = """
import json, os, signal, sys
from pneumo.data.prepare import prepare
from pneumo.data.sources import open_source
from pneumo.spec.experiment import DataSpec

def progress(done, total):
    if done >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

prepared = prepare(open_source(DataSpec(path=sys.argv[1])), [32, 48], 0.3, 0, progress)
print(json.dumps([prepared.digest("training"), int(prepared.pixels(32).sum()), int(prepared.pixels(48).sum())]))
"""


def start_preparing(path: Path, kill_at: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREPARING, str(path), str(kill_at)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_no_partial_array_and_two_at_once_agree(cache: Path, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", archive_files(20, 2))
    assert start_preparing(path, 40).wait() == -signal.SIGKILL
    assert len(list(cache.glob("pictures/*/.*.tmp"))) == 2
    assert not list(cache.glob("pictures/*/[0-9]*.npy"))
    both = [start_preparing(path, 10**9) for _ in range(2)]
    lines = [json.loads(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert lines[0] == lines[1]
    assert not list(cache.glob("pictures/*/.*.tmp"))
    assert len(list(cache.glob("pictures/*/[0-9]*.npy"))) == 2


# phantoms


def test_phantoms_are_named_so_and_depend_only_on_their_seed() -> None:
    spec = DataSpec(source="phantom", phantom=PhantomSpec(patients=30, size=64, seed=3))
    source, again = open_source(spec), open_source(spec)
    more = open_source(DataSpec(source="phantom", phantom=PhantomSpec(patients=60, size=64, seed=3)))
    other = open_source(DataSpec(source="phantom", phantom=PhantomSpec(patients=30, size=64, seed=4)))
    assert "phantom" in source.description
    assert "not real" in source.description
    assert all("/phantom" in picture.name for picture in source.pictures + source.sealed)
    assert {picture.patient for picture in source.pictures}.isdisjoint(picture.patient for picture in source.sealed)
    assert {picture.label for picture in source.pictures} == {picture.label for picture in source.sealed} == {0, 1}
    # With more patients, the pictures of the first ones are the same.
    assert set(source.pictures) <= set(more.pictures)
    assert not {p.digest for p in source.pictures} & {p.digest for p in other.pictures}
    for picture in source.pictures[:5]:
        assert source.encoded(picture) == again.encoded(picture) == more.encoded(picture)
    assert len({source.encoded(picture) for picture in source.pictures}) == len(source.pictures)


@pytest.mark.parametrize("size", [64, 96, 224])
def test_a_phantom_is_the_same_on_every_machine(size: int) -> None:
    source = open_source(DataSpec(source="phantom", phantom=PhantomSpec(patients=8, size=size, seed=0)))
    pixels = [
        decode(source.encoded(picture), [size], picture.name).squares[0]
        for picture in (source.pictures[0], source.pictures[-1])
    ]
    assert all(square.shape == (size, size) and square.std() > 20 for square in pixels)
    assert [zlib.crc32(square.tobytes()) for square in pixels] == DRAWN[size]


DRAWN = {64: [2174318928, 2784069423], 96: [1214168790, 426293946], 224: [990049999, 1192143682]}


def test_pictures_of_one_patient_look_alike() -> None:
    source = open_source(DataSpec(source="phantom", phantom=PhantomSpec(patients=60, size=64)))
    small = np.stack([decode(source.encoded(p), [16], p.name).squares[0].ravel() for p in source.pictures]).astype(
        float
    )
    likeness = np.corrcoef(small)
    patients = np.array([picture.patient for picture in source.pictures])
    same = (patients[:, None] == patients) & ~np.eye(len(patients), dtype=bool)
    assert likeness[same].mean() > likeness[patients[:, None] != patients].mean()


def test_the_sizes_to_decode_are_known_before(cache: Path) -> None:
    source = open_source(DataSpec(source="phantom", phantom=PhantomSpec(patients=12, size=64)))
    assert sizes_to_decode(source, [64, 32, 64]) == (32, 64)
    assert not cache.exists()
    folder = prepare(source, [32], 0.3, 0).folder
    assert sizes_to_decode(source, [64, 32]) == (64,)
    prepare(source, [32, 64], 0.3, 0)
    assert sizes_to_decode(source, [64, 32]) == ()
    header = 128  # of each array
    assert sum(file.stat().st_size - header for file in folder.glob("*.npy")) == pictures_bytes(
        len(source.pictures), (32, 64)
    )


def test_a_complete_cache_may_be_read_only_and_an_incomplete_one_is_refused(tmp_path: Path) -> None:
    data, cache = write_folder(tmp_path / "tree", archive_files()), tmp_path / "cache"

    def run_prepare(sizes: str, *before: str) -> subprocess.CompletedProcess[str]:
        arguments = [*before, sys.executable, "-m", "pneumo.data", "prepare", str(data), "--sizes", sizes]
        environment = os.environ | {"PNEUMO_CACHE": str(cache)}
        return subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    filled = run_prepare("32")
    assert filled.returncode == 0, filled.stderr
    paths = [cache, *cache.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    # The file system lets root write everywhere. Without its capabilities root is an ordinary user.
    unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    try:
        if subprocess.run([*unprivileged, "touch", cache / "a"], capture_output=True, check=False).returncode == 0:
            pytest.skip("this user can write everywhere, even under setpriv")
        complete, incomplete = run_prepare("32", *unprivileged), run_prepare("32,64", *unprivileged)
    finally:
        for path in paths:
            path.chmod(0o755)
    assert complete.returncode == 0, complete.stderr
    assert complete.stdout == f"{filled.stdout.rstrip()}; an earlier command decoded them\n"
    assert incomplete.returncode == 2
    assert incomplete.stderr.count("\n") == 1, incomplete.stderr
    assert "the cache cannot be written: Permission denied; set PNEUMO_CACHE" in incomplete.stderr
