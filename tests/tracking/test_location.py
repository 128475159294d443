"""A local store whose folder is copied, renamed, moved, linked or mounted elsewhere goes by its own artifacts."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir, closing
from pathlib import Path

import pytest

from pneumo.spec.errors import RequestError
from pneumo.tracking import location
from pneumo.tracking.models import discard, remove
from pneumo.tracking.runs import read_artifact
from pneumo.tracking.store import Store, connect, connect_existing
from tests.conftest import ROOT
from tests.support.stores import absolute, addresses, models, write_store

URI = "sqlite:///mlflow.db"

HOLD = "from pneumo.tracking.store import connect; connect(); print('connected', flush=True); input()"


def copy(before: Path, after: Path) -> Path:
    """Copy a folder as `cp -r` does, and return the copy."""
    return Path(shutil.copytree(before, after, symlinks=True))


def mount_twice(before: Path, after: Path) -> Path:
    """Rename a folder, use it there, and rename it again: as a folder that a container mounts elsewhere."""
    inside = before.rename(before.with_name("container"))
    with chdir(inside):
        connect(absolute(URI))
    return inside.rename(after)


def link_artifacts(before: Path, after: Path) -> Path:
    """Put the artifacts on another disk behind a link, and rename the folder."""
    (before / "mlruns").rename(before.with_name("disk"))
    (before / "mlruns").symlink_to(before.with_name("disk"))
    return before.rename(after)


def replace(before: Path, after: Path) -> Path:
    """Rename a folder, and put an empty one in its place."""
    before.rename(after)
    before.mkdir()
    return after


LIFE: dict[str, tuple[str, Callable[[Path, Path], Path]]] = {
    "copied": ("copy", copy),
    "copied deeper": ("deep/er/copy", copy),
    "copied into itself": ("orig/copy", copy),
    "copied to a name with a space, an umlaut and a percent sign": ("Röntgen 肺 50% #1", copy),
    "renamed": ("new", Path.rename),
    "renamed to an odd name": ("Röntgen 肺 50% #1", Path.rename),
    "moved, and another folder is in its place": (
        "new",
        replace,
    ),
    "mounted elsewhere, and elsewhere again": ("new", mount_twice),
    "renamed, its artifacts behind a link": ("new", link_artifacts),
}


@pytest.mark.parametrize("uri", [URI, "sqlite:///store/mlflow.db"])
@pytest.mark.parametrize(("name", "happens"), LIFE.values(), ids=LIFE.keys())
def test_the_folder_goes_by_its_own_artifacts(
    tmp_path: Path,
    name: str,
    happens: Callable[[Path, Path], Path],
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if uri != URI and happens is mount_twice:
        uri = URI
    before = tmp_path / "orig"
    (before / "store").mkdir(parents=True)
    written = write_store(before, uri)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    after = happens(before, tmp_path / name)
    kept = models(before)
    monkeypatch.chdir(after)
    capfd.readouterr()

    store = connect(absolute(uri))
    (line,) = capfd.readouterr().err.splitlines()
    assert "copied or moved" in line
    assert str(after / "mlruns") in line
    here = addresses(uri, written)
    assert {str(location._path(address)).startswith(f"{after}/mlruns/") for address in here} == {True}
    assert read_artifact(store, written.study, "experiment.yaml") == "name: small\n"
    assert len(models(after)) == 1
    connect(absolute(uri))
    assert capfd.readouterr().err == ""

    store.client.delete_registered_model("small")
    remove(store, written.trial, "a test")
    assert models(after) == []
    assert models(before) == kept


@pytest.mark.parametrize("name", ["a%20b", "%2e%2e"])
def test_a_folder_that_mlflow_would_take_for_another_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    uri = f"sqlite:///{tmp_path}/{name}/mlflow.db".replace("%", "%25")
    with pytest.raises(RequestError, match="give the folder another name"):
        connect(uri)
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(RequestError, match="give the folder another name"):
        connect()
    assert list((tmp_path / name).iterdir()) == []


@pytest.mark.parametrize("given", ["link", "link of the database", "another spelling", "a URI"])
def test_one_folder_at_two_paths_is_no_copy(
    tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "orig"
    written = write_store(folder)
    before = addresses(f"sqlite:///{folder}/mlflow.db", written)
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mlflow.db").symlink_to(folder / "mlflow.db")
    monkeypatch.chdir(tmp_path / "other")
    uri = {
        "link": f"sqlite:///{tmp_path}/link/mlflow.db",
        "link of the database": f"sqlite:///{tmp_path}/other/mlflow.db",
        "another spelling": f"sqlite:///{tmp_path}/other/../orig/mlflow.db",
        "a URI": f"sqlite:///file:{folder}/mlflow.db?uri=true",
    }[given]
    capfd.readouterr()
    connect(uri)
    assert capfd.readouterr().err == ""
    assert addresses(f"sqlite:///{folder}/mlflow.db", written) == before


def test_artifacts_that_lie_elsewhere_stay_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A user gives an experiment another place for its artifacts, and a database serves several folders."""
    folder, elsewhere = tmp_path / "orig", tmp_path / "elsewhere"
    folder.mkdir()
    with chdir(folder):
        connect(absolute(URI)).client.create_experiment("small", str(elsewhere / "pictures"))
    written = write_store(folder)
    with chdir(folder):
        connect(absolute(URI)).client.create_experiment("cloud", "s3://bucket/small")
    before = addresses(f"sqlite:///{folder}/mlflow.db", written)
    assert {address.startswith(str(elsewhere)) for address in before} == {True}
    monkeypatch.chdir(folder.rename(tmp_path / "new"))
    client = connect(absolute(URI)).client
    assert addresses(URI, written) == before
    cloud = client.get_experiment_by_name("cloud")
    assert cloud is not None
    assert cloud.artifact_location == "s3://bucket/small"


