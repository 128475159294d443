"""The space a study searches: what each hyperparameter may be, and when it counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pneumo.spec.errors import RequestError
from pneumo.spec.hyperparameters import (
    CONDITIONS,
    NAMES,
    TUTORIAL,
    Hyperparameters,
    Value,
    unbuildable,
    value_type,
)

When = Mapping[str, tuple[Value, ...]]
"""Names of other hyperparameters, and the values of each under which this one counts; all must hold."""

MOST_IMAGE_SIZES = 16
"""Each image size is one more decoded copy of the pictures in the cache."""


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
    """A number from `low` to `high`, both included. `integer` follows from the hyperparameter's type."""

    name: str
    low: float
    high: float
    log: bool
    step: float | None
    integer: bool
    when: When

    @property
    def values(self) -> tuple[Value, ...] | None:
        """The values where there are finitely many (an integer, or a step); None otherwise."""
        step = self.step if self.step is not None else (1 if self.integer else None)
        if step is None:
            return None
        # Decimal, so that 0.1 + 0.2 is 0.3 here as it is in the file.
        low, width = Decimal(str(self.low)), Decimal(str(step))
        count = int((Decimal(str(self.high)) - low) / width) + 1
        return tuple((int if self.integer else float)(low + k * width) for k in range(count))


Searched = Choice | Range
Dimension = Fixed | Choice | Range


