"""Reading a space from an experiment's `hyperparameters` block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pneumo.spec.errors import RequestError, suggest_name
from pneumo.spec.hyperparameters import (
    CONDITIONS,
    NAMES,
    TUTORIAL,
    Hyperparameters,
    check_value,
    unbuildable,
    value_type,
)
from pneumo.spec.space import Choice, Dimension, Fixed, Range, Space, When

MOST_IMAGE_SIZES = 16
"""Largest number of image sizes in a space. The cache has a decoded copy of all pictures for each size."""


def read_space(block: Mapping[str, Any]) -> Space:
    """Return the space that a `hyperparameters` block describes. Names that are missing have the tutorial's value.

    Raises:
        RequestError: A name, value, range or condition is wrong, or no candidate could be built. The message names the
            key.
    """
    for name in block:
        if name not in NAMES:
            raise RequestError(f"hyperparameters: there is no {name!r}{suggest_name(str(name), NAMES)}")
    dimensions = {name: _read_dimension(name, block.get(name, getattr(TUTORIAL, name))) for name in NAMES}
    for dimension in dimensions.values():
        for parent, allowed in dimension.when.items():
            where = f"hyperparameters.{dimension.name}.when"
            if parent not in dimensions:
                raise RequestError(f"{where}: there is no {parent!r}{suggest_name(parent, NAMES)}")
            for value in allowed:
                check_value(parent, value, f"{where}.{parent}")
    space = Space(tuple(_parents_first(dimensions)))
    _check_sizes(space)
    return space


def _read_dimension(name: str, entry: Any) -> Dimension:
    where = f"hyperparameters.{name}"
    when: When = CONDITIONS.get(name, {})
    if not isinstance(entry, Mapping):
        if isinstance(entry, list):
            return _read_choice(name, entry, when, where)
        return Fixed(name, check_value(name, entry, where), when)
    known_keys = ("low", "high", "log", "step", "values", "value", "when")
    for key in entry:
        if key not in known_keys:
            raise RequestError(f"{where}: there is no {key!r}{suggest_name(str(key), known_keys)}")
    when = _read_when(entry["when"], where) if "when" in entry else when
    values = {key: value for key, value in entry.items() if key != "when"}
    if set(values) == {"value"}:
        return Fixed(name, check_value(name, values["value"], where), when)
    if set(values) == {"values"}:
        return _read_choice(name, values["values"], when, where)
    if not {"low", "high"} <= set(values) or {"value", "values"} & set(values):
        raise RequestError(f"{where}: needs low and high, or values, or value, each optionally with when")
    return _read_range(name, values, when, where)


def _read_choice(name: str, values: Any, when: When, where: str) -> Dimension:
    if not isinstance(values, list) or not values:
        raise RequestError(f"{where}: a choice is a list of at least one value, got {values!r}")
    checked = tuple(check_value(name, value, where) for value in values)
    if len(set(checked)) < len(checked):
        raise RequestError(f"{where}: a value appears twice in {values!r}")
    return Fixed(name, checked[0], when) if len(checked) == 1 else Choice(name, checked, when)


def _read_range(name: str, entry: Mapping[str, Any], when: When, where: str) -> Range:
    if value_type(name) not in (int, float) or name == "channels":
        raise RequestError(f"{where}: cannot be a range; give a list of values")
    low, high = (check_value(name, entry[end], f"{where}.{end}") for end in ("low", "high"))
    log, step = entry.get("log", False), entry.get("step")
    integer = value_type(name) is int
    assert not isinstance(low, str)
    assert not isinstance(high, str)
    if not isinstance(log, bool):
        raise RequestError(f"{where}.log: true or false, got {log!r}")
    if low >= high:
        raise RequestError(f"{where}: low must be below high, got low {low} and high {high}")
    if log and step is not None:
        raise RequestError(f"{where}: log and step cannot be combined; leave one out")
    if log and low <= 0:
        raise RequestError(f"{where}: a log range must start above 0, got low {low}")
    if step is None:
        return Range(name, low, high, log, step, integer, when)
    right_type = isinstance(step, int) if integer else isinstance(step, (int, float))
    if isinstance(step, bool) or not right_type or not 0 < step <= high - low:
        raise RequestError(
            f"{where}.step: {'an integer' if integer else 'a number'} above 0 and at most high - low, got {step!r}"
        )
    values = Range(name, low, high, log, step, integer, when).values
    assert values is not None
    # The range ends at the last value that the step reaches, so that both engines see the same end.
    last = int(values[-1]) if integer else float(values[-1])
    return Range(name, low, last, log, step, integer, when)


def _read_when(entry: Any, where: str) -> When:
    if not isinstance(entry, Mapping) or not entry:
        raise RequestError(
            f"{where}.when: another hyperparameter and its value, as in {{optimizer: sgd}}, got {entry!r}"
        )
    return {str(k): tuple(v) if isinstance(v, list) else (v,) for k, v in entry.items()}


def _parents_first(dimensions: Mapping[str, Dimension]) -> Iterator[Dimension]:
    """Yield the dimensions in the given order, but each after its parents. Raise `RequestError` on a cycle."""
    visited: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> Iterator[Dimension]:
        if name in path:
            cycle = " -> ".join((*path[path.index(name) :], name))
            raise RequestError(f"hyperparameters.{name}.when: the conditions form a cycle: {cycle}")
        if name in visited:
            return
        for parent in dimensions[name].when:
            yield from visit(parent, (*path, name))
        visited.add(name)
        yield dimensions[name]

    for name in dimensions:
        yield from visit(name, ())


def _check_sizes(space: Space) -> None:
    """Raise `RequestError` if there are too many image sizes, or if no candidate of the space can be built."""
    sizes = space.possible_values("image_size")
    dimension = space["image_size"]
    if isinstance(dimension, Range) and (dimension.log or len(sizes) > MOST_IMAGE_SIZES):
        raise RequestError(
            f"hyperparameters.image_size: a range of at most {MOST_IMAGE_SIZES} sizes, not log; give a step or a list"
        )
    easiest_to_build = Hyperparameters(
        layers=min(map(int, space.possible_values("layers"))),
        kernel_size=min(map(int, space.possible_values("kernel_size"))),
        image_size=max(map(int, sizes)),
    )
    if reason := unbuildable(easiest_to_build):
        raise RequestError(f"hyperparameters: no candidate can be built: {reason}")
