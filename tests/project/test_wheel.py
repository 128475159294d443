"""The wheel in a new environment: its command, its examples, its types."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from pneumo import __version__
from tests.conftest import ROOT
from tests.support.program import LONGEST, check_study

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Environment:
    """A virtual environment with pneumo's wheel."""

    folder: Path

    @property
    def package(self) -> Path:
        """The folder of the installed package."""
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.folder)}), "pneumo")

    def run(self, program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in a folder. The clone is not on its path."""
        return subprocess.run(
            [self.folder / "bin" / program, *arguments],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=LONGEST,
            stdin=subprocess.DEVNULL,
            check=False,
        )


@pytest.fixture(scope="module")
def environment_with_wheel(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Build the wheel and install it. The dependencies are those of the environment that runs the tests."""
    wheels, environment = tmp_path_factory.mktemp("wheels"), Environment(tmp_path_factory.mktemp("environment"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment.folder], check=True)
    python, (wheel,) = environment.folder / "bin" / "python", wheels.iterdir()
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    # Python does not read the .pth files in a folder that a .pth file names, so the editable pneumo is not found.
    (environment.package.parent / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment


def test_the_command_is_that_of_the_wheel(environment_with_wheel: Environment, tmp_path: Path) -> None:
    done = environment_with_wheel.run("python", "-c", "import pneumo; print(pneumo.__file__)", folder=tmp_path)
    assert done.stdout == f"{environment_with_wheel.package / '__init__.py'}\n"
    done = environment_with_wheel.run("pneumo", "--version", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pneumo {__version__}\n", "")


def test_the_wheel_says_that_it_has_types(environment_with_wheel: Environment) -> None:
    assert (environment_with_wheel.package / "py.typed").is_file()


def test_the_wheel_has_every_example(environment_with_wheel: Environment, tmp_path: Path) -> None:
    examples = environment_with_wheel.package / "experiments"
    assert {path.name: path.read_bytes() for path in examples.iterdir()} == {
        path.name: path.read_bytes() for path in (ROOT / "experiments").iterdir()
    }
    done = environment_with_wheel.run("pneumo", "search", "experiments/article.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"pneumo.search: experiments/article.yaml: there is no such experiment file; examples are in {examples}\n"
    )


def test_the_quick_start_runs_in_an_empty_folder(environment_with_wheel: Environment, tmp_path: Path) -> None:
    done = environment_with_wheel.run("pneumo", "search", "--trials", "1", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    check_study(tmp_path, "quickstart", 1)
