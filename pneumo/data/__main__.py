"""python -m pneumo.data: fetch pictures, find what is wrong with them, prepare them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer

from pneumo.console.command import INTERRUPTED, OK, WRONG_REQUEST, program_path, run_command
from pneumo.spec.errors import RequestError

FAULTS = 1
"""Exit status of an audit that found some."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)
fetch = typer.Typer(no_args_is_help=True)
app.add_typer(fetch, name="fetch", help="Download pictures: the whole archive from Kaggle, or PneumoniaMNIST.")


@app.callback(
    epilog="""[bold]Examples[/]

python -m pneumo.data fetch medmnist\n
  small pictures of the archive's patients, without an account

python -m pneumo.data fetch kaggle\n
  the archive itself, about 1.2 GB, with a Kaggle token

python -m pneumo.data audit data/chest-xray-pneumonia.zip\n
  copies, leaks between training and test, wrong labels, broken pictures

Exit status: 0 done; 1 an audit found faults; 2 the request was wrong; 130 interrupted."""
)
def main() -> None:
    """Fetch pictures, find what is wrong with them before a study does, and decode them ahead of it."""


class Size(IntEnum):
    """Of PneumoniaMNIST's pictures, pixels."""

    S28, S64, S128, S224 = 28, 64, 128, 224


To = Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the file goes.")]
At = Annotated[Path, typer.Argument(metavar="PATH", help="A zip, a folder or MedMNIST's npz.", show_default=False)]
Named = Annotated[
    str | None,
    typer.Option("--source", metavar="S", help="kaggle, folder or medmnist; left out: what the path looks like."),
]
Classes = Annotated[
    str | None, typer.Option(metavar="A,B", help="The classes' folders, the negative first, as NORMAL,PNEUMONIA.")
]


@fetch.command(name="kaggle")
def kaggle(
    slug: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The dataset on Kaggle.")] = (
        "paultimothymooney/chest-xray-pneumonia"
    ),
    to: To = Path("data"),
) -> int:
    """The archive from Kaggle, as the zip that it is; wants a token. An interrupted download goes on."""
    from pneumo.data.fetch import NoCredentialsError, fetch_kaggle

    try:
        with _going_on():
            path = fetch_kaggle(slug, to)
    except NoCredentialsError as error:
        print(error, file=sys.stderr)
        return WRONG_REQUEST
    except KeyboardInterrupt:
        return INTERRUPTED
    return _fetched(path)


@fetch.command(name="medmnist")
def medmnist(
    size: Annotated[Size, typer.Option(help="Side of the pictures, pixels.")] = Size.S64, to: To = Path("data")
) -> int:
    """PneumoniaMNIST: the archive's pictures, small and already split; wants no account."""
    from pneumo.data.fetch import fetch_medmnist

    try:
        with _going_on():
            path = fetch_medmnist(int(size), to)
    except KeyboardInterrupt:
        return INTERRUPTED
    return _fetched(path)


@app.command()
def audit(
    path: At,
    source: Named = None,
    classes: Classes = None,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where audit.json and audit.html go.")] = Path(),
) -> int:
    """What is wrong with the pictures: copies, leaks, wrong labels, broken files, splits that differ.

    A search takes the verdict of the last audit of the same content, and refuses to start on a leak. Exit status: 0 no
    fault, 1 faults found.
    """
    from pneumo.console.display import progress_bar
    from pneumo.data.audit import audit as audited
    from pneumo.data.audit.page import audit_page
    from pneumo.data.audit.report import text, to_json
    from pneumo.data.cache import replacing
    from pneumo.data.sources import source_at

    opened = source_at(str(path), source, _two(classes))
    with progress_bar("looking at pictures") as progress:
        found, looks = audited(opened, progress)
    print(text(found))
    try:
        to.mkdir(parents=True, exist_ok=True)
        for name, content in (("audit.json", to_json(found)), ("audit.html", audit_page(found, opened, looks))):
            with replacing(to / name) as file:
                file.write(content.encode())
    except OSError as error:
        raise RequestError(f"{to}: cannot be written: {error.strerror}") from None
    print(f"Written: {to / 'audit.html'} (with the pictures), {to / 'audit.json'}")
    return FAULTS if found.faults else OK


@app.command()
def prepare(
    path: At,
    source: Named = None,
    classes: Classes = None,
    sizes: Annotated[str, typer.Option(metavar="A,B", help="Sides of the squares, pixels.")] = "64,96,128",
) -> int:
    """Decode the training pictures into the cache, which a search does by itself otherwise."""
    from pneumo.console.display import progress_bar
    from pneumo.data.prepare import prepare as prepared
    from pneumo.data.sources import source_at

    try:
        wanted = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise RequestError(f"--sizes {sizes}: wants whole numbers, as 64,96,128") from None
    if not all(8 <= size <= 1024 for size in wanted):
        raise RequestError(f"--sizes {sizes}: wants 8 to 1,024 pixels")
    opened = source_at(str(path), source, _two(classes))
    with progress_bar("decoding pictures") as progress:
        data = prepared(opened, wanted, 0.12, 0, progress, lambda line: print(line, file=sys.stderr))
    print(
        f"{len(data.names):,} pictures of {data.description} at {', '.join(map(str, data.sizes))} pixels: {data.folder}"
    )
    return OK


def _two(classes: str | None) -> tuple[str, str] | None:
    if classes is None:
        return None
    negative, _, positive = (part.strip() for part in classes.partition(","))
    if not negative or not positive or "," in positive:
        raise RequestError(f"--classes {classes}: wants two names, the negative class first, as NORMAL,PNEUMONIA")
    return negative, positive


def _fetched(path: Path) -> int:
    python = program_path("python")
    search = [python, "-m", "pneumo.search", "experiments/article.yaml", "--data", str(path), "--trials", "6"]
    print(f"{path}: {path.stat().st_size / 1e6:,.0f} MB, whole.")
    print(f"What is wrong with it:  {shlex.join([python, '-m', 'pneumo.data', 'audit', str(path)])}")
    print(f"Search on it:           {shlex.join(search)}")
    return OK


@contextmanager
def _going_on() -> Iterator[None]:
    """Says how to go on where Ctrl-C ends a download."""
    try:
        yield
    except KeyboardInterrupt:
        again = shlex.join([program_path("python"), "-m", "pneumo.data", *sys.argv[1:]])
        print(f"\nInterrupted. To have it whole:\n  {again}")
        raise


if __name__ == "__main__":
    run_command(app, "data")
