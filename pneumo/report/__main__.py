"""python -m pneumo.report: a recorded study, or several side by side, as one HTML page that needs no network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pneumo.console.command import NOTHING_FIT, OK, describe_error, run_command
from pneumo.spec.errors import RequestError

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(
    epilog="""[bold]Examples[/]

python -m pneumo.report article\n
  the study article, as article-report.html

python -m pneumo.report article accuracy --output both.html\n
  two studies side by side

Exit status: 0 written, 2 wrong request, 3 MLflow does not answer, 130 interrupted."""
)
def main(
    studies: Annotated[
        list[str], typer.Argument(metavar="STUDY [STUDY ...]", help="Names of recorded studies.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file to write. Default: STUDY-report.html in the current folder.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Write a report of a recorded study as one HTML page, or of several studies side by side.

    The page says what was asked, what was found, whether it is luck, how the
    search went, which hyperparameters mattered, how the best trial does, what
    failed, what the pictures are, and how to reproduce it. It loads nothing
    from a network. It reads MLflow's records only, so the study may still run.
    """
    from pneumo.console.display import open_console, say
    from pneumo.evidence.report.page import studies_report, study_report
    from pneumo.tracking.store import ERRORS, connect_existing
    from pneumo.tracking.study_record import read_study_record

    names = list(dict.fromkeys(studies))
    path = output or Path(f"{'-'.join(names)}-report.html")
    if output is not None:
        _check_output(output)
    store = connect_existing()
    try:
        records = [read_study_record(store, name) for name in names]
    except ERRORS as error:
        print(f"pneumo.report: ended by an error: {describe_error(error)}", file=sys.stderr)
        return NOTHING_FIT
    page = study_report(records[0]) if len(records) == 1 else studies_report(records)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--output {path}: cannot be written: {error.strerror or error}") from None
    say(open_console(), f"{path}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser")
    return OK


def _check_output(path: Path) -> None:
    """Raise `RequestError` if a file cannot be written there, before anything is read."""
    if path.is_dir():
        raise RequestError(f"--output {path}: is a folder; give the name of a file, as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise RequestError(f"--output {path}: there is no folder {path.parent}; create it, or write elsewhere")


if __name__ == "__main__":
    run_command(app, "report")