@dataclass(frozen=True)
class Space:
    """Every hyperparameter once, each after those its `when` names."""

    dimensions: tuple[Dimension, ...]

    @property
    def searched(self) -> tuple[Searched, ...]:
        return tuple(d for d in self.dimensions if not isinstance(d, Fixed))

    @property
    def conditional(self) -> bool:
        """Whether some candidates have hyperparameters that others lack."""
        searched = {d.name for d in self.searched}
        return any(searched & set(d.when) for d in self.searched)

    def __getitem__(self, name: str) -> Dimension:
        return next(d for d in self.dimensions if d.name == name)

    def draw(self, choose: Callable[[Searched], Value]) -> dict[str, Value]:
        """Every active hyperparameter, in order: fixed ones as they are, searched ones as `choose` says."""
        drawn: dict[str, Value] = {}
        for dimension in self.dimensions:
            if not active(dimension, drawn):
                continue
            drawn[dimension.name] = dimension.value if isinstance(dimension, Fixed) else choose(dimension)
        return drawn

    def grid(self) -> Iterator[dict[str, Value]]:
        """Every candidate once, with all its active hyperparameters. Needs finitely many values in every range."""

        def extend(index: int, drawn: dict[str, Value]) -> Iterator[dict[str, Value]]:
            while index < len(self.dimensions):
                dimension = self.dimensions[index]
                index += 1
                if not active(dimension, drawn):
                    continue
                if not isinstance(dimension, Fixed):
                    for value in dimension.values or ():
                        yield from extend(index, drawn | {dimension.name: value})
                    return
                drawn = drawn | {dimension.name: dimension.value}
            yield drawn

        return extend(0, {})

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether these are the active hyperparameters of a candidate of this space, each at a value it can take."""
        names = set()
        for dimension in self.dimensions:
            if not active(dimension, values):
                continue
            names.add(dimension.name)
            if dimension.name not in values or not _takes(dimension, values[dimension.name]):
                return False
        return names == set(values)

    def baseline(self) -> dict[str, Value]:
        """The tutorial's own network and training, whether or not the space holds it.

        How long it trains and in which arithmetic is the study's to say, so that it is compared on equal terms: epochs
        and precision are the file's where it fixes them, and of searched epochs the nearest to the tutorial's.
        """
        epochs = min(self.possible("epochs"), key=lambda e: abs(int(e) - TUTORIAL.epochs))
        precision = self["precision"]
        own = TUTORIAL.model_dump() | {"epochs": epochs}
        if isinstance(precision, Fixed):
            own["precision"] = precision.value
        return {name: own[name] for name in NAMES if _conditions_hold(CONDITIONS.get(name, {}), own)}

    def complete(self, given: Mapping[str, Any], where: str) -> dict[str, Value]:
        """The candidate of this space with these hyperparameters; the others are as near to the tutorial's as can be.

        Raises `RequestError`, beginning with `where` and the key, where the space does not hold it.
        """
        for name, value in given.items():
            if name not in NAMES:
                raise RequestError(f"{where}: there is no {name!r}{nearest(str(name), NAMES)}")
            if not _takes(self[name], _checked(name, value, f"{where}.{name}")):
                raise RequestError(f"{where}.{name}: the space does not hold {value!r}; widen hyperparameters.{name}")
        drawn = self.draw(lambda d: given[d.name] if d.name in given else _nearest_to_tutorial(d))
        if unused := set(given) - set(drawn):
            raise RequestError(f"{where}: {', '.join(sorted(unused))} does not count beside the others")
        return drawn

    def image_sizes(self) -> tuple[int, ...]:
        """Every side in pixels that a candidate can ask for, smallest first."""
        return tuple(sorted(int(size) for size in self.possible("image_size")))

    def possible(self, name: str) -> tuple[Value, ...]:
        """The values a hyperparameter can take; of a continuous range, its two ends."""
        dimension = self[name]
        if isinstance(dimension, Fixed):
            return (dimension.value,)
        if isinstance(dimension, Choice):
            return dimension.values
        return dimension.values or (dimension.low, dimension.high)

    def describe(self) -> dict[str, Any]:
        """The space as JSON values, the same for equal spaces: what a study is compared by when it is taken up.

        What can never count, as momentum beside adam alone, is left out.
        """
        counts = (d for d in self.dimensions if all(set(self.possible(n)) & set(v) for n, v in d.when.items()))
        return {d.name: _described(d) for d in sorted(counts, key=lambda d: NAMES.index(d.name))}


def active(dimension: Dimension, values: Mapping[str, Value]) -> bool:
    """Whether a hyperparameter counts beside these values; one whose parent is inactive does not."""
    return _conditions_hold(dimension.when, values)


def read_space(block: Mapping[str, Any]) -> Space:
    """The space that an experiment's `hyperparameters` block describes; what it leaves out is the tutorial's.

    Raises `RequestError`, naming the key, where a name, value, range or condition is wrong, or where no candidate could
    be built.
    """
    for name in block:
        if name not in NAMES:
            raise RequestError(f"hyperparameters: there is no {name!r}{nearest(str(name), NAMES)}")
    dimensions = {name: _dimension(name, block.get(name, getattr(TUTORIAL, name))) for name in NAMES}
    for dimension in dimensions.values():
        for parent, allowed in dimension.when.items():
            if parent not in dimensions:
                raise RequestError(
                    f"hyperparameters.{dimension.name}.when: there is no {parent!r}{nearest(parent, NAMES)}"
                )
            for value in allowed:
                _checked(parent, value, f"hyperparameters.{dimension.name}.when.{parent}")
    space = Space(tuple(_in_order(dimensions)))
    _check_sizes(space)
    return space


def nearest(name: str, names: tuple[str, ...] | list[str]) -> str:
    """`; did you mean 'layers'?`, or nothing where no name is near."""
    begun = sorted((known for known in names if name and known.startswith(name)), key=len)
    near = begun or get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _conditions_hold(when: When, values: Mapping[str, Value]) -> bool:
    return all(name in values and values[name] in allowed for name, allowed in when.items())


def _nearest_to_tutorial(dimension: Searched) -> Value:
    own: Value = getattr(TUTORIAL, dimension.name)
    if isinstance(dimension, Choice):
        return own if own in dimension.values else dimension.values[0]
    if dimension.values is not None:
        return min(dimension.values, key=lambda value: abs(float(value) - float(own)))
    return min(max(float(own), dimension.low), dimension.high)


def _takes(dimension: Dimension, value: Value) -> bool:
    if isinstance(dimension, Fixed):
        return value == dimension.value
    if dimension.values is not None:
        return value in dimension.values
    assert isinstance(dimension, Range)
    return not isinstance(value, str) and dimension.low <= value <= dimension.high


def _dimension(name: str, entry: Any) -> Dimension:
    where = f"hyperparameters.{name}"
    when: When = CONDITIONS.get(name, {})
    if not isinstance(entry, Mapping):
        if isinstance(entry, list):
            return _choice(name, entry, when, where)
        return Fixed(name, _checked(name, entry, where), when)
    keys = ("low", "high", "log", "step", "values", "value", "when")
    for key in entry:
        if key not in keys:
            raise RequestError(f"{where}: there is no {key!r}{nearest(str(key), keys)}")
    when = _when(entry["when"], where) if "when" in entry else when
    rest = {key: value for key, value in entry.items() if key != "when"}
    if set(rest) == {"value"}:
        return Fixed(name, _checked(name, rest["value"], where), when)
    if set(rest) == {"values"}:
        return _choice(name, rest["values"], when, where)
    if not {"low", "high"} <= set(rest) or {"value", "values"} & set(rest):
        raise RequestError(f"{where}: wants low and high, or values, or value, each perhaps with when")
    return _range(name, rest, when, where)


def _choice(name: str, values: Any, when: When, where: str) -> Dimension:
    if not isinstance(values, list) or not values:
        raise RequestError(f"{where}: a choice is a list of at least one value, got {values!r}")
    checked = tuple(_checked(name, value, where) for value in values)
    if len(set(checked)) < len(checked):
        raise RequestError(f"{where}: a value stands twice in {values!r}")
    return Fixed(name, checked[0], when) if len(checked) == 1 else Choice(name, checked, when)


def _range(name: str, entry: Mapping[str, Any], when: When, where: str) -> Range:
    if value_type(name) not in (int, float) or name == "channels":
        raise RequestError(f"{where}: takes no range; give a list of its values")
    low, high = (_checked(name, entry[end], f"{where}.{end}") for end in ("low", "high"))
    log, step = entry.get("log", False), entry.get("step")
    integer = value_type(name) is int
    assert not isinstance(low, str)
    assert not isinstance(high, str)
    if not isinstance(log, bool):
        raise RequestError(f"{where}.log: true or false, got {log!r}")
    if low >= high:
        raise RequestError(f"{where}: low must be below high, got low {low} and high {high}")
    if log and step is not None:
        raise RequestError(f"{where}: log and step do not go together; leave one out")
    if log and low <= 0:
        raise RequestError(f"{where}: a log range starts above 0, got low {low}")
    if step is not None:
        fits = isinstance(step, int) if integer else isinstance(step, (int, float))
        if isinstance(step, bool) or not fits or not 0 < step <= high - low:
            raise RequestError(
                f"{where}.step: {'a whole' if integer else 'a'} number above 0 and at most high - low, got {step!r}"
            )
    read = Range(name, low, high, log, step, integer, when)
    if step is not None and read.values:
        # The last value that the step reaches, so that both engines see the same end.
        read = Range(
            name, low, float(read.values[-1]) if not integer else int(read.values[-1]), log, step, integer, when
        )
    return read


def _when(entry: Any, where: str) -> When:
    if not isinstance(entry, Mapping) or not entry:
        raise RequestError(
            f"{where}.when: another hyperparameter and its value, as in {{optimizer: sgd}}, got {entry!r}"
        )
    return {str(k): tuple(v) if isinstance(v, list) else (v,) for k, v in entry.items()}


_FIELDS: dict[str, TypeAdapter[Any]] = {}


def _checked(name: str, value: Any, where: str) -> Value:
    """A value, if the hyperparameter's field takes it; a whole number for a float field becomes a float."""
    if name not in _FIELDS:
        field = Hyperparameters.model_fields[name]
        _FIELDS[name] = TypeAdapter(field.rebuild_annotation())
    try:
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{where}: a finite number, got {value}")
        checked: Value = _FIELDS[name].validate_python(value, strict=True)
    except ValidationError as error:
        raise RequestError(f"{where}: {describe_fault(error.errors()[0])}") from None
    return checked


