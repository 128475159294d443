"""The JSON schema of the experiment file, made from the models that read it.

    python -m pneumo.spec.schema > docs/experiment.schema.json

An editor that knows YAML completes and checks an experiment with it, if a comment in the file names the schema:
`# yaml-language-server: $schema=../docs/experiment.schema.json`. The schema checks each key and each value by itself; what
does not go together (a pruner with several objectives, a grid with a continuous range) is checked by a search only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pneumo.spec.algorithms import ALGORITHMS, PRUNERS, Settings
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import NAMES, Hyperparameters, value_type
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.promotion import FLOORS
from pneumo.spec.search import SearchSpec

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

DURATION: Schema = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*[smhd]?\s*$"},
    ]
}
"""Seconds as a number, or a text as `90s`, `45m`, `2h` or `1d`."""

THRESHOLD: Schema = {
    "anyOf": [
        {"enum": ["youden", "f1"]},
        {"type": "string", "pattern": r"^\s*(sensitivity|specificity)\s*>=\s*\d*\.?\d+\s*$"},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    ]
}
"""The operating point: a rule, or a fixed number."""


def experiment_schema() -> Schema:
    """Return the schema of an experiment file as JSON values (JSON Schema, draft 2020-12)."""
    schema = Experiment.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    properties = schema["properties"]
    properties["name"]["pattern"] = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
    _complete_search(definitions["SearchSpec"], definitions)
    _complete_promote(definitions["PromoteSpec"])
    for name in NAMES:
        definitions[f"value.{name}"] = _value(name)
        definitions[f"hyperparameter.{name}"] = _hyperparameter(name)
    definitions["when"] = _when()
    properties["hyperparameters"] = {
        "description": "the space; a hyperparameter that is left out has the tutorial's value",
        **_object({name: {"$ref": f"#/$defs/hyperparameter.{name}"} for name in NAMES}),
    }
    for name, block in properties.items():
        if name != "name":  # a block with nothing below it is an empty one
            description = {"description": block.pop("description")} if "description" in block else {}
            block.pop("default", None)
            properties[name] = description | {"anyOf": [block, {"type": "null"}]}
    schema |= {"$schema": DIALECT, "title": "pneumo experiment", "description": "One study of pneumo."}
    return dict(sorted(_plain(schema).items(), key=lambda item: item[0] == "$defs"))


def _complete_search(search: Schema, definitions: Schema) -> None:
    """Name the engines, algorithms, pruners and objectives, and the settings of each."""
    properties = search["properties"]
    properties["engine"]["enum"] = list(ALGORITHMS)
    properties["pruner"]["enum"] = list(PRUNERS)
    properties["algorithm"]["enum"] = sorted({name for algorithms in ALGORITHMS.values() for name in algorithms})
    properties["algorithm"].pop("default")  # it depends on the engine
    objective = {"enum": list(OBJECTIVES)}
    properties["objective"]["anyOf"] = [
        objective,
        {"type": "array", "items": objective, "minItems": 1, "uniqueItems": True},
    ]
    for name in ("timeout", "trial_timeout", "outage"):
        allowed = [DURATION] if properties[name].get("default") is not None else [DURATION, {"type": "null"}]
        kept = {key: properties[name][key] for key in ("default", "description") if key in properties[name]}
        properties[name] = kept | {"anyOf": allowed}
    known = properties["try"]["items"]
    known.clear()
    known |= _object({name: {"$ref": f"#/$defs/value.{name}"} for name in NAMES})
    rules = []
    for engine, algorithms in ALGORITHMS.items():
        of_engine = _chosen("engine", engine, default=properties["engine"]["default"])
        rules.append({"if": of_engine, "then": {"properties": {"algorithm": {"enum": list(algorithms)}}}})
        for name, algorithm in algorithms.items():
            of_algorithm = _chosen("algorithm", name, default=SearchSpec(engine=engine).algorithm)
            settings = _settings(algorithm.settings, definitions)
            rules.append(
                {"if": {"allOf": [of_engine, of_algorithm]}, "then": {"properties": {"algorithm_settings": settings}}}
            )
    for name, model in PRUNERS.items():
        of_pruner = _chosen("pruner", name, default=properties["pruner"]["default"])
        settings = _settings(model, definitions)
        rules.append({"if": of_pruner, "then": {"properties": {"pruner_settings": settings}}})
    search["allOf"] = rules


def _complete_promote(promote: Schema) -> None:
    """Name the metrics of a rule and of the floors, and what a threshold can be."""
    properties = promote["properties"]
    for name in ("max", "min"):
        properties[name] = {"enum": [*OBJECTIVES, None]}
    properties["subject_to"]["propertyNames"] = {"enum": list(OBJECTIVES)}
    properties["floors"]["propertyNames"] = {"enum": list(FLOORS)}
    properties["threshold"] = {key: properties["threshold"][key] for key in ("default", "description")} | THRESHOLD


def _hyperparameter(name: str) -> Schema:
    """Return what an experiment can say of a hyperparameter: a value, a choice, a range, and when it counts."""
    value = {"$ref": f"#/$defs/value.{name}"}
    choice = {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
    when = {"$ref": "#/$defs/when"}
    forms = [
        _object({"value": value, "when": when}, required=["value"]),
        _object({"values": choice, "when": when}, required=["values"]),
    ]
    if value_type(name) in (int, float) and name != "channels":
        step = {"type": "integer" if value_type(name) is int else "number", "exclusiveMinimum": 0}
        keys: dict[str, Schema] = {"low": value, "high": value, "log": {"type": "boolean"}, "step": step, "when": when}
        both = {"required": ["log", "step"], "properties": {"log": {"const": True}}}
        forms.append(_object(keys, required=["low", "high"]) | {"not": both})
    about = Hyperparameters.model_json_schema()["properties"][name]
    return {"description": about["description"], "default": about["default"], "anyOf": [value, choice, *forms]}


def _when() -> Schema:
    """Return what a condition can say: the values of other hyperparameters."""
    conditions: dict[str, Schema] = {}
    for name in NAMES:
        value = {"$ref": f"#/$defs/value.{name}"}
        conditions[name] = {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}
    described = {"description": "other hyperparameters, each with the values beside which this one counts"}
    return described | _object(conditions) | {"minProperties": 1}


def _value(name: str) -> Schema:
    """Return what one value of a hyperparameter can be."""
    field: Schema = Hyperparameters.model_json_schema()["properties"][name]
    return {key: value for key, value in field.items() if key not in ("default", "title")}


def _settings(model: type[Settings], definitions: Schema) -> Schema:
    """Return a reference to the settings of an algorithm or a pruner, which it adds to the definitions."""
    schema = model.model_json_schema()
    schema.pop("description", None)
    definitions[model.__name__] = schema
    return {"$ref": f"#/$defs/{model.__name__}"}


def _chosen(key: str, value: str, default: str) -> Schema:
    """Return a schema that holds if a key has this value, or is left out and this value is its default."""
    chosen: Schema = {"properties": {key: {"const": value}}}
    return chosen if value == default else chosen | {"required": [key]}


def _object(properties: Mapping[str, Schema], required: list[str] | None = None) -> Schema:
    made: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return made | ({"required": required} if required else {})


def _plain(schema: Any, *, names: bool = False) -> Any:
    """Drop the titles that pydantic makes from names, and put each description on one line.

    `names` says that the keys are names that an experiment can use, not words of JSON Schema.
    """
    if isinstance(schema, list):
        return [_plain(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {}
    for key, value in schema.items():
        if key == "title" and not names:
            continue
        if key == "description" and isinstance(value, str):
            plain[key] = re.sub(r"\s+", " ", value)
            continue
        plain[key] = _plain(value, names=not names and key in ("properties", "$defs"))
    return plain


if __name__ == "__main__":
    print(json.dumps(experiment_schema(), indent=1))
