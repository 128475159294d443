"""A study to promote."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest

from pneumo.console.command import TypedCommand
from tests.support.databases import copy_database
from tests.support.in_process import RunHere
from tests.support.program import search, write
from tests.support.promotions import Promote, PromoteHere


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
        copy_database(studied / "mlflow.db", searched)
    copy_database(searched, studied / "mlflow.db")
    return studied


@pytest.fixture
def promote(capsys: pytest.CaptureFixture[str]) -> Promote:
    from pneumo.promote.__main__ import app

    def run(*arguments: str) -> tuple[int, str]:
        status = app([*arguments, "--force", "a test"], standalone_mode=False, obj=TypedCommand("promote", arguments))
        return status, capsys.readouterr().out

    return run


@pytest.fixture
def promote_here(run_here: RunHere) -> PromoteHere:
    def run(folder: Path, *arguments: object, status: int = 0) -> CompletedProcess[str]:
        done = run_here("promote", *arguments, folder=folder)
        assert done.returncode == status, (done.stdout, done.stderr)
        return done

    return run
