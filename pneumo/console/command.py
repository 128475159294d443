"""What every verb shares: one line for a wrong request, the exit statuses, how to name a command to the reader."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

from pneumo.console.signals import install_handlers
from pneumo.spec.errors import RequestError
from pneumo.spec.masking import masked

LONGEST_REASON = 300

OK, FAULTY, WRONG_REQUEST, NOTHING_FIT, INTERRUPTED = 0, 1, 2, 3, 130


def run_command(app: typer.Typer, verb: str, program: str | None = None) -> NoReturn:
    """Run a verb's command line and exit with its status.

    `program` is the command that help texts name; it defaults to `python -m pneumo.VERB`. The verb of the command `pneumo`
    itself is empty.

    A `RequestError` or a mistyped option is one line on standard error and status 2, Ctrl-C or SIGTERM is status 130. Where
    Python was told to take the names of files for ASCII, which neither YAML nor MLflow can keep, it starts again in UTF-8.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"PYTHONUTF8": "1"})  # noqa: S606
    install_handlers()
    module = f"pneumo.{verb}" if verb else "pneumo"
    try:
        status = app(standalone_mode=False, prog_name=program or f"python -m {module}")
    except (RequestError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        print(f"{module}: {' '.join(message.split())}", file=sys.stderr)
        status = WRONG_REQUEST
    except (KeyboardInterrupt, typer.Abort):
        print(f"\n{module}: interrupted", file=sys.stderr)
        status = INTERRUPTED
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (
        OSError
    ):  # a full disk, a reader that is gone: at its end Python would try once more, and end with status 120
        os._exit(status or OK)
    sys.exit(status or OK)


def program_path(name: str) -> str:
    """How a reader calls a program of this environment from here: `.venv/bin/mlflow`, or `mlflow` if on PATH."""
    beside = Path(sys.executable).parent / name
    if str(beside.parent) in os.environ.get("PATH", "").split(os.pathsep):
        return name
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


def drop_option(arguments: Sequence[str], option: str) -> list[str]:
    """Arguments as they were typed, less an option and its value."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument != option and not argument.startswith(f"{option}="):
            kept.append(argument)
        skip = argument == option
    return kept


@contextmanager
def hold_folder_lock(name: str, refusal: str) -> Iterator[None]:
    """Holds the lock of this name in this folder. Raises `RequestError` with the refusal where another process has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(Path("mlruns", f".{name}.lock"))
    try:
        Path("mlruns").mkdir(exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RequestError(f"{refusal}; wait for it, or take another --name") from None
    except OSError as error:
        raise RequestError(f"{Path.cwd()}: cannot be written, where mlruns/ goes: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def describe_error(error: Exception) -> str:
    """What a service that no longer answers said, in a line without passwords."""
    return " ".join(masked(f"{type(error).__name__}: {error}").split())[:LONGEST_REASON]


@contextmanager
def silence_native_output() -> Iterator[None]:
    """Holds back what native libraries write to standard error, and shows it where they fail.

    TensorFlow 2.21 writes a dozen lines when it is loaded, that there is no GPU among them, whatever log level is set.
    """
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(before, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
