"""Reading an experiment from YAML text, with settings from the command line, and errors that name file and key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pneumo.spec.changes import Change, apply_changes, blame, option_change, setting_change
from pneumo.spec.errors import Fault, RequestError, SettingError, describe_validation_error, quote, suggest_name
from pneumo.spec.examples import examples_folder
from pneumo.spec.experiment import Experiment
from pneumo.spec.keys import BLOCKS, file_keys
from pneumo.spec.sources import DEFAULT_SOURCE, GENERATED_SOURCES, source_of_path
from pneumo.spec.wording import count_of
from pneumo.spec.yaml_text import parse_yaml, read_text

MOST_FAULTS = 20
"""Largest number of faults of an experiment that an error tells."""


MOST_SUGGESTIONS = 100
"""Largest number of unknown keys for which a close known one is looked up, which takes a while."""


def read_experiment(path: Path, settings: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> Experiment:
    """Return the experiment in a YAML file.

    Args:
        path: Path of the file.
        settings: `KEY=VALUE` texts of the option `--set`, which replace values of the file. The value `null` removes a
            key, so that its default counts.
        options: Values by dotted key, which replace values of the file and of `settings`. `data.path` is the path of
            real pictures: it also replaces the source `phantom`, and an `.npz` file selects the source `medmnist`.

    Raises:
        RequestError: The file cannot be read, or the experiment is invalid. The message has a line for each fault. It
            names the key, and the file or the setting or option at fault.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise RequestError(f"{path}: there is no such experiment file; examples are in {examples_folder()}") from None
    document = parse_yaml(text, str(path))
    return _build_changed(document, str(path), settings, options or {}, _removed_settings(document))


