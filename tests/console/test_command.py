"""The command that the user typed, as it is shown again."""

from __future__ import annotations

import shlex

import pytest

from pneumo.console.command import TypedCommand


def arguments(command: TypedCommand) -> list[str]:
    """Return the arguments of a command as a shell takes them apart."""
    words = shlex.split(str(command))
    assert words[1:3] == ["-m", f"pneumo.{command.verb}"]
    return words[3:]


def test_a_command_is_shown_as_it_was_typed() -> None:
    typed = ("my experiment.yaml", "--set", "search.pruner=median", "--trials", "3")
    assert arguments(TypedCommand("search", typed)) == list(typed)


@pytest.mark.parametrize("typed", [("--trials", "3"), ("--trials=3",), ()])
def test_an_option_is_replaced_however_it_was_typed(typed: tuple[str, ...]) -> None:
    command = TypedCommand("search", ("a.yaml", *typed, "--workers", "2")).with_option("--trials", "6")
    assert arguments(command) == ["a.yaml", "--workers", "2", "--trials", "6"]


@pytest.mark.parametrize(
    "address",
    ["postgresql://someone:secret@host/studies", "postgresql://host/studies?user=someone&password=secret"],
)
def test_a_password_is_not_shown(address: str) -> None:
    shown = str(TypedCommand("search", ("a.yaml", "--storage", address)))
    assert "secret" not in shown
    assert "/studies" in shown
