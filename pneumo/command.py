"""What every verb shares: one line for a wrong request, the exit statuses, how to name a command to the reader."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import typer

from pneumo.spec.errors import RequestError

OK, WRONG_REQUEST, NOTHING_FIT, INTERRUPTED = 0, 2, 3, 130


def run(app: typer.Typer, verb: str) -> NoReturn:
    """Run a verb's command line and exit with its status.

    A `RequestError` or a mistyped option is one line on standard error and status 2, Ctrl-C is status 130.
    """
    try:
        status = app(standalone_mode=False, prog_name=f"python -m pneumo.{verb}")
    except (RequestError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        print(f"pneumo.{verb}: {' '.join(message.split())}", file=sys.stderr)
        status = WRONG_REQUEST
    except (KeyboardInterrupt, typer.Abort):
        print(f"\npneumo.{verb}: interrupted", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status or OK)


def program(name: str) -> str:
    """How a reader calls a program of this environment from here: `.venv/bin/mlflow`, or `mlflow` if on PATH."""
    beside = Path(sys.executable).parent / name
    if str(beside.parent) in os.environ.get("PATH", "").split(os.pathsep):
        return name
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
