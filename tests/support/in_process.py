"""Run a verb in the process of the tests, for requests that end before a search, a training or a server starts.

A process of its own needs one to three seconds for its imports. Each verb has tests with one, which show that errors and exit
statuses leave the process too.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from pneumo.console.command import run_command

RunHere = Callable[..., CompletedProcess[str]]
"""Takes what `tests.support.program.called` takes, and returns the same."""


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> RunHere:
    monkeypatch.setattr("pneumo.console.command.install_handlers", lambda: None)

    def run(verb: str, *arguments: object, folder: Path, **environment: str) -> CompletedProcess[str]:
        typed = tuple(map(str, arguments))
        app = import_module(f"pneumo.{verb}.__main__").app
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                run_command(app, verb, arguments=typed)
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return CompletedProcess(typed, ended.value.code, out, err)

    return run
