"""Tables that `mkdocs build` makes from the code, so that they say what the code says.

A line `<!-- generated: NAME -->` in a page is replaced by what the function `GENERATED[NAME]` returns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pneumo.spec import keys
from pneumo.spec.algorithms import ALGORITHMS, DEFAULT_ALGORITHMS, PRUNERS, Settings
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import CONDITIONS, NAMES, Hyperparameters
from pneumo.spec.objective import EPOCH_OBJECTIVES, OBJECTIVES
from pneumo.spec.promotion import FLOORS, PromoteSpec
from pneumo.spec.schema import experiment_schema
from pneumo.spec.search import SearchSpec
from pneumo.spec.selection import Bound

ROOT = Path(__file__).parent.parent

BLOCKS: Mapping[str, type[BaseModel]] = {**keys.BLOCKS, "promote.subject_to.METRIC": Bound}
"""The blocks of an experiment by their place in the file; "" is the file itself."""

LINKED: Mapping[tuple[type[BaseModel], str], str] = {
    (SearchSpec, "algorithm"): "see [algorithms](algorithms.md#algorithms)",
    (SearchSpec, "algorithm_settings"): "see [algorithms](algorithms.md#algorithms)",
    (SearchSpec, "pruner_settings"): "see [pruners](algorithms.md#pruners)",
    (SearchSpec, "objective"): "an [objective](algorithms.md#objectives), or a list of them",
    (PromoteSpec, "max"): "an [objective](algorithms.md#objectives)",
    (PromoteSpec, "min"): "an [objective](algorithms.md#objectives)",
    (PromoteSpec, "subject_to"): "[objectives](algorithms.md#objectives), each with [bounds](#promotesubject_tometric)",
    (PromoteSpec, "floors"): " ".join(f"`{name}`" for name in FLOORS) + ", each with a number",
}
"""Keys whose values another table explains."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marked lines of a page. MkDocs calls it for each page."""
    return re.sub(r"^<!-- generated: ([a-z-]+) -->$", lambda line: GENERATED[line[1]](), markdown, flags=re.MULTILINE)


def hyperparameters() -> str:
    """Return the table of the hyperparameters."""
    fields = Hyperparameters.model_json_schema()["properties"]
    rows = []
    for name in NAMES:
        meaning = _prose(fields[name]["description"])
        for parent, values in CONDITIONS.get(name, {}).items():
            meaning = f"{meaning.rstrip('.')}. Active only if `{parent}` is {' or '.join(map(_code, values))}."
        rows.append((_code(name), _values(fields[name]), _code(_yaml(fields[name]["default"])), meaning))
    return _table(("name", "values", "tutorial's value", "meaning"), rows)


def experiment_keys() -> str:
    """Return a section for each block of an experiment, with a table of its keys."""
    definitions = experiment_schema()
    return "\n\n".join(f"{_heading(place)}\n\n{_keys(model, definitions)}" for place, model in BLOCKS.items())


def algorithms() -> str:
    """Return what each algorithm takes, and its settings."""
    takes = {
        "objectives": "several objectives",
        "pruners": "pruners",
        "choices": "choices",
        "conditions": "conditions",
        "ranges": "continuous ranges",
        "epochs": "searched epochs",
    }
    rows = [
        (
            engine,
            _code(name) + (" (default)" if DEFAULT_ALGORITHMS[engine] == name else ""),
            *("yes" if getattr(algorithm, field) else "no" for field in takes),
        )
        for engine, named in ALGORITHMS.items()
        for name, algorithm in named.items()
    ]
    parts = [_table(("engine", "algorithm", *takes.values()), rows)]
    for engine, named in ALGORITHMS.items():
        parts += [
            f"### {engine}, `{name}`\n\n{_settings(algorithm.settings)}"
            for name, algorithm in named.items()
            if algorithm.settings.model_fields
        ]
    return "\n\n".join(parts)


def pruners() -> str:
    """Return the settings of each pruner."""
    return "\n\n".join(f"### `{name}`\n\n{_settings(model)}" for name, model in PRUNERS.items() if model.model_fields)


