"""Command lines: one line for a wrong request, the exit statuses, and the command that the user typed."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from pneumo.console.help import HelpText
from pneumo.console.signals import install_handlers
from pneumo.spec.errors import RequestError
from pneumo.spec.masking import mask_passwords

OK, FAULTY, WRONG_REQUEST, NOTHING_FIT, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit statuses."""

LONGEST_REASON = 300
"""Largest number of characters that are shown of the error of a service."""


@dataclass(frozen=True)
class TypedCommand:
    """A command as the user typed it, to be shown again, perhaps with another option.

    A verb's main function gets it as `context.obj`.

    Args:
        verb: `search` of `python -m pneumo.search`.
        arguments: What was typed behind it.
    """

    verb: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the command for a shell in this folder. A password in an address is masked."""
        return shlex.join([program_path("python"), "-m", f"pneumo.{self.verb}", *map(mask_passwords, self.arguments)])

    def without(self, option: str) -> TypedCommand:
        """Return the command without an option and its value."""
        remaining, is_value = [], False
        for argument in self.arguments:
            if not is_value and argument != option and not argument.startswith(f"{option}="):
                remaining.append(argument)
            is_value = argument == option
        return replace(self, arguments=tuple(remaining))

    def with_option(self, option: str, value: str) -> TypedCommand:
        """Return the command with this value of an option, in place of the value that was typed."""
        return replace(self, arguments=(*self.without(option).arguments, option, value))


def run_command(
    app: typer.Typer, verb: str, program: str | None = None, arguments: tuple[str, ...] | None = None
) -> NoReturn:
    """Run a verb's command line and exit with its status.

    A `RequestError` or a mistyped option becomes a line for each fault on standard error and status 2. So does an argument
    or an option's value that is empty, as a shell variable is that is not set. Ctrl-C, SIGTERM and SIGHUP become status 130.
    If Python decodes file names as ASCII, which neither YAML nor MLflow can store, the process starts again in UTF-8 mode.

    Args:
        app: The verb's command line.
        verb: Its name; empty for the command `pneumo` itself.
        program: What help texts call the command; `python -m pneumo.VERB` by default.
        arguments: The arguments of the command line; the process's own by default.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"PYTHONUTF8": "1"})  # noqa: S606
    install_handlers()
    _check_arguments(app)
    module = f"pneumo.{verb}" if verb else "pneumo"
    command = TypedCommand(verb, tuple(sys.argv[1:]) if arguments is None else arguments)
    try:
        status = app(
            args=list(command.arguments),
            standalone_mode=False,
            prog_name=program or f"python -m {module}",
            obj=command,
        )
    except RequestError as error:
        for line in error.lines:
            print(f"{module}: {line}", file=sys.stderr)
        status = WRONG_REQUEST
    except typer.TyperException as error:
        print(f"{module}: {' '.join(error.format_message().split())}", file=sys.stderr)
        status = WRONG_REQUEST
    except (KeyboardInterrupt, typer.Abort):
        print(f"\n{module}: interrupted", file=sys.stderr)
        status = INTERRUPTED
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        # The disk is full or the reader is gone. Python would flush again on exit, and end with status 120.
        os._exit(status or OK)
    sys.exit(status or OK)


class _Command(HelpText, TyperCommand):
    """A command that refuses empty arguments and option values, before they are converted: an empty path is a folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. Raise `RequestError` if one is empty."""
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.get_params(ctx):
            if all(map(str.strip, _texts(given.get(parameter.name)))):
                continue
            if isinstance(parameter, TyperOption):
                expected = parameter.metavar or parameter.display_type(ctx).strip("<>")
                raise RequestError(f"{parameter.opts[0]}: is empty (is a shell variable not set?); expected {expected}")
            name = getattr(parameter, "metavar", None) or parameter.name
            advice = "give a value" if parameter.required else "give a value, or leave it out"
            raise RequestError(f"{name}: is empty (is a shell variable not set?); {advice}")
        return super().parse_args(ctx, args)


class _Group(HelpText, TyperGroup):
    """A command with subcommands. Without one of them it shows its help, and says what is missing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. Raise `RequestError` if there are none."""
        if not args and self.no_args_is_help:
            print(ctx.get_help())
            raise RequestError(f"a command is missing; there is {', '.join(self.list_commands(ctx))}")
        return super().parse_args(ctx, args)


def _check_arguments(app: typer.Typer) -> None:
    """Let all commands of a command line check their arguments."""
    for command in app.registered_commands:
        command.cls = _Command
    for group in app.registered_groups:
        if group.typer_instance:
            group.cls = _Group
            _check_arguments(group.typer_instance)
    if app.registered_callback:
        app.registered_callback.cls = _Group


def _texts(value: object) -> list[str]:
    """Return the texts in a value of the command line's parser: one, several, or pairs of them."""
    if isinstance(value, (list, tuple)):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []


def program_path(name: str) -> str:
    """Return how to call a program of this environment from here: `mlflow` if it is on PATH, else `.venv/bin/mlflow`."""
    path = Path(sys.executable).parent / name
    if str(path.parent) in os.environ.get("PATH", "").split(os.pathsep):
        return name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@contextmanager
def hold_folder_lock(name: str, refusal: str) -> Iterator[None]:
    """Hold the lock of this name in the current folder.

    Raises:
        RequestError: Another process holds the lock (the message is `refusal`), or the folder is read-only.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(Path("mlruns", f".{name}.lock"))
    try:
        Path("mlruns").mkdir(exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RequestError(refusal) from None
    except OSError as error:
        raise RequestError(
            f"{Path.cwd()}: cannot be written, and mlruns/ belongs there: {error.strerror}; "
            "run the command in a folder that you can write to"
        ) from None
    try:
        yield
    finally:
        lock.release()


def describe_error(error: Exception) -> str:
    """Return an error of a service in one line, without passwords."""
    return " ".join(mask_passwords(f"{type(error).__name__}: {error}").split())[:LONGEST_REASON]


@contextmanager
def silence_native_output() -> Iterator[None]:
    """Hold back what native libraries write to standard error, and write it only if the block raises.

    TensorFlow 2.21 writes a dozen lines when it is loaded, whatever log level is set. One of them says that there is no
    GPU.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as output:
        os.dup2(output.fileno(), 2)
        try:
            yield
        except BaseException:
            output.seek(0)
            os.write(stderr, output.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
