"""What a section of a report is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Section(Generic[T]):
    """A section of a report.

    Attributes:
        name: The section's anchor in the page: one word.
        heading: Its heading.
        values: Returns what the template needs, by name, from what the report is about; None leaves the section out.
        template: Jinja2, with automatic escaping. It has the functions `chart` (a figure of `charts`, or a sentence that
            says why there is none), `number` (a value as text) and `link` (a run as a link, if there is a server).
    """

    name: str
    heading: str
    values: Callable[[T], Mapping[str, Any] | None]
    template: str
