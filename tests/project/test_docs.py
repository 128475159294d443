"""The documentation: its size, its links, and that what is made from the code is what the code says now."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from pneumo import __version__
from pneumo.spec.algorithms import ALGORITHMS, PRUNERS
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import NAMES
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.schema import experiment_schema
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.rglob("*.md"))
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
SCHEMA = DOCS / "experiment.schema.json"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
MOST_README_LINES = 150
MOST_PICTURE_BYTES = 200_000


@cache
def script(name: str) -> ModuleType:
    """Import a script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prose(page: Path) -> str:
    """Return a page's text without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as MkDocs and GitHub make them."""
    text = script("hooks").on_page_markdown(prose(page))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_README_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(prose(page)):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.is_file() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_pictures_are_small() -> None:
    pictures = [path for path in DOCS.rglob("*") if path.suffix in (".png", ".svg")]
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size > MOST_PICTURE_BYTES] == []


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"^ +- [^:]+: (\S+\.md)$", text, re.MULTILINE))
    assert listed == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


def test_reference_pages_name_what_exists() -> None:
    for page in (DOCS / "reference").glob("*.md"):
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE):
            module, _, attribute = name.rpartition(".")
            path = ROOT / f"{module.replace('.', '/')}.py"
            assert path.is_file(), name
            assert re.search(rf"^class {attribute}\b|^def {attribute}\b", path.read_text(), re.MULTILINE), name


def test_the_schema_is_current() -> None:
    assert json.loads(SCHEMA.read_text()) == experiment_schema(), "run make schema"


def test_the_picture_of_the_folders_is_current() -> None:
    assert (DOCS / "architecture.svg").read_text() == script("map").draw(), "run make schema"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_schema_accepts_the_experiments(path: Path, validator: Any) -> None:
    text = path.read_text(encoding="utf-8")
    assert [error.message for error in validator.iter_errors(document(text))] == []
    [named] = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", text, re.MULTILINE)
    assert (path.parent / named).resolve() == SCHEMA


RIGHT = [
    "hyperparameters:",
    "hyperparameters: {layers: {values: [1, 2], when: {head: flatten}}, dropout: {value: 0.5}, batch_norm: [true, false]}",
    "hyperparameters: {momentum: {low: 0.0, high: 0.9, step: 0.1, when: {optimizer: [sgd, rmsprop]}}}",
    "hyperparameters: {learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}, dropout: 0, image_size: [64, 96]}",
    "search: {engine: keras-tuner}",
    "search: {engine: keras-tuner, algorithm_settings: {beta: 2.0}}",
    "search: {pruner: asha, pruner_settings: {reduction_factor: 2}, timeout: 90m, trial_timeout: 100}",
    "search: {confirm: {top: 2}, keep: {best: 3}, try: [{layers: 1}], from: earlier}",
    "search: {objective: [val_auc, parameters]}",
    "promote: {max: val_auc, subject_to: {parameters: {max: 50000}}, floors: {specificity: 0.8}}",
    "promote: {threshold: sensitivity>=0.95, calibration: temperature}",
    "promote: {threshold: 0.4}",
]

WRONG = [
    "serch: {}",
    "data: {pth: x}",
    "data: {source: kagle}",
    "hyperparameters: {layer: 2}",
    "hyperparameters: {layers: 0}",
    "hyperparameters: {layers: []}",
    "hyperparameters: {layers: {low: 1, hihg: 3}}",
    "hyperparameters: {pooling: {low: max, high: average}}",
    "hyperparameters: {momentum: {low: 0.0, high: 0.9, when: {optimiser: sgd}}}",
    "hyperparameters: {dropout: {low: 0.1, high: 0.5, log: true, step: 0.1}}",
    "search: {engine: optuma}",
    "search: {engine: keras-tuner, algorithm: tpe}",
    "search: {algorithm_settings: {factor: 3}}",
    "search: {pruner: median, pruner_settings: {min_resource: 3}}",
    "search: {objective: val_acc}",
    "search: {timeout: 2 weeks}",
    "search: {try: [{layer: 3}]}",
    "search: {confirm: {tops: 3}}",
    "promote: {threshold: sensitivty>=0.9}",
    "promote: {floors: {brier: 0.2}}",
]


@pytest.mark.parametrize("text", RIGHT)
def test_the_schema_accepts_what_an_experiment_may_say(text: str, validator: Any) -> None:
    made = document(f"name: x\n{text}")
    assert [error.message for error in validator.iter_errors(made)] == []
    Experiment.model_validate(made)


@pytest.mark.parametrize("text", WRONG)
def test_the_schema_refuses_what_an_experiment_may_not_say(text: str, validator: Any) -> None:
    made = document(f"name: x\n{text}")
    assert not validator.is_valid(made)
    with pytest.raises((RequestError, ValidationError)):
        Experiment.model_validate(made)


def document(text: str) -> Any:
    """Read YAML as an editor does: by YAML 1.2, in which 1e-4 is a number."""
    return yaml.safe_load(re.sub(r"(?<=[ \[])(\d)(e-?\d)", r"\1.0\2", text))


def test_the_reference_names_everything() -> None:
    hooks = script("hooks")
    table = hooks.hyperparameters()
    assert [name for name in NAMES if f"| `{name}` |" not in table] == []
    algorithms, pruners, objectives = hooks.algorithms(), hooks.pruners(), hooks.objectives()
    for engine, named in ALGORITHMS.items():
        for name, algorithm in named.items():
            assert f"| {engine} | `{name}`" in algorithms
            assert [
                setting for setting in algorithm.settings.model_fields if f"| `{setting}` |" not in algorithms
            ] == []
    for name, model in PRUNERS.items():
        assert name == "none" or f"`{name}`" in pruners
        assert [setting for setting in model.model_fields if f"| `{setting}` |" not in pruners] == []
    assert [name for name in OBJECTIVES if f"| `{name}` |" not in objectives] == []


def test_the_reference_explains_every_key() -> None:
    hooks = script("hooks")
    page = hooks.experiment_keys()
    for place, model in hooks.BLOCKS.items():
        assert f"## `{place}`" in page or not place
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in page
            assert field.description, f"{place}.{name} has no description"


def test_every_generated_part_is_on_a_page() -> None:
    marked = [
        name for page in PAGES for name in re.findall(r"^<!-- generated: (.+) -->$", page.read_text(), re.MULTILINE)
    ]
    assert sorted(marked) == sorted(script("hooks").GENERATED)


def test_pages_load_nothing_from_another_server() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert re.search(r"^  font: false$", text, re.MULTILINE)
    assert "mermaid" not in text
    assert "analytics" not in text


def test_the_project_says_where_it_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"Documentation", "Source", "Issues", "Changelog"} <= set(project["urls"])
    assert project["authors"]
    assert project["keywords"]
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
