"""A study to promote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pneumo.console.command import TypedCommand
from tests.support.program import search, write
from tests.support.promotions import Promote


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two trials on phantoms, the baseline and another, in a folder."""
    folder = tmp_path_factory.mktemp("studied")
    experiment = write(folder, search={"trials": 2}, hyperparameters={"filters": [8, 16], "epochs": 2})
    done = search(experiment, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "-m pneumo.promote small" in done.stdout
    return folder


@pytest.fixture
def study(studied: Path) -> Path:
    """The study as the search left it: the store is restored before each test."""
    searched = studied / "as-searched.db"
    if not searched.exists():
        shutil.copy(studied / "mlflow.db", searched)
    shutil.copy(searched, studied / "mlflow.db")
    return studied


@pytest.fixture
def promote(capsys: pytest.CaptureFixture[str]) -> Promote:
    from pneumo.promote.__main__ import app

    def run(*arguments: str) -> tuple[int, str]:
        status = app([*arguments, "--force", "a test"], standalone_mode=False, obj=TypedCommand("promote", arguments))
        return status, capsys.readouterr().out

    return run
