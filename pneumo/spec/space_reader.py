"""Reading a space from an experiment's `hyperparameters` block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pneumo.spec.errors import Fault, SettingError, collect_faults, quote, unknown_names
from pneumo.spec.hyperparameters import CONDITIONS, NAMES, TUTORIAL, Hyperparameters, Value, check_value, value_type
from pneumo.spec.network import unbuildable
from pneumo.spec.space import Choice, Dimension, Fixed, Range, Space, When

MOST_IMAGE_SIZES = 16
"""Largest number of image sizes in a space. The cache has a decoded copy of all pictures for each size."""

MOST_VALUES = 100_000
"""Largest number of values of a range with a step. Engines keep a list of them."""

RANGE_KEYS = ("low", "high", "log", "step", "values", "value", "when")
"""Keys of a hyperparameter that is a mapping."""


def read_space(block: Mapping[str, Any]) -> Space:
    """Return the space that a `hyperparameters` block describes. Names that are missing have the tutorial's value.

    Raises:
        SettingError: Names, values, ranges or conditions are wrong, or no candidate could be built. The faults name their
            keys within the block.
    """
    faults = unknown_names(block, NAMES)
    dimensions: dict[str, Dimension] = {}
    for name in NAMES:
        with collect_faults(faults, name):
            dimensions[name] = _read_dimension(name, block.get(name, getattr(TUTORIAL, name)))
    for dimension in dimensions.values():
        for parent, allowed in dimension.when.items():
            with collect_faults(faults, dimension.name, "when"):
                _check_condition(parent, allowed)
    if faults:
        raise SettingError(*faults)
    space = Space(tuple(_parents_first(dimensions)))
    _check_sizes(space)
    return space


def _read_dimension(name: str, entry: Any) -> Dimension:
    when: When = CONDITIONS.get(name, {})
    if not isinstance(entry, Mapping):
        if isinstance(entry, list):
            return _read_choice(name, entry, when)
        return Fixed(name, check_value(name, entry), when)
    if faults := unknown_names(entry, RANGE_KEYS):
        raise SettingError(*faults)
    when = _read_when(entry["when"]) if "when" in entry else when
    values = {key: value for key, value in entry.items() if key != "when"}
    if set(values) == {"value"}:
        return Fixed(name, check_value(name, values["value"]), when)
    if set(values) == {"values"}:
        return _read_choice(name, values["values"], when)
    if not {"low", "high"} <= set(values) or {"value", "values"} & set(values):
        raise _fault("needs low and high, or values, or value, each optionally with when")
    return _read_range(name, values, when)


def _fault(message: str, *keys: str) -> SettingError:
    return SettingError(Fault(keys, message))


def _read_choice(name: str, values: Any, when: When) -> Dimension:
    if not isinstance(values, list) or not values:
        raise _fault(f"a choice is a list of at least one value, got {quote(repr(values))}")
    faults: list[Fault] = []
    checked: list[Value] = []
    for value in values:
        with collect_faults(faults):
            checked.append(check_value(name, value))
    if faults:
        raise SettingError(*faults)
    if len(set(checked)) < len(checked):
        raise _fault(f"a value appears twice in {quote(repr(values))}")
    return Fixed(name, checked[0], when) if len(checked) == 1 else Choice(name, tuple(checked), when)


def _read_range(name: str, entry: Mapping[str, Any], when: When) -> Range:
    if value_type(name) not in (int, float) or name == "channels":
        raise _fault("cannot be a range; give a list of values")
    faults: list[Fault] = []
    ends: dict[str, Value] = {}
    for end in ("low", "high"):
        with collect_faults(faults, end):
            ends[end] = check_value(name, entry[end])
    log, step = entry.get("log", False), entry.get("step")
    integer = value_type(name) is int
    if not isinstance(log, bool):
        faults.append(Fault(("log",), f"true or false, got {quote(repr(log))}"))
    if faults:
        raise SettingError(*faults)
    low, high = ends["low"], ends["high"]
    assert not isinstance(low, str)
    assert not isinstance(high, str)
    if low >= high:
        raise _fault(f"low must be below high, got low {low} and high {high}")
    if log and step is not None:
        raise _fault("log and step cannot be combined; leave one out")
    if log and low <= 0:
        raise _fault(f"a log range must start above 0, got low {low}")
    if step is None:
        return Range(name, low, high, log, step, integer, when)
    right_type = isinstance(step, int) if integer else isinstance(step, (int, float))
    if isinstance(step, bool) or not right_type or not 0 < step <= high - low:
        expected = f"{'an integer' if integer else 'a number'} above 0 and at most high - low"
        raise _fault(f"{expected}, got {quote(repr(step))}", "step")
    dimension = Range(name, low, high, log, step, integer, when)
    count = dimension.count
    assert count is not None
    if count > MOST_VALUES:
        raise _fault(
            f"gives {quote(f'{count:,}')} values, got {step}; at most {MOST_VALUES:,} values, or leave out step", "step"
        )
    values = dimension.values
    assert values is not None
    # The range ends at the last value that the step reaches, so that both engines see the same end.
    last = int(values[-1]) if integer else float(values[-1])
    return Range(name, low, last, log, step, integer, when)


def _read_when(entry: Any) -> When:
    if not isinstance(entry, Mapping) or not entry:
        got = quote(repr(entry))
        raise _fault(f"another hyperparameter and its value, as in {{optimizer: sgd}}, got {got}", "when")
    return {str(k): tuple(v) if isinstance(v, list) else (v,) for k, v in entry.items()}


def _check_condition(parent: str, allowed: tuple[Any, ...]) -> None:
    """Raise `SettingError` if a condition's hyperparameter is unknown or cannot have the values."""
    faults = unknown_names([parent], NAMES)
    for value in () if faults else allowed:
        with collect_faults(faults, parent):
            check_value(parent, value)
    if faults:
        raise SettingError(*faults)


def _parents_first(dimensions: Mapping[str, Dimension]) -> Iterator[Dimension]:
    """Yield the dimensions in the given order, but each after its parents. Raise `SettingError` on a cycle."""
    visited: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> Iterator[Dimension]:
        if name in path:
            cycle = " -> ".join((*path[path.index(name) :], name))
            raise _fault(f"the conditions form a cycle: {cycle}", name, "when")
        if name in visited:
            return
        for parent in dimensions[name].when:
            yield from visit(parent, (*path, name))
        visited.add(name)
        yield dimensions[name]

    for name in dimensions:
        yield from visit(name, ())


def _check_sizes(space: Space) -> None:
    """Raise `SettingError` if there are too many image sizes, or if no candidate of the space can be built."""
    sizes = space.possible_values("image_size")
    dimension = space["image_size"]
    if isinstance(dimension, Range) and (dimension.log or len(sizes) > MOST_IMAGE_SIZES):
        raise _fault(f"a range of at most {MOST_IMAGE_SIZES} sizes, not log; give a step or a list", "image_size")
    easiest_to_build = Hyperparameters(
        layers=min(map(int, space.possible_values("layers"))),
        kernel_size=min(map(int, space.possible_values("kernel_size"))),
        image_size=max(map(int, sizes)),
    )
    if reason := unbuildable(easiest_to_build):
        raise _fault(f"no candidate can be built: {reason}")
