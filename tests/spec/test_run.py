"""A hyperparameter as text in MLflow, and back."""

from __future__ import annotations

import pytest

from pneumo.spec.run import format_parameter, parse_parameter


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("layers", 3, "3"),
        ("batch_norm", True, "true"),
        ("batch_norm", False, "false"),
        ("pooling", "max", "max"),
        ("learning_rate", 0.1 + 0.2, "0.30000000000000004"),
        ("learning_rate", 1e-05, "1e-05"),
    ],
)
def test_a_value_comes_back_to_the_last_bit(name: str, value: bool | int | float | str, text: str) -> None:
    assert format_parameter(value) == text
    parsed = parse_parameter(name, text)
    assert (parsed, type(parsed)) == (value, type(value))


def test_a_text_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="layers is 'many'; expected a value of type int"):
        parse_parameter("layers", "many")
    with pytest.raises(ValueError, match="batch_norm is 'True'; expected a value of type bool"):
        parse_parameter("batch_norm", "True")
