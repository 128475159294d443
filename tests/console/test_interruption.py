"""Ctrl-C, SIGTERM and SIGHUP end a command even if Python or a library would swallow `KeyboardInterrupt`.

So does a terminal that is closed, with nobody left to read the output.
"""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pneumo.console.signals import Interruption
from tests.support.program import command, runs, write

LONGEST = 60
"""Seconds until a test fails that waits for a program."""

PROGRAM = """
import os, signal, sys, time, weakref
import typer
from pneumo.console.command import run_command

app = typer.Typer()

class Thing:
    pass

def ctrl_c(*_):
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    for _ in range(100_000):
        pass

@app.command()
def main(instant: str, number: str, seconds: int) -> int:
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
"""A command that sends itself a signal at the given instant, then sleeps for so many seconds."""

SWALLOWS = """
import __main__
try:
    __main__.ctrl_c()
except BaseException:
    outcome = "interrupted"
else:
    outcome = "complete"
"""
"""A module that is sent a signal while it is imported, and swallows the exception."""

ENDING = ["SIGINT", "SIGTERM", "SIGHUP"]


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("instant", ["an import", "the end of an object", "anywhere else"])
def test_an_interruption_is_not_lost(instant: str, number: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    done = subprocess.run(
        [sys.executable, "program.py", instant, number, "60"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert done.stdout == ("complete\n" if instant == "an import" else "")


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_is_ignored_if_the_caller_ignores_it(number: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    # A shell script that runs a command in the background does so with Ctrl-C, and nohup with SIGHUP.
    trap = f"trap '' {number.removeprefix('SIG')}; exec \"$@\""
    arguments = ["sh", "-c", trap, "sh", sys.executable, "program.py", "anywhere else", number, "0"]
    assert subprocess.run(arguments, cwd=tmp_path, check=False).returncode == 0


@pytest.mark.parametrize(
    ("first", "second", "raises"),
    [
        ("SIGINT", "SIGINT", True),
        ("SIGTERM", "SIGINT", True),
        ("SIGHUP", "SIGTERM", True),
        ("SIGHUP", "SIGHUP", False),
        ("SIGINT", "SIGHUP", False),
    ],
)
def test_only_a_user_who_asks_twice_is_not_waited_for(
    first: str, second: str, raises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = Interruption()
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in map(signal.Signals, (1, 2, 15))}
    try:
        with interrupted:
            signal.raise_signal(signal.Signals[first])
            assert interrupted()
            if raises:
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.Signals[second])
            else:
                signal.raise_signal(signal.Signals[second])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


TALKS = """
import sys, time
from pathlib import Path
import typer
from pneumo.console.command import run_command
from pneumo.console.display import open_console, progress_bar, say
from pneumo.console.signals import Interruption

app = typer.Typer()

@app.command()
def main() -> int:
    console = open_console()
    with Interruption() as interrupted, progress_bar("pictures", console) as show:
        Path("ready").touch()
        while not interrupted():
            show(1, 2)
            time.sleep(0.01)
        say(console, "Ending")
        print("ending", file=sys.stderr, flush=True)
        Path("ended").touch()
    say(console, "Ended")
    return 130

try:
    run_command(app, "search")
except SystemExit as end:
    Path("status.part").write_text(str(end.code))
    Path("status.part").rename("status")
"""
"""A command that shows a bar until it is interrupted, then says so, ends cleanly and leaves a file with its exit status."""


@pytest.mark.parametrize("pipe", ["", " 2>&1 | tee log.txt", " | cat >&2"])
@pytest.mark.parametrize("in_shell", [False, True], ids=["sh -c", "interactive shell"])
def test_a_closed_terminal_ends_a_command_cleanly(pipe: str, in_shell: bool, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(TALKS)
    typed = f"{shlex.quote(sys.executable)} program.py{pipe}"
    # An interactive shell passes SIGHUP on to its jobs, which therefore receive it twice.
    shell_arguments = "--norc -i" if in_shell else f"-c {shlex.quote(typed if pipe else f'exec {typed}')}"
    terminal, end = pty.openpty()
    name = os.ttyname(end)  # the first process of a session that opens a terminal is controlled by it
    opening = f"exec bash {shell_arguments} <{name} >{name} 2>&1"
    shell = subprocess.Popen(["sh", "-c", opening], cwd=tmp_path, start_new_session=True)
    if in_shell:
        os.write(terminal, f"{typed}\n".encode())
    until((tmp_path / "ready").exists, terminal)
    os.close(end)
    os.close(terminal)
    shell.wait(LONGEST)
    until((tmp_path / "status").exists)
    assert (tmp_path / "ended").exists()
    assert (tmp_path / "status").read_text() == "130"


def until(reached: Callable[[], bool], terminal: int | None = None) -> None:
    """Wait until something is reached, and read meanwhile what is shown in a terminal."""
    deadline = time.monotonic() + LONGEST
    while not reached():
        assert time.monotonic() < deadline
        if terminal is not None and select.select([terminal], [], [], 0.02)[0]:
            with suppress(OSError):  # the session that it controlled has ended
                os.read(terminal, 1000)
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["SIGTERM", "SIGHUP", "SIGINT", "terminal"])
def test_a_search_whose_terminal_is_closed_ends_as_after_a_signal(end: str, tmp_path: Path) -> None:
    experiment = write(tmp_path, hyperparameters={"epochs": 300}, search={"trials": 1})
    terminal, other_end = pty.openpty()
    name = os.ttyname(other_end)
    opening = f"exec {shlex.join(command(experiment.name))} <{name} >{name} 2>&1"
    program = subprocess.Popen(["sh", "-c", opening], cwd=tmp_path, start_new_session=True)
    until(lambda: bool(list(tmp_path.glob("mlruns/checkpoints/small/*.npz"))), terminal)
    os.close(other_end)
    if end == "terminal":
        os.close(terminal)
    else:
        os.killpg(program.pid, signal.Signals[end])
        until(lambda: program.poll() is not None, terminal)
        os.close(terminal)
    assert program.wait(LONGEST) == 130
    parent, (trial,) = runs(tmp_path, "small")
    assert (parent.info.status, trial.info.status) == ("KILLED", "KILLED")
    assert [path for path in tmp_path.glob("mlruns/*/models/**/") if not any(path.iterdir())] == []
    checked = subprocess.run(command("--check", "small"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