def parse_experiment(
    text: str, where: str, settings: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> Experiment:
    """Return the experiment in a YAML text, which an earlier version may have recorded with settings removed since.

    `where` starts an error message. The rest is as in `read_experiment`.
    """
    return _build_changed(parse_yaml(text, where), where, settings, options or {})


def build_experiment(document: Any, where: str) -> Experiment:
    """Return the experiment in a parsed YAML document. `where` starts an error message."""
    return _build_changed(document, where)


def _build_changed(
    document: Any,
    where: str,
    settings: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    removed: Sequence[Fault] = (),
) -> Experiment:
    """Return the experiment in a document with changes. `removed` are faults that the document has in any case."""
    if not isinstance(document, dict):
        raise RequestError(f"{where}: needs keys with values, starting with 'name: ...'")
    document = _drop_removed_settings(document)
    lines = [f"{where}: {fault}" for fault in removed]
    changes = []
    for setting in settings:
        try:
            changes.append(setting_change(setting, document))
        except RequestError as error:
            lines += error.lines
    changes += [option_change(key, value) for key, value in (options or {}).items()]
    changed = _apply(document, changes)
    experiment, faults = _validate(changed)
    if faults:
        culprits = blame(faults, changes, lambda some: _validate(_apply(document, some))[1])
        lines += [f"{_origin(where, fault, culprits[fault.keys])}" for fault in faults]
    if not lines and experiment is not None:
        return experiment
    others = len(lines) - MOST_FAULTS
    raise RequestError(
        *lines[:MOST_FAULTS], *([f"{where}: and {count_of(others, 'more fault')}"] if others > 0 else [])
    )


def _apply(document: dict[str, Any], changes: Sequence[Change]) -> dict[str, Any]:
    """Return a document with changes, and with the source of the pictures that a changed path needs."""
    changed = apply_changes(document, changes)
    keys = {change.keys for change in changes}
    data = changed.get("data")
    has_new_path = any(change.is_option and change.keys == ("data", "path") for change in changes)
    if has_new_path and ("data", "source") not in keys and isinstance(data, dict):
        changed["data"] = _select_source(data)
    return changed


def _validate(document: dict[str, Any]) -> tuple[Experiment | None, list[Fault]]:
    """Return the experiment in a document, or its faults in the order of the document."""
    try:
        return Experiment.model_validate(document), []
    except ValidationError as error:
        faults = list_faults(error)
    return None, sorted(dict.fromkeys(faults), key=lambda fault: _position(document, fault.keys))


def _position(document: Any, keys: tuple[str | int, ...]) -> tuple[int, ...]:
    """Return where a place is in a document, for sorting: its index in each block."""
    position = []
    for key in keys:
        if isinstance(document, dict) and key in document:
            position.append(list(document).index(key))
            document = document[key]
        elif isinstance(document, list) and isinstance(key, int):
            position.append(key)
            document = document[key] if key < len(document) else None
        else:
            break
    return tuple(position)


def _origin(where: str, fault: Fault, culprits: Sequence[Change]) -> str:
    """Return a fault's line, which begins with what is to blame: a setting, an option, or the file."""
    if not culprits:
        return f"{where}: {fault}"
    origin = " ".join(change.origin for change in culprits)
    names_key = len(culprits) == 1 and culprits[0].keys == fault.keys
    return f"{origin}: {fault.message if names_key else fault}"


def is_same_experiment(recorded: str | None, current: str) -> bool:
    """Return whether two resolved experiments are equal, apart from settings that one of the two versions does not have.

    Args:
        recorded: YAML text that an earlier version may have recorded; None if there is none.
        current: YAML text of the current experiment.
    """
    if recorded is None or recorded == current:
        return recorded == current
    try:
        return bool(_in_current_form(yaml.safe_load(recorded)) == yaml.safe_load(current))
    except yaml.YAMLError:
        return False


FREE_SETTINGS = {
    "data.allow_leaks",
    "data.path",
    "search.confirm",
    "search.gpu_share",
    "search.keep",
    "search.max_failures",
    "search.outage",
    "search.patience",
    "search.retries",
    "search.shared",
    "search.stress",
    "search.takeover",
    "search.terminator",  # removed; earlier versions recorded it
    "search.timeout",
    "search.trial_timeout",
    "search.trials",
    "search.workers",
}
"""Settings that may change when a study is resumed. Those of `FREE_BLOCKS` may change too."""

FREE_BLOCKS = ("promote.", "compute.")


def setting_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the differences between two resolved experiments that a study does not allow.

    Args:
        before: The experiment that a study has recorded, as parsed YAML.
        now: The current experiment, as parsed YAML.

    Returns:
        Texts such as `search.pruner was none, now median`. Changes of `FREE_SETTINGS` are left out.
    """
    changes = []
    flat_before, flat_now = _flatten(_in_current_form(before)), _flatten(_in_current_form(now))
    for key in sorted(set(flat_before) | set(flat_now)):
        old, new = flat_before.get(key), flat_now.get(key)
        if old != new and key not in FREE_SETTINGS and not key.startswith(FREE_BLOCKS):
            changes.append(f"{key} was {_to_inline_yaml(old)}, now {_to_inline_yaml(new)}")
    return changes


def _removed_settings(document: Any) -> list[Fault]:
    """Return a fault for `search.terminator: true` in a user's file. The value `false` asks for nothing and is accepted."""
    search = document.get("search") if isinstance(document, dict) else None
    if not isinstance(search, dict) or search.get("terminator") in (None, False):
        return []
    message = (
        "was removed; use search.patience, which ends a search after so many finished trials without a better value"
    )
    return [Fault(("search", "terminator"), message)]


def _drop_removed_settings(document: Any) -> Any:
    """Return a document without `search.terminator`, which earlier versions recorded in every experiment."""
    search = document.get("search") if isinstance(document, dict) else None
    if not isinstance(search, dict) or "terminator" not in search:
        return document
    return document | {"search": {key: value for key, value in search.items() if key != "terminator"}}


def _in_current_form(document: Any) -> Any:
    """Return a resolved experiment, which an earlier version may have recorded, as this version resolves it.

    Settings and hyperparameters that are new since get their defaults. An invalid document is returned as it is.
    """
    try:
        return yaml.safe_load(build_experiment(document, "").to_yaml())
    except RequestError:
        return _drop_removed_settings(document)


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


def list_faults(error: ValidationError) -> list[Fault]:
    """Return the faults of an experiment, or of a block of one, that pydantic has collected."""
    details = error.errors()
    return [fault for n, detail in enumerate(details) for fault in _faults(detail, suggest=n < MOST_SUGGESTIONS)]


def _faults(detail: Any, *, suggest: bool) -> list[Fault]:
    """Return the faults that an error of pydantic stands for."""
    keys = tuple(key for key in detail["loc"] if key != "[key]")
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        return [fault.below(*keys) for fault in cause.faults]
    if detail["type"] == "extra_forbidden":
        *block, name = keys
        model = BLOCKS.get(".".join(map(str, block)))
        suggestion = suggest_name(str(name), file_keys(model)) if model and suggest else ""
        return [Fault(tuple(block), f"there is no {quote(repr(name))}{suggestion}")]
    if detail["type"] == "missing":
        return [Fault(keys, "is missing")]
    if detail["type"] in ("model_type", "dict_type"):
        return [Fault(keys, f"needs keys with values, got {quote(repr(detail['input']))}")]
    advice = "; put it into quotes" if detail["type"] == "string_type" and _is_scalar(detail["input"]) else ""
    return [Fault(keys, describe_validation_error(detail) + advice)]


def _is_scalar(value: Any) -> bool:
    """Return whether YAML read the value from one word, for example a date or a number."""
    return value is not None and not isinstance(value, (dict, list))
