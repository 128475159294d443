"""Changes of an experiment from the command line: `--set KEY=VALUE` and the options that replace a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pneumo.spec.errors import Fault, RequestError, format_keys, quote, suggest_name
from pneumo.spec.hyperparameters import NAMES
from pneumo.spec.keys import BLOCKS, known_keys
from pneumo.spec.yaml_text import parse_value

OPTIONS: Mapping[str, str] = {"data.path": "--data", "search.gpu_share": "--gpu-share"}
"""Options that are not called as the key that they replace, by dotted key."""

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Change:
    """A new value of a key of the experiment.

    Attributes:
        origin: What the user typed, for an error message.
        keys: The keys from the outermost block.
        value: The new value; None removes the key.
        is_option: Whether an option of its own makes the change, not `--set`.
    """

    origin: str
    keys: tuple[str, ...]
    value: Any
    is_option: bool = False


def setting_change(setting: str, document: Mapping[str, Any]) -> Change:
    """Return the change that a text such as `layers=2` or `promote.floors.auc=0.8` describes.

    Args:
        setting: `KEY=VALUE`; the value is YAML.
        document: The experiment that is changed.

    Raises:
        RequestError: There is no such key, the value is not YAML, or the key is below a value that is no block.
    """
    name, equals, text = setting.partition("=")
    name = name.strip()
    origin = f"--set {quote(setting)}"
    if not equals or not name:
        raise RequestError(f"{origin}: needs KEY=VALUE, as in --set layers=2 or --set search.pruner=median")
    path = name.split(".")
    keys = tuple(["hyperparameters", *path] if path[0] in NAMES else path)
    known = known_keys()
    if not _is_known(keys, known):
        raise RequestError(f"{origin}: there is no key {quote(repr(name))}{suggest_name(name, [*known, *NAMES])}")
    value = parse_value(text, origin)
    block: Any = document
    for depth, key in enumerate(keys[:-1]):
        block = block.get(key)
        if block is None:
            break
        if not isinstance(block, dict):
            place = format_keys(keys[: depth + 1])
            raise RequestError(
                f"{origin}: {place} is {quote(repr(block))}, which has no {keys[depth + 1]}; replace it as a whole, with "
                f"--set {place}=VALUE"
            )
    return Change(origin, keys, value)


def _is_known(keys: tuple[str, ...], known: Sequence[str]) -> bool:
    """Return whether a key is known, or lies below a setting whose own keys the validation checks."""
    prefixes = [".".join(keys[:length]) for length in range(1, len(keys) + 1)]
    return prefixes[-1] in known or any(prefix in known and prefix not in BLOCKS for prefix in prefixes)


def option_change(key: str, value: Any) -> Change:
    """Return the change that an option makes, for example `--trials 3`, which replaces `search.trials`."""
    option = OPTIONS.get(key, f"--{key.rpartition('.')[2]}")
    return Change(f"{option} {quote(str(value))}", tuple(key.split(".")), value, is_option=True)


def apply_changes(document: Mapping[str, Any], changes: Sequence[Change]) -> dict[str, Any]:
    """Return a copy of a document with changes. Blocks that are missing are created."""
    changed: dict[str, Any] = deepcopy(dict(document))
    for change in changes:
        *blocks, last = change.keys
        block = changed
        for key in blocks:
            if block.get(key) is None:
                block[key] = {}
            block = block[key]
            if not isinstance(block, dict):
                break  # the document, or a change before, has a value there; the validation reports it
        else:
            if change.value is None:
                block.pop(last, None)
            else:
                block[last] = change.value
    return changed


def blame(
    faults: Sequence[Fault], changes: Sequence[Change], find_faults: Callable[[Sequence[Change]], Sequence[Fault]]
) -> dict[Keys, tuple[Change, ...]]:
    """Return which changes are to blame for each fault, by place of the fault; none if it is the document.

    A fault in a value that a change made is that change's. Another one is blamed on the changes without which it would not
    be there.

    Args:
        faults: The faults of the changed document.
        changes: All changes.
        find_faults: Returns the faults of the document with some of the changes.
    """

    def places(some: Sequence[Change]) -> set[Keys]:
        return {fault.keys for fault in find_faults(some)}

    owners = {
        fault.keys: tuple(change for change in changes if fault.keys[: len(change.keys)] == change.keys)[-1:]
        for fault in faults
    }
    if not changes or all(owners.values()):
        return owners
    without_any = places(())
    without_one = [(change, places([other for other in changes if other is not change])) for change in changes]
    for keys, owner in owners.items():
        if not owner and keys not in without_any:
            owners[keys] = tuple(change for change, left in without_one if keys not in left) or tuple(changes)
    return owners
