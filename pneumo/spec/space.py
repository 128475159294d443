"""The space that a study searches: the values of each hyperparameter, and the conditions under which it is active."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import islice
from typing import Any

from pneumo.spec.errors import Fault, SettingError, collect_faults, unknown_names
from pneumo.spec.hyperparameters import CONDITIONS, NAMES, TUTORIAL, Value, check_value

When = Mapping[str, tuple[Value, ...]]
"""The condition of a hyperparameter: names of other hyperparameters, each with its allowed values. All must hold."""


@dataclass(frozen=True)
class Fixed:
    """A hyperparameter with one value."""

    name: str
    value: Value
    when: When


@dataclass(frozen=True)
class Choice:
    """A hyperparameter that takes one of several values."""

    name: str
    values: tuple[Value, ...]
    when: When


@dataclass(frozen=True)
class Range:
    """A numeric hyperparameter that takes values from `low` to `high`, both included.

    Attributes:
        name: Name of the hyperparameter.
        low: Smallest value.
        high: Largest value.
        log: Whether engines sample on a logarithmic scale.
        step: Distance between values; None for a continuous range, or for all integers.
        integer: Whether the hyperparameter's type is int.
        when: Condition under which the hyperparameter is active.
    """

    name: str
    low: float
    high: float
    log: bool
    step: float | None
    integer: bool
    when: When

    @property
    def count(self) -> int | None:
        """Number of values; None if the range is continuous."""
        if (width := self._width) is None:
            return None
        return int((Decimal(str(self.high)) - Decimal(str(self.low))) / width) + 1

    @cached_property
    def values(self) -> tuple[Value, ...] | None:
        """All values in ascending order; None if the range is continuous."""
        width, count = self._width, self.count
        if width is None or count is None:
            return None
        low = Decimal(str(self.low))
        return tuple((int if self.integer else float)(low + k * width) for k in range(count))

    @property
    def _width(self) -> Decimal | None:
        """The distance between values, as a decimal number, so that 0.1 + 0.2 is 0.3 as written in the file."""
        step = self.step if self.step is not None else (1 if self.integer else None)
        return None if step is None else Decimal(str(step))


Searched = Choice | Range
Dimension = Fixed | Choice | Range


@dataclass(frozen=True)
class Space:
    """The space of a study. It has every hyperparameter once, each after those that its condition names."""

    dimensions: tuple[Dimension, ...]

    @property
    def searched(self) -> tuple[Searched, ...]:
        """The hyperparameters that have more than one value."""
        return tuple(d for d in self.dimensions if not isinstance(d, Fixed))

    def __getitem__(self, name: str) -> Dimension:
        return next(d for d in self.dimensions if d.name == name)

    def draw(self, choose: Callable[[Searched], Value]) -> dict[str, Value]:
        """Return one candidate's is_active hyperparameters, in order of the dimensions.

        Args:
            choose: Called with each is_active searched dimension; returns its value.
        """
        drawn: dict[str, Value] = {}
        for dimension in self.dimensions:
            if not is_active(dimension, drawn):
                continue
            drawn[dimension.name] = dimension.value if isinstance(dimension, Fixed) else choose(dimension)
        return drawn

    def grid(self) -> Iterator[dict[str, Value]]:
        """Yield the is_active hyperparameters of every candidate once. No range may be continuous."""

        def extend(index: int, drawn: dict[str, Value]) -> Iterator[dict[str, Value]]:
            while index < len(self.dimensions):
                dimension = self.dimensions[index]
                index += 1
                if not is_active(dimension, drawn):
                    continue
                if not isinstance(dimension, Fixed):
                    for value in dimension.values or ():
                        yield from extend(index, drawn | {dimension.name: value})
                    return
                drawn = drawn | {dimension.name: dimension.value}
            yield drawn

        return extend(0, {})

    def combinations(self, most: int) -> list[dict[str, Value]] | None:
        """Return every candidate as `grid` does; None if a range is continuous or there are more than `most`."""
        if any(dimension.values is None for dimension in self.searched):
            return None
        combinations = list(islice(self.grid(), most + 1))
        return combinations if len(combinations) <= most else None

    def completed(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return a stored candidate's hyperparameters with those that the version which stored it did not have.

        An active hyperparameter that is missing gets the tutorial's value, with which the candidate was trained.
        """
        completed = dict(values)
        for dimension in self.dimensions:
            if dimension.name not in completed and is_active(dimension, completed):
                completed[dimension.name] = getattr(TUTORIAL, dimension.name)
        return completed

    def contains(self, values: Mapping[str, Value]) -> bool:
        """Return whether `values` are exactly the is_active hyperparameters of a candidate of this space."""
        values = self.completed(values)
        names = set()
        for dimension in self.dimensions:
            if not is_active(dimension, values):
                continue
            names.add(dimension.name)
            if not _allows(dimension, values[dimension.name]):
                return False
        return names == set(values)

    def baseline(self) -> dict[str, Value]:
        """Return the hyperparameters of the tutorial's network and training, even if they lie outside the space.

        Two values follow the study, so that the baseline is compared on equal terms: `epochs` is the possible value that
        is closest to the tutorial's, and `precision` is the study's if the study fixes it.
        """
        epochs = min(self.possible_values("epochs"), key=lambda e: abs(int(e) - TUTORIAL.epochs))
        precision = self["precision"]
        values = TUTORIAL.model_dump() | {"epochs": epochs}
        if isinstance(precision, Fixed):
            values["precision"] = precision.value
        return {name: values[name] for name in NAMES if _condition_holds(CONDITIONS.get(name, {}), values)}

    def complete(self, given: Mapping[str, Any]) -> dict[str, Value]:
        """Return the candidate that has the given values and, for all others, those closest to the tutorial's.

        Args:
            given: Hyperparameters by name.

        Raises:
            SettingError: Names are unknown, or values are not in this space.
        """
        faults = unknown_names(given, NAMES)
        for name in (name for name in NAMES if name in given):
            with collect_faults(faults, name):
                if not _allows(self[name], check_value(name, given[name])):
                    message = f"{given[name]!r} is not in the space; widen hyperparameters.{name}"
                    raise SettingError(Fault((), message))
        if faults:
            raise SettingError(*faults)
        drawn = self.draw(lambda d: given[d.name] if d.name in given else _closest_to_tutorial(d))
        if inactive := set(given) - set(drawn):
            raise SettingError(Fault((), f"{', '.join(sorted(inactive))} has no effect with the other values"))
        return drawn

    def image_sizes(self) -> tuple[int, ...]:
        """Return the image sizes of all candidates: sides in pixels, smallest first."""
        return tuple(sorted(int(size) for size in self.possible_values("image_size")))

    def possible_values(self, name: str) -> tuple[Value, ...]:
        """Return all values of a hyperparameter; of a continuous range, its two ends."""
        dimension = self[name]
        if isinstance(dimension, Fixed):
            return (dimension.value,)
        if isinstance(dimension, Choice):
            return dimension.values
        return dimension.values or (dimension.low, dimension.high)

    def to_dict(self) -> dict[str, Any]:
        """Return the space as JSON values, in the form of an experiment's `hyperparameters` block.

        Equal spaces give equal results, which are compared when a study is resumed. A hyperparameter that is active for
        no candidate is left out, for example momentum if the optimizer is always adam.
        """
        dimensions = [
            dimension
            for dimension in self.dimensions
            if all(set(self.possible_values(name)) & set(allowed) for name, allowed in dimension.when.items())
        ]
        return {d.name: _dimension_to_json(d) for d in sorted(dimensions, key=lambda d: NAMES.index(d.name))}


