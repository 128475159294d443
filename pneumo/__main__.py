"""pneumo VERB, and python -m pneumo VERB: one command for the verbs, each of which is a command of its own too."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pneumo import __version__
from pneumo.console.command import run_command

VERBS = {
    "search": "Run a study, resume it, or check its record.",
    "promote": "Register a study's best trial as a model if it passes the gate.",
    "predict": "Predict pictures with a registered model.",
    "replay": "Train a recorded trial again and compare the metrics.",
    "report": "Write a report of a study, or of several side by side.",
    "ui": "Show a study in MLflow's own pages.",
    "data": "Download, audit and prepare pictures.",
}
"""The verbs, each with its line in `pneumo --help`. The module `pneumo.VERB.__main__` has the verb's command line."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"pneumo {__version__}")
        raise typer.Exit


@app.callback(
    epilog="""[bold]Examples[/]

pneumo search\n
  the quick start: a small study on generated phantoms, offline, in about a minute

pneumo search --help\n
  the arguments, options and exit statuses of a verb, with examples"""
)
def group(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Search hyperparameters of chest X-ray classifiers, and use the best model. MLflow tracks every trial."""


for name, summary in VERBS.items():
    # For the help text only: `main` runs a verb without this group, so that no other verb is imported.
    app.command(name, help=summary)(lambda: None)


def main() -> NoReturn:
    """Run the verb that the first argument names, or show what verbs there are."""
    program = "python -m pneumo" if Path(sys.argv[0]).name == "__main__.py" else "pneumo"
    verb, *arguments = sys.argv[1:] or ["--help"]
    if verb not in VERBS:
        run_command(app, "", program, (verb, *arguments))
    run_command(import_module(f"pneumo.{verb}.__main__").app, verb, f"{program} {verb}", tuple(arguments))


if __name__ == "__main__":
    main()
