"""A user's folder is copied, or renamed to an odd name deeper down: every verb goes by the folder's own files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.pictures import encoded
from tests.support.program import EQUAL, called, runs, search, write

pytestmark = pytest.mark.slow


def copy(before: Path, after: Path) -> Path:
    return Path(shutil.copytree(before, after, symlinks=True))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def original(tmp_path: Path) -> Path:
    folder = tmp_path / "orig"
    folder.mkdir()
    file = write(folder, hyperparameters={"filters": [2, 4]}, search={"trials": 2})
    done = search(file.name, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("name", "happens"), [("copy", copy), ("deeper/Röntgen 肺 50% #1", Path.rename)], ids=["copied", "renamed"]
)
def test_every_verb_goes_by_the_folders_own_files(
    original: Path, name: str, happens: Callable[[Path, Path], Path]
) -> None:
    (original.parent / name).parent.mkdir(exist_ok=True)
    folder = happens(original, original.parent / name)
    before = files(original)

    checked = search("--check", "small", folder=folder)
    assert checked.returncode == 2
    assert "was copied or moved" in checked.stderr
    assert checked.stderr.count("\n") == 1

    resumed = search("experiment.yaml", "--trials", 3, "--set", "search.keep.best=1", folder=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.count("\n") == 1, resumed.stderr
    assert f"are now {folder / 'mlruns'}" in resumed.stderr

    checked = search("--check", "small", folder=folder)
    assert checked.stdout == "Study small: 3 trials, 4 runs, no faults.\n", checked.stderr
    assert 1 <= len(list((folder / "mlruns").glob("*/models/*/artifacts/data/model.keras"))) <= 2  # the baseline's too

    promoted = called("promote", "small", "--force", "a test", folder=folder)
    assert promoted.returncode == 0, promoted.stderr
    _, trials = runs(folder, "small")
    replayed = called("replay", trials[0].info.run_id, folder=folder)
    assert EQUAL in replayed.stdout, replayed.stderr

    moved = folder.rename(folder.with_name("again"))
    (moved / "picture.jpg").write_bytes(encoded())
    predicted = called("predict", "picture.jpg", folder=moved)
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stderr.splitlines()[0].endswith(f"are now {moved / 'mlruns'}")
    if happens is copy:
        assert files(original) == before
