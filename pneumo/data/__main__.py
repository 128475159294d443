"""python -m pneumo.data: fetch pictures, audit them, prepare them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer

from pneumo.console.command import INTERRUPTED, OK, WRONG_REQUEST, TypedCommand, program_path, run_command
from pneumo.data.sources import path_sources
from pneumo.spec.errors import RequestError

FAULTS_FOUND = 1
"""Exit status of an audit that found faults."""

VALIDATION_SHARE, SPLIT_SEED = 0.12, 0
"""Defaults of a search, so that `prepare` also stores the split that a search needs."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)
fetch_app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True)
app.add_typer(fetch_app, name="fetch", help="Download pictures: the whole archive from Kaggle, or PneumoniaMNIST.")


@app.callback(
    epilog="""[bold]Examples[/]

python -m pneumo.data fetch medmnist\n
  small pictures of the archive's patients; needs no account

python -m pneumo.data fetch kaggle\n
  the archive itself, about 1.2 GB; needs a Kaggle token

python -m pneumo.data audit data/chest-xray-pneumonia.zip\n
  copies, leaks between training and test, wrong labels, broken pictures

Exit status: 0 done; 1 an audit found faults; 2 wrong request; 130 interrupted."""
)
def main() -> None:
    """Fetch pictures, audit them, and decode them before a search does."""


class Size(IntEnum):
    """The sizes in which PneumoniaMNIST is published, in pixels."""

    S28, S64, S128, S224 = 28, 64, 128, 224


DownloadFolder = Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where to put the file.")]
PicturesPath = Annotated[
    Path, typer.Argument(metavar="PATH", help="A zip, a folder or a MedMNIST npz.", show_default=False)
]
SourceName = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="S", help=f"One of {', '.join(path_sources())}. By default, guessed from the path."
    ),
]
ClassNames = Annotated[
    str | None,
    typer.Option("--classes", metavar="A,B", help="The class folders, negative first: NORMAL,PNEUMONIA."),
]


@fetch_app.command("kaggle")
def fetch_kaggle_command(
    context: typer.Context,
    slug: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The dataset on Kaggle.")] = (
        "paultimothymooney/chest-xray-pneumonia"
    ),
    to: DownloadFolder = Path("data"),
) -> int:
    """Download the archive from Kaggle as a zip. Needs a Kaggle token.

    An interrupted download resumes.
    """
    from pneumo.console.display import progress_bar
    from pneumo.data.fetch import NoCredentialsError, fetch_kaggle

    try:
        with _advice_on_interrupt(context.obj):
            path = fetch_kaggle(slug, to, lambda: progress_bar("reading checksums"))
    except NoCredentialsError as error:
        print(error, file=sys.stderr)
        return WRONG_REQUEST
    except KeyboardInterrupt:
        return INTERRUPTED
    return _report_download(path)


@fetch_app.command("medmnist")
def fetch_medmnist_command(
    context: typer.Context,
    size: Annotated[Size, typer.Option(help="Side of the pictures, in pixels.")] = Size.S64,
    to: DownloadFolder = Path("data"),
) -> int:
    """Download PneumoniaMNIST, the archive's pictures at a small size. Needs no account.

    The pictures are already split into training, validation and test.
    """
    from pneumo.data.fetch import fetch_medmnist

    try:
        with _advice_on_interrupt(context.obj):
            path = fetch_medmnist(int(size), to)
    except KeyboardInterrupt:
        return INTERRUPTED
    return _report_download(path)


@app.command("audit")
def audit_command(
    path: PicturesPath,
    source: SourceName = None,
    classes: ClassNames = None,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where to write audit.json and audit.html.")] = (
        Path()
    ),
) -> int:
    """Find copies, leaks, wrong labels, broken pictures and splits that differ.

    A search uses the last audit of the same pictures, and refuses to start if it found a leak.

    Exit status: 0 no fault, 1 faults found.
    """
    from pneumo.console.display import open_console, progress_bar, say
    from pneumo.data.audit import audit_source
    from pneumo.data.audit.findings import to_json
    from pneumo.data.audit.page import audit_page
    from pneumo.data.audit.report import format_report
    from pneumo.data.cache import replacing
    from pneumo.data.sources import source_at

    pictures = source_at(str(path), source, _class_pair(classes))
    with progress_bar("looking at pictures") as progress:
        audit, measurements = audit_source(pictures, progress)
    console = open_console()
    say(console, format_report(audit))
    if not progress.was_used:
        say(console, "The pictures were looked at by an earlier command; what it measured comes from the cache.")
    documents = {"audit.json": to_json(audit), "audit.html": audit_page(audit, pictures, measurements)}
    try:
        to.mkdir(parents=True, exist_ok=True)
        for name, content in documents.items():
            with replacing(to / name) as file:
                file.write(content.encode())
    except OSError as error:
        raise RequestError(f"{to}: cannot be written: {error.strerror}") from None
    print(f"Written: {to / 'audit.html'} (with the pictures), {to / 'audit.json'}")
    return FAULTS_FOUND if audit.faults else OK


@app.command("prepare")
def prepare_command(
    path: PicturesPath,
    source: SourceName = None,
    classes: ClassNames = None,
    sizes: Annotated[str, typer.Option(metavar="A,B", help="Sides of the decoded squares, in pixels.")] = "64,96,128",
) -> int:
    """Decode the training pictures into the cache, as a search does when it starts."""
    from pneumo.console.display import progress_bar
    from pneumo.data.prepare import prepare
    from pneumo.data.sources import source_at

    pixels = _parse_sizes(sizes)
    pictures = source_at(str(path), source, _class_pair(classes))
    with progress_bar("decoding pictures") as progress:
        data = prepare(
            pictures, pixels, VALIDATION_SHARE, SPLIT_SEED, progress, lambda line: print(line, file=sys.stderr)
        )
    listed = ", ".join(map(str, data.sizes))
    cached = "" if progress.was_used else "; an earlier command decoded them"
    print(f"{len(data.names):,} pictures of {data.description} at {listed} pixels: {data.folder}{cached}")
    return OK


def _parse_sizes(sizes: str) -> list[int]:
    try:
        pixels = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise RequestError(f"--sizes {sizes}: expected whole numbers, as in 64,96,128") from None
    if not all(8 <= size <= 1024 for size in pixels):
        raise RequestError(f"--sizes {sizes}: expected 8 to 1,024 pixels")
    return pixels


def _class_pair(classes: str | None) -> tuple[str, str] | None:
    if classes is None:
        return None
    negative, _, positive = (part.strip() for part in classes.partition(","))
    if not negative or not positive or "," in positive:
        raise RequestError(f"--classes {classes}: expected two names, the negative class first, as in NORMAL,PNEUMONIA")
    return negative, positive


def _report_download(path: Path) -> int:
    python = program_path("python")
    search = [python, "-m", "pneumo.search", "experiments/article.yaml", "--data", str(path), "--trials", "6"]
    print(f"{path}: {path.stat().st_size / 1e6:,.0f} MB, complete.")
    print(f"Audit it:      {shlex.join([python, '-m', 'pneumo.data', 'audit', str(path)])}")
    print(f"Search on it:  {shlex.join(search)}")
    return OK


@contextmanager
def _advice_on_interrupt(command: TypedCommand) -> Iterator[None]:
    """If Ctrl-C ends the download, print the command that resumes it, and raise again."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nInterrupted. To complete the download:\n  {command}")
        raise


if __name__ == "__main__":
    run_command(app, "data")