def describe_fault(error: Any) -> str:
    """One pydantic error as `what would be right, got what`."""
    message = str(error["msg"])
    message = message[0].lower() + message[1:].removesuffix(".")
    return f"{message}, got {error['input']!r}"


def _in_order(dimensions: Mapping[str, Dimension]) -> Iterator[Dimension]:
    """Parents before their children, else as listed. Raises `RequestError` on a circle."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> Iterator[Dimension]:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise RequestError(f"hyperparameters.{name}.when: goes in a circle: {circle}")
        if name in done:
            return
        for parent in dimensions[name].when:
            yield from visit(parent, (*path, name))
        done.add(name)
        yield dimensions[name]

    for name in dimensions:
        yield from visit(name, ())


def _check_sizes(space: Space) -> None:
    sizes = space.possible("image_size")
    dimension = space["image_size"]
    if isinstance(dimension, Range) and (dimension.log or len(sizes) > MOST_IMAGE_SIZES):
        raise RequestError(
            f"hyperparameters.image_size: a range of at most {MOST_IMAGE_SIZES} sizes, not log; give a step or a list"
        )
    easiest = Hyperparameters(
        layers=min(map(int, space.possible("layers"))),
        kernel_size=min(map(int, space.possible("kernel_size"))),
        image_size=max(map(int, sizes)),
    )
    if reason := unbuildable(easiest):
        raise RequestError(f"hyperparameters: no candidate can be built: {reason}")


def _described(dimension: Dimension) -> Any:
    match dimension:
        case Fixed(value=value):
            body: dict[str, Any] = {"value": value}
        case Choice(values=values):
            body = {"values": list(values)}
        case Range(low=low, high=high, log=log, step=step):
            body = {"low": low, "high": high} | ({"log": True} if log else {}) | ({"step": step} if step else {})
    if dimension.when:
        body["when"] = {name: list(allowed) for name, allowed in dimension.when.items()}
    if set(body) == {"value"}:
        return body["value"]
    return body["values"] if set(body) == {"values"} else body
