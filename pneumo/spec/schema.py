"""The JSON schema of the experiment file, made from the models that read it.

    python -m pneumo.spec.schema > docs/experiment.schema.json

An editor with a YAML language server completes and checks an experiment if a comment in the file names the schema:
`# yaml-language-server: $schema=../docs/experiment.schema.json`. The schema checks each key and each value by itself. A
search also checks combinations, for example a pruner with several objectives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pneumo.spec.algorithms import ALGORITHMS, DEFAULT_ALGORITHMS, PRUNERS, Settings
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import NAMES, Hyperparameters, value_type

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

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
    threshold = definitions["PromoteSpec"]["properties"]["threshold"]
    threshold |= THRESHOLD
    for name in NAMES:
        definitions[f"value.{name}"] = _value(name)
        definitions[f"hyperparameter.{name}"] = _hyperparameter(name)
    definitions["when"] = _when()
    properties["hyperparameters"] = {
        "description": properties["hyperparameters"]["description"],
        **_object({name: {"$ref": f"#/$defs/hyperparameter.{name}"} for name in NAMES}),
    }
    for name, block in properties.items():
        if name != "name":  # an empty block, which YAML reads as null, has the defaults
            description = {"description": block.pop("description")} if "description" in block else {}
            block.pop("default", None)
            properties[name] = description | {"anyOf": [block, {"type": "null"}]}
    head = {"$schema": DIALECT, "title": "pneumo experiment", "description": "One study of pneumo."}
    return head | {key: value for key, value in _plain(schema).items() if key not in head}


def _complete_search(search: Schema, definitions: Schema) -> None:
    """Name the hyperparameters of `try`, each engine's algorithms, and the settings of each algorithm and pruner."""
    properties = search["properties"]
    properties["algorithm"].pop("default")  # it depends on the engine
    properties["try"]["items"] = _object({name: {"$ref": f"#/$defs/value.{name}"} for name in NAMES})
    rules = []
    for engine, algorithms in ALGORITHMS.items():
        of_engine = _chosen("engine", engine, default=properties["engine"]["default"])
        rules.append({"if": of_engine, "then": {"properties": {"algorithm": {"enum": list(algorithms)}}}})
        for name, algorithm in algorithms.items():
            of_algorithm = _chosen("algorithm", name, default=DEFAULT_ALGORITHMS[engine])
            settings = _settings(algorithm.settings, definitions)
            rules.append(
                {"if": {"allOf": [of_engine, of_algorithm]}, "then": {"properties": {"algorithm_settings": settings}}}
            )
    for name, model in PRUNERS.items():
        of_pruner = _chosen("pruner", name, default=properties["pruner"]["default"])
        settings = _settings(model, definitions)
        rules.append({"if": of_pruner, "then": {"properties": {"pruner_settings": settings}}})
    search["allOf"] = rules


def _hyperparameter(name: str) -> Schema:
    """Return the forms of a hyperparameter: a value, a list of values, a range, each perhaps with a condition."""
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
    """Return the form of a condition: other hyperparameters with their values."""
    conditions: dict[str, Schema] = {}
    for name in NAMES:
        value = {"$ref": f"#/$defs/value.{name}"}
        conditions[name] = {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}
    described = {"description": "Other hyperparameters, each with the values for which this one is active."}
    return described | _object(conditions) | {"minProperties": 1}


def _value(name: str) -> Schema:
    """Return the bounds or the choices of one value of a hyperparameter."""
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
