"""Fetching, against a server on loopback that speaks the real protocols."""

from __future__ import annotations

import hashlib
import io
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pneumo.data.fetch import CREDENTIALS, MEDMNIST, SLUG
from tests.support.downloads import TOKEN, Remote, fetch, remote
from tests.support.medmnist_files import arrays
from tests.support.pictures import archive_files, write_zip
from tests.support.program import runs, search

LONGEST = 120
"""Seconds after which a fetch that hangs is ended."""

NPZ = "pneumoniamnist.npz"
ZIP = "chest-xray-pneumonia.zip"

LOGGED_IN = {"KAGGLE_API_TOKEN": TOKEN}


@pytest.fixture
def has() -> Iterator[Remote]:
    with remote() as server:
        yield server


@pytest.fixture
def zipped(has: Remote, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The archive that the server has."""
    content = write_zip(tmp_path_factory.mktemp("remote") / ZIP, archive_files(patients=12)).read_bytes()
    has.files[SLUG] = content
    return content


@pytest.fixture
def npz(has: Remote) -> bytes:
    """The PneumoniaMNIST that the server has."""
    out = io.BytesIO()
    np.savez_compressed(out, **arrays(40))
    has.files[f"/records/{NPZ}"] = out.getvalue()
    return out.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def done(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, output and error output."""
    out, errors = child.communicate(timeout=LONGEST)
    return child.returncode, out, errors


def refused(child: subprocess.Popen[str], *said: str) -> None:
    """One line that says it, status 2."""
    status, out, errors = done(child)
    assert (status, out) == (2, ""), errors
    assert errors.count("\n") == 1, errors
    for words in said:
        assert words in errors


def left(folder: Path) -> set[str]:
    """The files below a folder, Kaggle's own settings aside."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith((".kaggle/", ".config/", ".cache/"))}


def test_the_archive_comes_whole_and_the_token_stays_where_it_was(has: Remote, zipped: bytes, tmp_path: Path) -> None:
    status, out, errors = done(fetch(has, "kaggle", folder=tmp_path, environment=LOGGED_IN))
    assert (status, errors) == (0, "")
    assert (tmp_path / "data" / ZIP).read_bytes() == zipped
    assert left(tmp_path) == {f"data/{ZIP}"}
    assert f"pneumo.data audit data/{ZIP}" in out
    assert f"--data data/{ZIP}" in out
    assert TOKEN not in out
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]

    asked = len(has.ranges)
    assert done(fetch(has, "kaggle", folder=tmp_path, environment=LOGGED_IN))[:2] == (0, out)
    assert len(has.ranges) == asked  # it is there already


def test_another_dataset_to_another_folder_with_the_token_in_a_file(has: Remote, zipped: bytes, tmp_path: Path) -> None:
    has.files["someone/other-x-rays"] = zipped
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "access_token").write_text(TOKEN)
    child = fetch(has, "kaggle", "someone/other-x-rays", "--to", "my pictures/here", folder=tmp_path)
    assert done(child)[0] == 0
    assert left(tmp_path) == {"my pictures/here/other-x-rays.zip"}


def test_without_credentials_three_lines_say_where_to_get_them(has: Remote, zipped: bytes, tmp_path: Path) -> None:
    status, out, errors = done(fetch(has, "kaggle", folder=tmp_path))
    assert (status, out, errors) == (2, "", CREDENTIALS + "\n")
    assert errors.count("\n") == 3
    for words in (
        "https://www.kaggle.com/settings/api",
        "KAGGLE_API_TOKEN",
        "~/.kaggle/access_token",
        "fetch medmnist",
    ):
        assert words in errors
    assert (left(tmp_path), has.ranges) == (set(), [])


@pytest.mark.parametrize(
    "wrong", [{"KAGGLE_API_TOKEN": "KGAT_wrong-secret"}, {"KAGGLE_USERNAME": "u", "KAGGLE_KEY": "wrong-secret"}]
)
def test_wrong_credentials_are_refused_and_not_shown(
    has: Remote, zipped: bytes, tmp_path: Path, wrong: dict[str, str]
) -> None:
    child = fetch(has, "kaggle", folder=tmp_path, environment=wrong)
    status, out, errors = done(child)
    assert (status, out) == (2, "")
    assert errors.count("\n") == 1
    assert "refuse" in errors
    assert "wrong-secret" not in errors
    assert left(tmp_path) == set()


def test_what_is_not_there_is_named(has: Remote, tmp_path: Path) -> None:
    child = fetch(has, "kaggle", "someone/nothing", folder=tmp_path, environment=LOGGED_IN)
    refused(child, "someone/nothing", "no such file or dataset")
    refused(fetch(has, "medmnist", "--size", "28", folder=tmp_path), f"/records/{NPZ}", "no such file or dataset")
    refused(fetch(has, "kaggle", "../../evil", folder=tmp_path, environment=LOGGED_IN), "wants owner/name")
    assert left(tmp_path) == set()


def test_a_cut_connection_is_taken_up_within_one_fetch(has: Remote, zipped: bytes, tmp_path: Path) -> None:
    has.cuts = [len(zipped) // 2]
    status, _, errors = done(fetch(has, "kaggle", folder=tmp_path, environment=LOGGED_IN))
    assert (status, errors) == (0, "")
    assert (tmp_path / "data" / ZIP).read_bytes() == zipped
    assert has.ranges[0] is None
    assert has.ranges[1] is not None


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT])
def test_a_fetch_that_was_ended_in_the_middle_goes_on_in_the_next(
    has: Remote, tmp_path: Path, ended_by: signal.Signals
) -> None:
    noise = np.random.default_rng(0).bytes(3 * 2**20)
    content = write_zip(tmp_path / ZIP, {"train/NORMAL/IM-0001-0001.jpeg": noise}).read_bytes()
    (tmp_path / ZIP).unlink()
    has.files[SLUG], has.stall = content, 2 * 2**20
    child = fetch(has, "kaggle", folder=tmp_path, environment=LOGGED_IN)
    partial = tmp_path / "data" / ".chest-xray-pneumonia" / ZIP
    until = time.monotonic() + LONGEST
    while not partial.is_file() or partial.stat().st_size < 2**20:
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    child.send_signal(ended_by)
    status, out, errors = done(child)
    assert not (tmp_path / "data" / ZIP).exists()
    if ended_by == signal.SIGINT:
        assert (status, errors) == (130, "")
        assert "fetch kaggle" in out
    has.go.set()

    assert done(fetch(has, "kaggle", folder=tmp_path, environment=LOGGED_IN))[0] == 0
    assert (tmp_path / "data" / ZIP).read_bytes() == content
    assert left(tmp_path) == {f"data/{ZIP}"}
    went_on = int(str(has.ranges[-1]).removeprefix("bytes=").removesuffix("-"))
    assert went_on >= 2**20


def test_pneumoniamnist_comes_whole_and_the_second_attempt_completes_a_cut_one(
    has: Remote, npz: bytes, tmp_path: Path
) -> None:
    has.cuts = [len(npz) // 2]
    refused(fetch(has, "medmnist", "--size", "28", folder=tmp_path, md5=md5(npz)), NPZ, "the connection failed")
    assert left(tmp_path) == set()
    status, out, errors = done(fetch(has, "medmnist", "--size", "28", folder=tmp_path, md5=md5(npz)))
    assert (status, errors) == (0, "")
    assert f"--data data/{NPZ}" in out
    assert (tmp_path / "data" / NPZ).read_bytes() == npz
    asked = len(has.ranges)
    assert done(fetch(has, "medmnist", "--size", "28", folder=tmp_path, md5=md5(npz)))[0] == 0
    assert len(has.ranges) == asked


def test_a_wrong_checksum_is_refused(has: Remote, npz: bytes, zipped: bytes, tmp_path: Path) -> None:
    # The published MD5 is not that of the test's file.
    refused(fetch(has, "medmnist", "--size", "28", folder=tmp_path), NPZ, "broken", "28209eda62fecd6e6a2d98b1501bb15f")
    middle = len(zipped) // 2
    has.files[SLUG] = zipped[:middle] + bytes(8) + zipped[middle + 8 :]
    refused(fetch(has, "kaggle", folder=tmp_path, environment=LOGGED_IN), SLUG, "broken", "nothing is kept")
    has.files[SLUG] = b"<html>not what was asked for</html>"
    refused(fetch(has, "kaggle", folder=tmp_path, environment=LOGGED_IN), SLUG, "broken", "nothing is kept")
    assert left(tmp_path) == set()


def test_a_server_that_is_away(has: Remote, tmp_path: Path) -> None:
    away = Remote("http://127.0.0.1:9")
    refused(fetch(away, "medmnist", folder=tmp_path), "the connection failed")
    refused(fetch(away, "kaggle", folder=tmp_path, environment=LOGGED_IN), "the connection failed")
    assert left(tmp_path) == set()


def test_a_disk_that_cannot_hold_the_archive_is_told_before_the_first_byte(
    has: Remote, zipped: bytes, tmp_path: Path
) -> None:
    has.claims = shutil.disk_usage(tmp_path).total + 2**30
    refused(fetch(has, "kaggle", folder=tmp_path, environment=LOGGED_IN), "to fetch", "free", "--to")
    assert left(tmp_path) == set()


def test_a_full_disk_ends_in_one_line(has: Remote, tmp_path: Path) -> None:
    mounted = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs data && exec "$@"', "sh")
    (tmp_path / "data").mkdir()
    probe = subprocess.run([*mounted, "true"], cwd=tmp_path, capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"this machine lets no user mount a small disk: {probe.stderr.strip()}")
    has.files[f"/records/{NPZ}"] = bytes(2**21)
    child = fetch(has, "medmnist", "--size", "28", folder=tmp_path, md5=md5(bytes(2**21)), before=mounted)
    refused(child, "data: cannot be written: No space left on device")


@pytest.mark.slow
def test_a_disk_that_fills_up_under_way_keeps_what_came(has: Remote, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(3 * 2**20)
    content = write_zip(tmp_path / ZIP, {"train/NORMAL/IM-0001-0001.jpeg": noise}).read_bytes()
    (tmp_path / ZIP).unlink()
    has.files[SLUG] = content
    full = fetch(has, "kaggle", folder=tmp_path, most_bytes=2**21, environment=LOGGED_IN)
    refused(full, "data: cannot be written", "(the disk is full)")
    assert not (tmp_path / "data" / ZIP).exists()
    assert done(fetch(has, "kaggle", folder=tmp_path, environment=LOGGED_IN))[0] == 0
    assert (tmp_path / "data" / ZIP).read_bytes() == content
    assert has.ranges[-1] is not None


def test_an_npz_is_fetched_from_its_publisher_unless_a_mirror_is_named() -> None:
    assert MEDMNIST.startswith("https://zenodo.org/records/")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kaggle", "medmnist"])
def test_a_search_runs_on_what_was_fetched(has: Remote, zipped: bytes, npz: bytes, tmp_path: Path, kind: str) -> None:
    options = ("--size", "28") if kind == "medmnist" else ()
    status, out, errors = done(fetch(has, kind, *options, folder=tmp_path, md5=md5(npz), environment=LOGGED_IN))
    assert status == 0, errors
    path = {"kaggle": f"data/{ZIP}", "medmnist": f"data/{NPZ}"}[kind]
    (tmp_path / "experiment.yaml").write_text(
        "{name: fetched, hyperparameters: {epochs: 1, image_size: 32, dense_units: 8}}"
    )
    result = search("experiment.yaml", "--data", path, "--trials", "2", folder=tmp_path, **LOGGED_IN)
    assert result.returncode == 0, result.stderr
    parent, trials = runs(tmp_path, "fetched")
    assert [run.info.status for run in (parent, *trials)] == ["FINISHED"] * 3
    assert TOKEN not in result.stdout + result.stderr + out
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
