"""Translation of a space and its values to Keras Tuner's hyperparameters and back.

Keras Tuner gets the searched hyperparameters only. Conditions on fixed hyperparameters are decided here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pneumo.spec.hyperparameters import Value
from pneumo.spec.space import Choice, Dimension, Fixed, Range, Searched, Space


def to_keras_tuner(space: Space) -> Any:
    """Return the space as `keras_tuner.HyperParameters`."""
    from keras_tuner.engine.hyperparameters import HyperParameters

    # Conditions are set directly. Keras Tuner's conditional_scope finds a parent only in the scope in which the parent was
    # registered, so it cannot express a child of a conditional parent or of two parents.
    hyperparameters = HyperParameters()
    for dimension in space.searched:
        conditions = _conditions(space, dimension)
        if conditions is not None:
            hyperparameters.merge([_to_hyperparameter(dimension, conditions)])
    return hyperparameters


def encode_values(space: Space, values: Mapping[str, Value]) -> dict[str, Any]:
    """Return a candidate's searched hyperparameters in Keras Tuner's form. The candidate must lie in the space."""
    completed = space.completed(values)
    return {d.name: _encode_value(d, completed[d.name]) for d in space.searched if d.name in completed}


def decode_value(dimension: Searched, value: Any) -> Value:
    """Return the value of a hyperparameter from Keras Tuner's form, in which numbers may have NumPy types."""
    if _is_index(dimension):
        assert dimension.values is not None
        return dimension.values[int(value)]
    if isinstance(dimension, Range):
        return int(value) if dimension.integer else float(value)
    decoded: Value = value
    return decoded


def _to_hyperparameter(dimension: Searched, conditions: list[Any]) -> Any:
    from keras_tuner.engine import hyperparameters as kinds

    name = dimension.name
    if isinstance(dimension, Choice):
        if _is_index(dimension):
            indices = list(range(len(dimension.values)))
            return kinds.Choice(name, indices, ordered=_is_numeric(dimension), conditions=conditions)
        if isinstance(dimension.values[0], bool):
            # Keras Tuner's Choice would turn booleans into 0 and 1.
            return kinds.Boolean(name, conditions=conditions)
        return kinds.Choice(name, list(dimension.values), conditions=conditions)
    sampling = "log" if dimension.log else "linear"
    if dimension.integer:
        step = int(dimension.step) if dimension.step else None
        return kinds.Int(name, int(dimension.low), int(dimension.high), step, sampling, conditions=conditions)
    if dimension.values is not None:
        return kinds.Int(name, 0, len(dimension.values) - 1, conditions=conditions)
    low, high = dimension.low, dimension.high
    # Lower the upper end until the value that Keras Tuner computes for it is not rounded to above the range.
    while (low * math.pow(high / low, 1.0) if dimension.log else (high - low) + low) > dimension.high:
        high = math.nextafter(high, low)
    return kinds.Float(name, low, high, sampling=sampling, conditions=conditions)


def _is_index(dimension: Searched) -> bool:
    """Return whether Keras Tuner gets the index of a value instead of the value.

    Its Choice requires values of one type. Its Float rounds the values of a step differently from the file, and may lose
    the last one.
    """
    if isinstance(dimension, Choice):
        return len({type(value) for value in dimension.values}) > 1
    return not dimension.integer and dimension.values is not None


def _is_numeric(choice: Choice) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in choice.values)


def _encode_value(dimension: Searched, value: Value) -> Any:
    if isinstance(dimension, Range) and not _is_index(dimension):
        return int(value) if dimension.integer else float(value)
    assert dimension.values is not None
    index = dimension.values.index(value)
    return index if _is_index(dimension) else dimension.values[index]  # the value has the listed type: 0.0, not 0


def _conditions(space: Space, dimension: Dimension) -> list[Any] | None:
    """Return a hyperparameter's conditions on searched ones; None if a fixed one makes it inactive in every candidate."""
    from keras_tuner.src.engine.conditions import Parent

    conditions: list[Any] = []
    for name, allowed in dimension.when.items():
        parent = space[name]
        if isinstance(parent, Fixed):
            inherited = _conditions(space, parent)
            if inherited is None or parent.value not in allowed:
                return None
            conditions += inherited
            continue
        possible = allowed if parent.values is None else [value for value in parent.values if value in allowed]
        if not possible:
            return None
        conditions.append(Parent(name, [_encode_value(parent, value) for value in possible]))
    return conditions