def is_active(dimension: Dimension, values: Mapping[str, Value]) -> bool:
    """Return whether a hyperparameter's condition holds for these values. It does not if a parent is inactive."""
    return _condition_holds(dimension.when, values)


def _condition_holds(when: When, values: Mapping[str, Value]) -> bool:
    return all(name in values and values[name] in allowed for name, allowed in when.items())


def _closest_to_tutorial(dimension: Searched) -> Value:
    tutorial_value: Value = getattr(TUTORIAL, dimension.name)
    if isinstance(dimension, Choice):
        return tutorial_value if tutorial_value in dimension.values else dimension.values[0]
    if dimension.values is not None:
        return min(dimension.values, key=lambda value: abs(float(value) - float(tutorial_value)))
    return min(max(float(tutorial_value), dimension.low), dimension.high)


def _allows(dimension: Dimension, value: Value) -> bool:
    if isinstance(dimension, Fixed):
        return value == dimension.value
    if dimension.values is not None:
        return value in dimension.values
    assert isinstance(dimension, Range)
    return not isinstance(value, str) and dimension.low <= value <= dimension.high


def _dimension_to_json(dimension: Dimension) -> Any:
    match dimension:
        case Fixed(value=value):
            entry: dict[str, Any] = {"value": value}
        case Choice(values=values):
            entry = {"values": list(values)}
        case Range(low=low, high=high, log=log, step=step):
            entry = {"low": low, "high": high} | ({"log": True} if log else {}) | ({"step": step} if step else {})
    if dimension.when:
        entry["when"] = {name: list(allowed) for name, allowed in dimension.when.items()}
    if set(entry) == {"value"}:
        return entry["value"]
    return entry["values"] if set(entry) == {"values"} else entry
