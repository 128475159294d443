"""The downloads, from a server on loopback that speaks the real protocols."""

from __future__ import annotations

import hashlib
import io
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pneumo.data.fetch import CREDENTIALS, MEDMNIST, SLUG
from tests.support.downloads import TOKEN, Remote, fetch, remote_server
from tests.support.medmnist_files import arrays
from tests.support.pictures import archive_files, write_zip
from tests.support.program import runs, search

LONGEST = 120
"""Seconds to wait for a download before it counts as hanging."""

NPZ = "pneumoniamnist.npz"
ZIP = "chest-xray-pneumonia.zip"

LOGGED_IN = {"KAGGLE_API_TOKEN": TOKEN}


@pytest.fixture
def server() -> Iterator[Remote]:
    with remote_server() as started:
        yield started


@pytest.fixture
def zipped(server: Remote, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Put a small archive on the server and return its bytes."""
    content = write_zip(tmp_path_factory.mktemp("remote") / ZIP, archive_files(patients=12)).read_bytes()
    server.files[SLUG] = content
    return content


@pytest.fixture
def npz(server: Remote) -> bytes:
    """Put a small PneumoniaMNIST on the server and return its bytes."""
    out = io.BytesIO()
    np.savez_compressed(out, **arrays(40))
    server.files[f"/records/{NPZ}"] = out.getvalue()
    return out.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def finish(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a download and return exit status, output and error output."""
    out, errors = child.communicate(timeout=LONGEST)
    return child.returncode, out, errors


def assert_refused(child: subprocess.Popen[str], *words: str) -> None:
    """Assert that a download ends with status 2 and one line that contains all words."""
    status, out, errors = finish(child)
    assert (status, out) == (2, ""), errors
    assert errors.count("\n") == 1, errors
    assert [word for word in words if word not in errors] == []


def files_in(folder: Path) -> set[str]:
    """Return the files below a folder, without Kaggle's own settings."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith((".kaggle/", ".config/", ".cache/"))}


def test_the_archive_is_downloaded_and_the_token_is_written_nowhere(
    server: Remote, zipped: bytes, tmp_path: Path
) -> None:
    status, out, errors = finish(fetch(server, "kaggle", folder=tmp_path, environment=LOGGED_IN))
    assert (status, errors) == (0, "")
    assert (tmp_path / "data" / ZIP).read_bytes() == zipped
    assert files_in(tmp_path) == {f"data/{ZIP}"}
    assert f"pneumo.data audit data/{ZIP}" in out
    assert f"--data data/{ZIP}" in out
    assert TOKEN not in out
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]

    requests = len(server.ranges)
    assert finish(fetch(server, "kaggle", folder=tmp_path, environment=LOGGED_IN))[:2] == (0, out)
    assert len(server.ranges) == requests  # the file is there already


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "the first header": lambda content: flipped(content, 0),
    "a byte of the first file": lambda content: flipped(content, 200),
    "a byte in the middle": lambda content: flipped(content, len(content) // 2),
    "eight zeros in the middle": lambda content: (
        content[: len(content) // 2] + bytes(8) + content[len(content) // 2 + 8 :]
    ),
    "the directory": lambda content: flipped(content, content.index(b"PK\x01\x02")),
    "the end": lambda content: flipped(content, len(content) - 22),
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_zip_that_is_there_already_is_named_and_downloaded_again(
    server: Remote, zipped: bytes, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ZIP).write_bytes(damage(zipped))
    status, out, errors = finish(fetch(server, "kaggle", folder=tmp_path, environment=LOGGED_IN))
    assert (status, errors.count("\n")) == (0, 1), errors
    assert errors.startswith(f"data/{ZIP}: damaged (")
    assert "complete" in out
    assert (tmp_path / "data" / ZIP).read_bytes() == zipped
    assert files_in(tmp_path) == {f"data/{ZIP}"}


def test_another_dataset_to_another_folder_with_the_token_in_a_file(
    server: Remote, zipped: bytes, tmp_path: Path
) -> None:
    server.files["someone/other-x-rays"] = zipped
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "access_token").write_text(TOKEN)
    child = fetch(server, "kaggle", "someone/other-x-rays", "--to", "my pictures/here", folder=tmp_path)
    assert finish(child)[0] == 0
    assert files_in(tmp_path) == {"my pictures/here/other-x-rays.zip"}


def test_without_credentials_three_lines_say_where_to_get_them(server: Remote, zipped: bytes, tmp_path: Path) -> None:
    status, out, errors = finish(fetch(server, "kaggle", folder=tmp_path))
    assert (status, out, errors) == (2, "", CREDENTIALS + "\n")
    assert errors.count("\n") == 3
    for words in (
        "https://www.kaggle.com/settings/api",
        "KAGGLE_API_TOKEN",
        "~/.kaggle/access_token",
        "fetch medmnist",
    ):
        assert words in errors
    assert (files_in(tmp_path), server.ranges) == (set(), [])


@pytest.mark.parametrize(
    "wrong", [{"KAGGLE_API_TOKEN": "KGAT_wrong-secret"}, {"KAGGLE_USERNAME": "u", "KAGGLE_KEY": "wrong-secret"}]
)
def test_wrong_credentials_are_refused_and_not_shown(
    server: Remote, zipped: bytes, tmp_path: Path, wrong: dict[str, str]
) -> None:
    child = fetch(server, "kaggle", folder=tmp_path, environment=wrong)
    status, out, errors = finish(child)
    assert (status, out) == (2, "")
    assert errors.count("\n") == 1
    assert "refuse" in errors
    assert "wrong-secret" not in errors
    assert files_in(tmp_path) == set()


def test_a_missing_dataset_or_file_is_named(server: Remote, tmp_path: Path) -> None:
    child = fetch(server, "kaggle", "someone/nothing", folder=tmp_path, environment=LOGGED_IN)
    assert_refused(child, "someone/nothing", "no such file or dataset")
    assert_refused(
        fetch(server, "medmnist", "--size", "28", folder=tmp_path), f"/records/{NPZ}", "no such file or dataset"
    )
    assert_refused(fetch(server, "kaggle", "../../evil", folder=tmp_path, environment=LOGGED_IN), "expected owner/name")
    assert files_in(tmp_path) == set()


def test_a_broken_connection_is_resumed_within_one_download(server: Remote, zipped: bytes, tmp_path: Path) -> None:
    server.cuts = [len(zipped) // 2]
    status, _, errors = finish(fetch(server, "kaggle", folder=tmp_path, environment=LOGGED_IN))
    assert (status, errors) == (0, "")
    assert (tmp_path / "data" / ZIP).read_bytes() == zipped
    assert server.ranges[0] is None
    assert server.ranges[1] is not None


@pytest.mark.parametrize("ending_signal", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_download_is_resumed_by_the_next_one(
    server: Remote, tmp_path: Path, ending_signal: signal.Signals
) -> None:
    noise = np.random.default_rng(0).bytes(3 * 2**20)
    content = write_zip(tmp_path / ZIP, {"train/NORMAL/IM-0001-0001.jpeg": noise}).read_bytes()
    (tmp_path / ZIP).unlink()
    server.files[SLUG], server.stall = content, 2 * 2**20
    child = fetch(server, "kaggle", folder=tmp_path, environment=LOGGED_IN)
    partial = tmp_path / "data" / ".chest-xray-pneumonia" / ZIP
    deadline = time.monotonic() + LONGEST
    while not partial.is_file() or partial.stat().st_size < 2**20:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(ending_signal)
    status, out, errors = finish(child)
    assert not (tmp_path / "data" / ZIP).exists()
    if ending_signal == signal.SIGINT:
        assert (status, errors) == (130, "")
        assert out.endswith("-m pneumo.data fetch kaggle\n")
    server.go.set()

    assert finish(fetch(server, "kaggle", folder=tmp_path, environment=LOGGED_IN))[0] == 0
    assert (tmp_path / "data" / ZIP).read_bytes() == content
    assert files_in(tmp_path) == {f"data/{ZIP}"}
    first_byte = int(str(server.ranges[-1]).removeprefix("bytes=").removesuffix("-"))
    assert first_byte >= 2**20


def test_pneumoniamnist_is_downloaded_and_a_second_attempt_completes_a_broken_one(
    server: Remote, npz: bytes, tmp_path: Path
) -> None:
    server.cuts = [len(npz) // 2]
    assert_refused(
        fetch(server, "medmnist", "--size", "28", folder=tmp_path, md5=md5(npz)), NPZ, "the connection failed"
    )
    assert files_in(tmp_path) == set()
    status, out, errors = finish(fetch(server, "medmnist", "--size", "28", folder=tmp_path, md5=md5(npz)))
    assert (status, errors) == (0, "")
    assert f"--data data/{NPZ}" in out
    assert (tmp_path / "data" / NPZ).read_bytes() == npz
    requests = len(server.ranges)
    assert finish(fetch(server, "medmnist", "--size", "28", folder=tmp_path, md5=md5(npz)))[0] == 0
    assert len(server.ranges) == requests


def test_a_wrong_checksum_is_refused(server: Remote, npz: bytes, zipped: bytes, tmp_path: Path) -> None:
    # The published MD5 is not that of the test's file.
    assert_refused(
        fetch(server, "medmnist", "--size", "28", folder=tmp_path), NPZ, "broken", "28209eda62fecd6e6a2d98b1501bb15f"
    )
    middle = len(zipped) // 2
    server.files[SLUG] = zipped[:middle] + bytes(8) + zipped[middle + 8 :]
    assert_refused(fetch(server, "kaggle", folder=tmp_path, environment=LOGGED_IN), SLUG, "broken", "was deleted")
    server.files[SLUG] = b"<html>not the requested file</html>"
    assert_refused(fetch(server, "kaggle", folder=tmp_path, environment=LOGGED_IN), SLUG, "broken", "was deleted")
    assert files_in(tmp_path) == set()


def test_an_unreachable_server_is_one_line(server: Remote, tmp_path: Path) -> None:
    unreachable = Remote("http://127.0.0.1:9")
    assert_refused(fetch(unreachable, "medmnist", folder=tmp_path), "the connection failed")
    assert_refused(fetch(unreachable, "kaggle", folder=tmp_path, environment=LOGGED_IN), "the connection failed")
    assert files_in(tmp_path) == set()


def test_a_disk_that_cannot_hold_the_archive_is_reported_before_the_first_byte(
    server: Remote, zipped: bytes, tmp_path: Path
) -> None:
    server.claims = shutil.disk_usage(tmp_path).total + 2**30
    assert_refused(fetch(server, "kaggle", folder=tmp_path, environment=LOGGED_IN), "to fetch", "free", "--to")
    assert files_in(tmp_path) == set()


def test_a_full_disk_ends_in_one_line(server: Remote, tmp_path: Path) -> None:
    mounted = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs data && exec "$@"', "sh")
    (tmp_path / "data").mkdir()
    probe = subprocess.run([*mounted, "true"], cwd=tmp_path, capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"this machine lets no user mount a small disk: {probe.stderr.strip()}")
    server.files[f"/records/{NPZ}"] = bytes(2**21)
    child = fetch(server, "medmnist", "--size", "28", folder=tmp_path, md5=md5(bytes(2**21)), before=mounted)
    assert_refused(child, "data: cannot be written: No space left on device")


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_the_part_that_was_downloaded(server: Remote, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(3 * 2**20)
    content = write_zip(tmp_path / ZIP, {"train/NORMAL/IM-0001-0001.jpeg": noise}).read_bytes()
    (tmp_path / ZIP).unlink()
    server.files[SLUG] = content
    full = fetch(server, "kaggle", folder=tmp_path, most_bytes=2**21, environment=LOGGED_IN)
    assert_refused(full, "data: cannot be written", "(the disk is full)")
    assert not (tmp_path / "data" / ZIP).exists()
    assert finish(fetch(server, "kaggle", folder=tmp_path, environment=LOGGED_IN))[0] == 0
    assert (tmp_path / "data" / ZIP).read_bytes() == content
    assert server.ranges[-1] is not None


def test_an_npz_is_fetched_from_its_publisher_unless_a_mirror_is_named() -> None:
    assert MEDMNIST.startswith("https://zenodo.org/records/")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kaggle", "medmnist"])
def test_a_search_runs_on_the_downloaded_pictures(
    server: Remote, zipped: bytes, npz: bytes, tmp_path: Path, kind: str
) -> None:
    options = ("--size", "28") if kind == "medmnist" else ()
    status, out, errors = finish(fetch(server, kind, *options, folder=tmp_path, md5=md5(npz), environment=LOGGED_IN))
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
