"""Arguments and option values that are empty, for every command, and a command line without its command."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from pneumo.__main__ import VERBS
from pneumo.console.command import run_command
from pneumo.spec.errors import RequestError


def verb_app(verb: str) -> typer.Typer:
    app = import_module(f"pneumo.{verb}.__main__").app
    assert isinstance(app, typer.Typer)
    return app


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each command without subcommands, with the words that select it."""
    if hasattr(command, "commands"):
        for name, subcommand in command.commands.items():
            yield from commands(subcommand, (*words, name))
    else:
        yield words, command


def empty_values() -> Iterator[tuple[str, tuple[str, ...], str, list[str]]]:
    """Yield each option that takes a value, and each argument, with an empty one among values that are not."""
    for verb in VERBS:
        for words, command in commands(typer.main.get_command(verb_app(verb))):
            for parameter in command.params:
                if parameter.param_type_name == "argument":
                    yield verb, words, parameter.metavar, [""]
                    if parameter.nargs == -1:
                        yield verb, words, parameter.metavar, ["a.png", "", "b.png"]
                elif not parameter.is_flag and not parameter.count and parameter.name != "help":
                    option = parameter.opts[0]
                    for n in range(parameter.nargs):
                        values = ["onnx", "x"][: parameter.nargs]
                        values[n] = ""
                        yield verb, words, option, [option, *values]
                    if parameter.nargs == 1:
                        yield verb, words, option, [f"{option}="]
                        yield verb, words, option, [f"{option}= \t"]


EMPTY = list(empty_values())


def test_every_option_is_tried() -> None:
    names = {(verb, name) for verb, _, name, _ in EMPTY}
    assert {("search", "--check"), ("search", "EXPERIMENT.yaml"), ("search", "--storage"), ("search", "--set")} <= names
    assert {("promote", "--force"), ("predict", "--explain"), ("replay", "RUN_ID"), ("data", "--classes")} <= names
    assert ("predict", "PICTURE_OR_FOLDER") in names


@pytest.mark.parametrize(
    ("verb", "words", "name", "arguments"), EMPTY, ids=[f"{verb} {arguments}" for verb, _, _, arguments in EMPTY]
)
def test_an_empty_value_is_refused_before_anything_is_done(
    verb: str,
    words: tuple[str, ...],
    name: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pneumo.console.command.install_handlers", lambda: None)
    with pytest.raises(SystemExit) as ended:
        run_command(verb_app(verb), verb, arguments=(*words, *arguments))
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(f"pneumo.{verb}: {name}: is empty (is a shell variable not set?); ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [(), ("fetch",)])
def test_a_missing_command_is_told(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pneumo.console.command.install_handlers", lambda: None)
    with pytest.raises(SystemExit) as ended:
        run_command(verb_app("data"), "data", arguments=words)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert "Usage:" in printed.out
    known = "kaggle, medmnist" if words else "audit, prepare, fetch"
    assert printed.err == f"pneumo.data: a command is missing; there is {known}\n"


def test_each_fault_of_a_request_has_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pneumo.console.command.install_handlers", lambda: None)
    app = typer.Typer()

    @app.command()
    def refuse() -> None:
        raise RequestError("a.yaml: one\nfault", "a.yaml: another")

    with pytest.raises(SystemExit) as ended:
        run_command(app, "search", arguments=())
    assert ended.value.code == 2
    assert capsys.readouterr().err == "pneumo.search: a.yaml: one fault\npneumo.search: a.yaml: another\n"


def test_an_empty_variable_is_no_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pneumo.data import cache, fetch

    command: Any = typer.main.get_command(verb_app("search"))
    monkeypatch.setenv("PNEUMO_STORAGE", "")
    assert command.make_context("search", []).params["storage"] == "sqlite:///mlruns/studies.db"
    monkeypatch.setenv("PNEUMO_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_root() == tmp_path / "pneumo"
    addresses: list[str] = []
    monkeypatch.setattr("pooch.retrieve", lambda url, **_: addresses.append(url))
    monkeypatch.setenv("PNEUMO_MEDMNIST_URL", "")
    fetch.fetch_medmnist(28, tmp_path)
    assert addresses == [f"{fetch.MEDMNIST}/pneumoniamnist.npz"]
