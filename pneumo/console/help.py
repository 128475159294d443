"""Help texts that read well in a terminal of 80 columns."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from rich.console import Console
from rich.text import Text
from typer.core import TyperArgument, TyperOption

_COMMANDS = ("python -m ", "pneumo ")


class HelpText:
    """A part of a command: its help shows whole paragraphs, copyable examples, and no names of Python's types."""

    help: str | None
    epilog: str | None

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, which show what is typed for a value in place of its Python type."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if isinstance(parameter, TyperArgument):
                parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
            elif isinstance(parameter, TyperOption):
                shown = None if parameter.is_flag else parameter.metavar or parameter.display_type(ctx).strip("<>")
                parameter.display_type_rich = lambda ctx, shown=shown: shown  # type: ignore[method-assign, misc]
        return parameters

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        written = self.help, self.epilog
        self.help, self.epilog = _join_lines(self.help or ""), None
        try:
            super().format_help(ctx, formatter)  # type: ignore[misc]
        finally:
            self.help, self.epilog = written
        if self.epilog:
            _print_epilog(self.epilog)


def _join_lines(text: str) -> str:
    """Return a docstring with each paragraph in one line, which the terminal's width breaks."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _break_command(command: str, width: int) -> list[str]:
    """Return the lines of a command, indented, with each option beside its value."""
    lines: list[str] = ["  "]
    for part in re.findall(r"--\S+ (?!-)\S+|\S+", command):
        if lines[-1].strip() and len(lines[-1]) + 1 + len(part) > width:
            lines.append(part)
        else:
            lines[-1] += part if not lines[-1].strip() else f" {part}"
    return lines


def _print_epilog(epilog: str) -> None:
    """Print what stands below the options: headings, commands each with what it does, and text."""
    console = Console(highlight=False)
    width = console.width - 2
    console.print()
    for paragraph in (part for part in epilog.split("\n\n") if part.strip()):
        text = " ".join(paragraph.split())
        if paragraph.startswith("[bold]"):
            console.print(f" {text}")
        elif text.startswith(_COMMANDS):
            # A backslash at the end of a line lets a command of several lines be copied.
            console.print(Text(" \\\n        ".join(_break_command(text, width - 10))), soft_wrap=True)
            continue
        else:
            margin = "      " if paragraph.lstrip("\n").startswith("  ") else " "
            console.print(textwrap.fill(text, width, initial_indent=margin, subsequent_indent=margin), soft_wrap=True)
        console.print()
