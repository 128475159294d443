"""The errors that a request or a trial can cause, and parts of their messages."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

LESS_MEMORY = "a smaller batch_size, image_size, filters or dense_units needs less"
"""Advice for a trial that ran out of memory, as the end of an error message."""


class RequestError(Exception):
    """An error in what the user asked for, for example in the experiment, the data or an address.

    The message is one line: what is wrong, where (file, key, picture), what would be right. A command prints it on
    standard error and ends with exit status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class TrialError(Exception):
    """An error that ends one trial, caused by its hyperparameters. The message gives the reason in one line."""


class FullDiskError(Exception):
    """A file system is full. The message says which and what to do, in one line. The trial does not fail: it is run again."""


def suggest_name(name: str, names: Sequence[str]) -> str:
    """Return `; did you mean 'layers'?` for the closest of the known names, or an empty string if none is close."""
    completions = sorted((known for known in names if name and known.startswith(name)), key=len)
    suggestions = completions or get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {suggestions[0]!r}?" if suggestions else ""


def describe_validation_error(error: Any) -> str:
    """Return one of the errors of a `pydantic.ValidationError` as `what would be right, got what`."""
    message = str(error["msg"])
    message = message[0].lower() + message[1:].removesuffix(".")
    return f"{message}, got {error['input']!r}"
