"""Durations of an experiment: seconds, or a text with a unit."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from pneumo.spec.errors import Fault, SettingError, quote

_DURATION = r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*"

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""Seconds in a unit of time."""


def parse_duration(value: Any) -> Any:
    """Return `90`, `"90s"`, `"45m"`, `"2h"` or `"1d"` in seconds, and anything but a text unchanged, for pydantic to check.

    Raises:
        SettingError: The text is not a duration.
    """
    if not isinstance(value, str):
        return value
    if match := re.fullmatch(_DURATION, " ".join(value.split())):
        return float(match[1]) * _SECONDS[match[2] or "s"]
    raise SettingError(Fault((), f"seconds, or a text such as 90s, 45m or 2h, got {quote(repr(value))}"))


Seconds = Annotated[
    Annotated[float, Field(gt=0)],
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": f"^{_DURATION}$"}]}
    ),
]
"""A duration in seconds, or a text with a unit."""
