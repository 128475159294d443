"""A space as Keras Tuner sees it: its own kinds of hyperparameters under its own conditions, and their values there.

Only searched hyperparameters are in it; conditions on fixed ones are settled here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pneumo.spec.hyperparameters import Value
from pneumo.spec.space import Choice, Dimension, Fixed, Range, Searched, Space


def hyperparameters(space: Space) -> Any:
    """The space as `keras_tuner.HyperParameters`."""
    from keras_tuner.engine.hyperparameters import HyperParameters

    # Not by conditional_scope, which knows a parent only within the very scope that it was registered in: there a child of
    # a conditional parent, or of two parents, cannot be said.
    made = HyperParameters()
    for dimension in space.searched:
        conditions = _conditions(space, dimension)
        if conditions is not None:
            made.merge([_hyperparameter(dimension, conditions)])
    return made


def encoded(space: Space, values: Mapping[str, Value]) -> dict[str, Any]:
    """A candidate's searched hyperparameters as Keras Tuner has them. The space must hold the candidate."""
    return {d.name: _encoded(d, values[d.name]) for d in space.searched if d.name in values}


def decoded(dimension: Searched, value: Any) -> Value:
    """The value of a hyperparameter that Keras Tuner means; it gives some of NumPy's types."""
    if _by_index(dimension):
        assert dimension.values is not None
        return dimension.values[int(value)]
    if isinstance(dimension, Range):
        return int(value) if dimension.integer else float(value)
    chosen: Value = value
    return chosen


def _hyperparameter(dimension: Searched, conditions: list[Any]) -> Any:
    from keras_tuner.engine import hyperparameters as kinds

    name = dimension.name
    if isinstance(dimension, Choice):
        if _by_index(dimension):
            indices = list(range(len(dimension.values)))
            return kinds.Choice(name, indices, ordered=_numbers(dimension), conditions=conditions)
        if isinstance(dimension.values[0], bool):
            # Of a choice of them Keras Tuner makes 0 and 1.
            return kinds.Boolean(name, conditions=conditions)
        return kinds.Choice(name, list(dimension.values), conditions=conditions)
    sampling = "log" if dimension.log else "linear"
    if dimension.integer:
        step = int(dimension.step) if dimension.step else None
        return kinds.Int(name, int(dimension.low), int(dimension.high), step, sampling, conditions=conditions)
    if dimension.values is not None:
        return kinds.Int(name, 0, len(dimension.values) - 1, conditions=conditions)
    low, high = dimension.low, dimension.high
    # What Keras Tuner computes for the upper end must not be rounded to beyond it.
    while (low * math.pow(high / low, 1.0) if dimension.log else (high - low) + low) > dimension.high:
        high = math.nextafter(high, low)
    return kinds.Float(name, low, high, sampling=sampling, conditions=conditions)


def _by_index(dimension: Searched) -> bool:
    """Whether Keras Tuner gets a value's index: a choice there has values of one type, and a float with a step is
    rounded otherwise than the file says it, and may lose its last value."""
    if isinstance(dimension, Choice):
        return len({type(value) for value in dimension.values}) > 1
    return not dimension.integer and dimension.values is not None


def _numbers(choice: Choice) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in choice.values)


def _encoded(dimension: Searched, value: Value) -> Any:
    if isinstance(dimension, Range) and not _by_index(dimension):
        return int(value) if dimension.integer else float(value)
    assert dimension.values is not None
    index = dimension.values.index(value)
    return index if _by_index(dimension) else dimension.values[index]  # 0.0 also where 0 is meant


def _conditions(space: Space, dimension: Dimension) -> list[Any] | None:
    """When a hyperparameter counts: every condition on a searched one. None where a fixed one never lets it."""
    from keras_tuner.src.engine.conditions import Parent

    found: list[Any] = []
    for name, allowed in dimension.when.items():
        parent = space[name]
        if isinstance(parent, Fixed):
            inherited = _conditions(space, parent)
            if inherited is None or parent.value not in allowed:
                return None
            found += inherited
            continue
        possible = allowed if parent.values is None else [value for value in parent.values if value in allowed]
        if not possible:
            return None
        found.append(Parent(name, [_encoded(parent, value) for value in possible]))
    return found
