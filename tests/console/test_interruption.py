"""Ctrl-C ends a command even at an instant when Python or a library would swallow `KeyboardInterrupt`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, time, weakref
import typer
from pneumo.console.command import run_command

app = typer.Typer()

class Thing:
    pass

def ctrl_c(*_):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(100_000):
        pass

@app.command()
def main(instant: str, seconds: int) -> int:
    if instant == "an import":
        import swallows
        print(swallows.outcome)
    elif instant == "the end of an object":
        thing = Thing()
        reference = weakref.ref(thing, ctrl_c)
        del thing
    else:
        ctrl_c()
    time.sleep(seconds)
    return 0

run_command(app, "search")
"""
"""A command that sends itself Ctrl-C at the given instant, then sleeps for so many seconds."""

SWALLOWS = """
import __main__
try:
    __main__.ctrl_c()
except BaseException:
    outcome = "interrupted"
else:
    outcome = "complete"
"""
"""A module that is sent Ctrl-C while it is imported, and swallows the exception."""


@pytest.mark.parametrize("instant", ["an import", "the end of an object", "anywhere else"])
def test_an_interruption_is_not_lost(instant: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    done = subprocess.run(
        [sys.executable, "program.py", instant, "60"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert done.stdout == ("complete\n" if instant == "an import" else "")


def test_ctrl_c_is_ignored_if_the_caller_ignores_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    # A shell script that runs a command in the background does so.
    arguments = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "program.py", "anywhere else", "0"]
    assert subprocess.run(arguments, cwd=tmp_path, check=False).returncode == 0
