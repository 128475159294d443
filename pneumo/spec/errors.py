"""The errors that a request or a trial can cause, and parts of their messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NamedTuple

LESS_MEMORY = "a smaller batch_size, image_size, filters or dense_units needs less"
"""Advice for a trial that ran out of memory, as the end of an error message."""

LONGEST_QUOTE = 200
"""Largest number of characters of a user's text that an error message repeats."""

MOST_UNKNOWN_NAMES = 20
"""Largest number of unknown names of a block that have a fault each."""


class RequestError(Exception):
    """An error in what the user asked for, for example in the experiment, the data or an address.

    The message is one line: what is wrong, where (file, key, picture), what would be right. A request with several faults
    has a line for each. A command prints them on standard error and ends with exit status 2.
    """

    def __init__(self, *lines: str) -> None:
        self.lines = tuple(" ".join(line.split()) for line in lines)
        super().__init__(*self.lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)


class Fault(NamedTuple):
    """A fault of an experiment.

    Attributes:
        keys: Place of the faulty value: keys and indices from the outermost block, or from the block that found the fault.
            `..` is the block around.
        message: What is wrong and what would be right, without the place.
    """

    keys: tuple[str | int, ...]
    message: str

    def below(self, *keys: str | int) -> Fault:
        """Return the fault with these keys before its own."""
        place = list(keys)
        for key in self.keys:
            if key == "..":
                place.pop()
            else:
                place.append(key)
        return Fault(tuple(place), self.message)

    def __str__(self) -> str:
        """Return `search.try[0].layers: what is wrong`."""
        place = format_keys(self.keys)
        return f"{place}: {self.message}" if place else self.message


class SettingError(RequestError, ValueError):
    """Faults of an experiment. As a `ValueError` it is collected by pydantic, together with what pydantic finds."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        super().__init__(*map(str, faults))


@contextmanager
def collect_faults(found: list[Fault], *keys: str | int) -> Iterator[None]:
    """Add the faults that a block raises to `found`, with these keys before their own."""
    try:
        yield
    except SettingError as error:
        found += [fault.below(*keys) for fault in error.faults]


class TrialError(Exception):
    """An error that ends one trial, caused by its hyperparameters. The message gives the reason in one line."""


class FullDiskError(Exception):
    """A file system is full. The message says which and what to do, in one line. The trial does not fail: it is run again."""


class TakenOverError(Exception):
    """Another search that shares the study has taken over a trial of this one, whose result counts no more.

    Attributes:
        number: Number of the trial.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"another search has taken over trial {number}")


def format_keys(keys: Sequence[str | int]) -> str:
    """Return a place in an experiment as `search.try[0].layers`."""
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{_printable(key)}" for key in keys)
    return place.removeprefix(".")


def _printable(key: str) -> str:
    return quote(key) if key.isprintable() else quote(repr(key))


def quote(text: str) -> str:
    """Return a text without its middle if it is longer than an error message repeats."""
    half = LONGEST_QUOTE // 2
    return text if len(text) <= LONGEST_QUOTE else f"{text[:half]}...{text[-half:]}"


def suggest_name(name: str, names: Sequence[str]) -> str:
    """Return `; did you mean 'layers'?` for the closest of the known names, or an empty string if none is close."""
    completions = sorted((known for known in names if name and known.startswith(name)), key=len)
    suggestions = completions or get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {suggestions[0]!r}?" if suggestions else ""


def check_known(value: Any, known: Iterable[str], owner: str = "") -> str:
    """Return the value if it is one of `known`.

    Args:
        value: The value that the experiment has.
        known: All allowed values.
        owner: What the values belong to, for example ` of engine optuna`.

    Raises:
        SettingError: The value is unknown. The message lists the known ones and suggests the closest.
    """
    names = tuple(known)
    if value not in names:
        suggestion = suggest_name(str(value), names)
        message = f"there is no {quote(repr(value))}{owner}; there is {', '.join(names)}{suggestion}"
        raise SettingError(Fault((), message))
    return str(value)


def check_known_key(key: str, known: Iterable[str]) -> str:
    """Return the key of a mapping if it is one of `known`. The fault of another key is one of the mapping."""
    faults: list[Fault] = []
    with collect_faults(faults):
        return check_known(key, known)
    raise SettingError(*(Fault(("..",), fault.message) for fault in faults))


def unknown_names(given: Iterable[Any], known: Sequence[str]) -> list[Fault]:
    """Return a fault for each name that is not known. If they are many, the last fault counts those that are not named."""
    unknown = [str(name) for name in given if name not in known]
    named, others = unknown[:MOST_UNKNOWN_NAMES], len(unknown[MOST_UNKNOWN_NAMES:])
    faults = [Fault((), f"there is no {quote(repr(name))}{suggest_name(name, known)}") for name in named]
    return faults + ([Fault((), f"there is none of {others:,} other names")] if others else [])


def describe_validation_error(error: Any) -> str:
    """Return one of the errors of a `pydantic.ValidationError` as `what would be right, got what`."""
    message = str(error["msg"])
    message = message[0].lower() + message[1:].removesuffix(".")
    return f"{message}, got {quote(repr(error['input']))}"
