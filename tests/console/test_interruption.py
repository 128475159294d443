"""Ctrl-C where Python or a library would pass over it: a command ends by it all the same."""

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
def main(where: str, seconds: int) -> int:
    if where == "an import":
        import swallows
        print(swallows.done)
    elif where == "the end of an object":
        thing = Thing()
        kept = weakref.ref(thing, ctrl_c)
        del thing
    else:
        ctrl_c()
    time.sleep(seconds)
    return 0

run_command(app, "search")
"""

SWALLOWS = """
import __main__
try:
    __main__.ctrl_c()
except BaseException:
    done = "broken off"
else:
    done = "whole"
"""


@pytest.mark.parametrize("where", ["an import", "the end of an object", "anywhere else"])
def test_an_interruption_is_not_lost(where: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    done = subprocess.run(
        [sys.executable, "program.py", where, "60"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert done.stdout == ("whole\n" if where == "an import" else "")


def test_who_runs_it_in_the_background_may_have_it_ignored(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "program.py", "anywhere else", "0"]
    assert subprocess.run(ignoring, cwd=tmp_path, check=False).returncode == 0