def objectives() -> str:
    """Return the table of the objectives."""
    rows = [
        (_code(name), direction, "after each epoch" if name in EPOCH_OBJECTIVES else "at the end of a trial")
        for name, direction in OBJECTIVES.items()
    ]
    return _table(("objective", "direction", "known"), rows)


def contributing() -> str:
    return _page("CONTRIBUTING.md")


def changelog() -> str:
    return _page("CHANGELOG.md")


GENERATED: Mapping[str, Callable[[], str]] = {
    "hyperparameters": hyperparameters,
    "experiment": experiment_keys,
    "algorithms": algorithms,
    "pruners": pruners,
    "objectives": objectives,
    "contributing": contributing,
    "changelog": changelog,
}


def _page(name: str) -> str:
    """Return a file of the project's folder, with its links as they are from docs/."""
    return (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")


def _heading(place: str) -> str:
    return f"## `{place}`" if place else "## The file"


def _keys(model: type[BaseModel], schema: Mapping[str, Any]) -> str:
    """Return the table of a block's keys. `schema` is that of the experiment; it names more values than the types do."""
    definition = schema if model is Experiment else schema["$defs"][model.__name__]
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    rows = [
        (
            _code(key),
            LINKED.get((model, key)) or _values(definition["properties"][key]),
            _default(model, key, field),
            _prose(field.description or ""),
        )
        for key, field in fields.items()
    ]
    return _table(("key", "values", "default", "meaning"), rows)


def _settings(model: type[Settings]) -> str:
    schema = model.model_json_schema()
    rows = [
        (_code(name), _values(field), _code(_yaml(field["default"])), _prose(field["description"]))
        for name, field in schema["properties"].items()
    ]
    return _table(("setting", "values", "default", "meaning"), rows)


def _default(model: type[BaseModel], key: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if field.is_required():
        text = "required"
    elif (model, key) == (SearchSpec, "algorithm"):
        text = ", ".join(f"{_code(name)} of {engine}" for engine, name in DEFAULT_ALGORITHMS.items())
    elif default is None or default in ({}, ()) or isinstance(default, BaseModel):
        text = ""
    else:
        text = _code(_yaml(default))
    return text


def _values(field: Mapping[str, Any]) -> str:
    """Return in words which values a JSON schema takes."""
    if "$ref" in field:
        place = next(place for place, model in BLOCKS.items() if field["$ref"].endswith(f"/{model.__name__}"))
        text = f"block, see [`{place}`](#{place.replace('.', '')})"
    elif "enum" in field:
        text = " ".join(_code(_yaml(value)) for value in field["enum"])
    elif "anyOf" in field:
        text = ", or ".join(dict.fromkeys(_values(part) for part in field["anyOf"] if part.get("type") != "null"))
    elif "pattern" in field:
        text = PATTERNS[field["pattern"]]
    elif field["type"] == "object" and set(NAMES) <= {*field.get("properties", ())}:
        text = "[hyperparameters](hyperparameters.md)"
    elif field["type"] == "array":
        text = f"list of {_values(field['items'])}" if "items" in field else "list of two texts"
    else:
        text = TYPES[field["type"]] + _bounds(field)
    return text


TYPES: Mapping[str, str] = {
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "string": "text",
    "object": "names with values",
}

PATTERNS: Mapping[str, str] = {
    "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$": "letters, digits, `.`, `_` and `-`",
    r"^\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*$": "a time as `90s`, `45m`, `2h` or `1d`",
    r"^\s*(sensitivity|specificity)\s*>=\s*\d*\.?\d+\s*$": "`sensitivity>=0.95`, `specificity>=0.9`",
}


def _bounds(field: Mapping[str, Any]) -> str:
    ends = {
        "minimum": "from {}",
        "exclusiveMinimum": "above {}",
        "maximum": "up to {}",
        "exclusiveMaximum": "below {}",
    }
    bounds = {end: "2^31" if field[end] == 2**31 else f"{field[end]:,g}" for end in ends if end in field}
    return "".join(f", {ends[end].format(bound)}" for end, bound in bounds.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _prose(text: str) -> str:
    """Return a description as Markdown: in it, asterisks multiply."""
    return text.replace("*", r"\*")


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def _code(value: object) -> str:
    return f"`{value}`"