def test_a_project_that_is_copied_without_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The database still serves the original. If the project is renamed, its artifacts are where it is now."""
    (tmp_path / "databases").mkdir()
    uri = f"sqlite:///{tmp_path}/databases/mlflow.db"
    written = write_store(tmp_path / "orig", uri)
    before = addresses(uri, written)
    monkeypatch.chdir(copy(tmp_path / "orig", tmp_path / "copy"))
    connect(uri)
    assert addresses(uri, written) == before
    monkeypatch.chdir((tmp_path / "orig").rename(tmp_path / "new"))
    connect(uri)
    assert {address.startswith(f"{tmp_path}/new/mlruns/") for address in addresses(uri, written)} == {True}


def copied_alone(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "orig" / "mlflow.db", tmp_path / "copy")


def copied_with_a_link(tmp_path: Path) -> None:
    copied_alone(tmp_path)
    (tmp_path / "copy" / "mlruns").symlink_to(tmp_path / "orig" / "mlruns")


def moved_alone(tmp_path: Path) -> None:
    copied_alone(tmp_path)
    shutil.rmtree(tmp_path / "orig")


@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (copied_alone, "without its artifacts"),
        (copied_with_a_link, "leads to the artifacts of that store"),
        (moved_alone, "which is gone"),
    ],
)
def test_a_store_without_artifacts_of_its_own_is_refused(
    tmp_path: Path, happens: Callable[[Path], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_store(tmp_path / "orig")
    happens(tmp_path)
    kept = models(tmp_path / "orig")
    monkeypatch.chdir(tmp_path / "copy")
    for opened in (connect, connect_existing):
        with pytest.raises(RequestError, match=words) as caught:
            opened()
        assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match=words):
        discard(Store(absolute(URI)), written.trial)
    assert models(tmp_path / "orig") == kept


def test_no_model_of_the_original_is_deleted_before_the_addresses_are_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_store(tmp_path / "orig")
    monkeypatch.chdir(copy(tmp_path / "orig", tmp_path / "copy"))
    store = Store(absolute(URI))
    store.client.delete_registered_model("small")
    with pytest.raises(RequestError, match="is not deleted"):
        remove(store, written.trial, "a test")
    assert len(models(tmp_path / "orig")) == len(models(tmp_path / "copy")) == 1


def test_a_command_that_only_reads_says_what_corrects_the_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path / "orig")
    monkeypatch.chdir(copy(tmp_path / "orig", tmp_path / "copy"))
    before = (tmp_path / "copy" / "mlflow.db").read_bytes()
    with pytest.raises(RequestError, match="writes nothing, so start the study's search again"):
        connect_existing(read_only=True)
    assert (tmp_path / "copy" / "mlflow.db").read_bytes() == before
    connect()
    connect_existing(read_only=True)


def test_a_process_that_uses_the_store_keeps_its_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search on this machine, say, whose folder a container mounts elsewhere."""
    written = write_store(tmp_path / "orig")
    monkeypatch.setattr(location, "_TIMEOUT", 0)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        cwd=tmp_path / "orig",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "connected\n"
        monkeypatch.chdir((tmp_path / "orig").rename(tmp_path / "new"))
        with pytest.raises(RequestError, match="another process uses the store"):
            connect()
        process.stdin.write("\n")
    connect()
    assert {address.startswith(f"{tmp_path}/new/") for address in addresses(URI, written)} == {True}


def test_every_column_of_mlflow_with_an_address_is_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store(tmp_path / "orig")
    after = (tmp_path / "orig").rename(tmp_path / "new")
    monkeypatch.chdir(after)
    connect()
    with closing(sqlite3.connect("mlflow.db")) as connection:
        dump = "\n".join(connection.iterdump())
    assert f"{tmp_path}/orig" not in dump
