"""Reading an experiment from YAML text, with settings from the command line, and errors that name file and key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pneumo.spec.errors import RequestError, describe_validation_error, suggest_name
from pneumo.spec.examples import examples_folder
from pneumo.spec.experiment import DataSpec, Experiment, PhantomSpec
from pneumo.spec.hyperparameters import NAMES
from pneumo.spec.promotion import PromoteSpec
from pneumo.spec.search import ConfirmSpec, KeepSpec, SearchSpec
from pneumo.spec.sources import DEFAULT_SOURCE, GENERATED_SOURCES, source_of_path

_BLOCKS: Mapping[str, type[BaseModel]] = {
    "": Experiment,
    "data": DataSpec,
    "data.phantom": PhantomSpec,
    "search": SearchSpec,
    "search.confirm": ConfirmSpec,
    "search.keep": KeepSpec,
    "promote": PromoteSpec,
}
"""The models of the blocks of an experiment, by dotted key."""


def read_experiment(path: Path, settings: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> Experiment:
    """Return the experiment in a YAML file.

    Args:
        path: Path of the file.
        settings: `KEY=VALUE` texts of the option `--set`, which replace values of the file.
        options: Values by dotted key, which replace values of the file and of `settings`. `data.path` is the path of
            real pictures: it also replaces the source `phantom`, and an `.npz` file selects the source `medmnist`.

    Raises:
        RequestError: The file cannot be read, or the experiment is invalid. The message names the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RequestError(f"{path}: there is no such experiment file; examples are in {examples_folder()}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read: {error}") from None
    _refuse_removed_settings(_parse_yaml(text, str(path)), str(path))
    return parse_experiment(text, str(path), settings, options)


def parse_experiment(
    text: str, where: str, settings: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> Experiment:
    """Return the experiment in a YAML text, which an earlier version may have recorded with settings removed since.

    `where` starts an error message. The rest is as in `read_experiment`.
    """
    document = _parse_yaml(text, where)
    if isinstance(document, dict):
        for setting in settings:
            _set_value(document, *_parse_setting(setting))
        for key, value in (options or {}).items():
            _set_value(document, key.split("."), value)
        data = document.get("data")
        sets_source = any(setting.partition("=")[0].strip() == "data.source" for setting in settings)
        if "data.path" in (options or {}) and isinstance(data, dict) and not sets_source:
            document["data"] = _select_source(data)
    return build_experiment(document, where)


def build_experiment(document: Any, where: str) -> Experiment:
    """Return the experiment in a parsed YAML document. `where` starts an error message."""
    if not isinstance(document, dict):
        raise RequestError(f"{where}: needs keys with values, starting with 'name: ...'")
    try:
        return Experiment.model_validate(_drop_removed_settings(document))
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from None
    except ValidationError as error:
        raise RequestError(f"{where}: {_describe_first_error(error)}") from None


def is_same_experiment(recorded: str | None, current: str) -> bool:
    """Return whether two resolved experiments are equal, apart from settings that no longer exist.

    Args:
        recorded: YAML text that an earlier version may have recorded; None if there is none.
        current: YAML text of the current experiment.
    """
    if recorded is None or recorded == current:
        return recorded == current
    try:
        return bool(_drop_removed_settings(yaml.safe_load(recorded)) == yaml.safe_load(current))
    except yaml.YAMLError:
        return False


FREE_SETTINGS = {
    "data.allow_leaks",
    "data.path",
    "search.confirm",
    "search.keep",
    "search.max_failures",
    "search.outage",
    "search.patience",
    "search.terminator",  # removed; earlier versions recorded it
    "search.timeout",
    "search.trial_timeout",
    "search.trials",
    "search.workers",
}
"""Settings that may change when a study is resumed. Those of the block `promote` may change too."""


def setting_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the differences between two resolved experiments that a study does not allow.

    Args:
        before: The experiment that a study has recorded, as parsed YAML.
        now: The current experiment, as parsed YAML.

    Returns:
        Texts such as `search.pruner was none, now median`. Changes of `FREE_SETTINGS` are left out.
    """
    changes = []
    flat_before, flat_now = _flatten(before), _flatten(now)
    for key in sorted(set(flat_before) | set(flat_now)):
        old, new = flat_before.get(key), flat_now.get(key)
        if old != new and key not in FREE_SETTINGS and not key.startswith("promote."):
            changes.append(f"{key} was {_to_inline_yaml(old)}, now {_to_inline_yaml(new)}")
    return changes


def _refuse_removed_settings(document: Any, where: str) -> None:
    """Refuse `search.terminator: true` in a user's file. The value `false` asks for nothing and is accepted."""
    search = document.get("search") if isinstance(document, dict) else None
    if isinstance(search, dict) and search.get("terminator") not in (None, False):
        raise RequestError(
            f"{where}: search.terminator: was removed; use search.patience, which ends a search after so many finished "
            "trials without a better value"
        )


def _drop_removed_settings(document: Any) -> Any:
    """Return a document without `search.terminator`, which earlier versions recorded in every experiment."""
    search = document.get("search") if isinstance(document, dict) else None
    if not isinstance(search, dict) or "terminator" not in search:
        return document
    return document | {"search": {key: value for key, value in search.items() if key != "terminator"}}


def _select_source(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data block with the source that fits its path."""
    named = data.get("source", DEFAULT_SOURCE)
    source = source_of_path(str(data["path"]), named)
    if source == named:
        return data
    return {key: value for key, value in data.items() if key not in GENERATED_SOURCES} | {"source": source}


def _flatten(document: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{block}.{key}": value
        for block, body in document.items()
        if isinstance(body, dict)
        for key, value in body.items()
    }


def _to_inline_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


class _Loader(yaml.SafeLoader):
    """A YAML loader that reads numbers as YAML 1.2 does (`1e-4` is a number) and rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        raise RequestError(f"{where}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, TypeError) as error:
        raise RequestError(f"{where}: not valid YAML: {error}") from None


def _parse_setting(setting: str) -> tuple[list[str], Any]:
    """Return the keys from the top, and the value, of a text such as `layers=2` or `search.pruner=median`."""
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RequestError(f"--set {setting}: needs KEY=VALUE, as in --set layers=2 or --set search.pruner=median")
    in_blocks = [f"{block}.{name}" for block, model in _BLOCKS.items() if block for name in _file_keys(model)]
    known = ["name", *in_blocks, *(f"hyperparameters.{name}" for name in NAMES)]
    if key not in known and key not in NAMES:
        raise RequestError(f"--set {setting}: there is no key {key!r}{suggest_name(key, [*known, *NAMES])}")
    return ["hyperparameters", key] if key in NAMES else key.split("."), _parse_yaml(text, f"--set {setting}")


def _set_value(document: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set the value at a path of keys. Blocks that are missing are created."""
    *blocks, last = keys
    for block in blocks:
        if document.get(block) is None:
            document[block] = {}
        document = document[block]
        if not isinstance(document, dict):
            return  # the file has a value where a block belongs; the validation reports it
    document[last] = value


def _describe_first_error(error: ValidationError) -> str:
    """Return the first error as `key: what would be right, got what`."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        block, _, name = key.rpartition(".")
        suggestion = suggest_name(name, _file_keys(_BLOCKS[block])) if block in _BLOCKS else ""
        return f"{block + ': ' if block else ''}there is no {name!r}{suggestion}"
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"{key}.{message}" if key else message
    return f"{key}: {describe_validation_error(first)}"


def _file_keys(model: type[BaseModel]) -> list[str]:
    """Return the keys of a block as an experiment file has them."""
    return [field.alias or name for name, field in model.model_fields.items()]
