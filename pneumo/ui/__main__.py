"""python -m pneumo.ui: start MLflow's own pages, and open them at a study."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.console.command import OK, run_command

if TYPE_CHECKING:
    from pneumo.tracking.store import Store

PORT = 5000

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(
    epilog="""[bold]Examples[/]

python -m pneumo.ui\n
  the latest study of this folder

python -m pneumo.ui article --port 8080\n
  another study, at another port

MLFLOW_TRACKING_URI=http://mlflow.example.org python -m pneumo.ui article\n
  the page of a study on an MLflow server, which runs already

The pages are MLflow's own, on this machine only. Ctrl-C stops them; no process stays behind.

Exit status: 0 stopped, or opened on a server; 2 wrong request; 130 interrupted before the pages answered."""
)
def main(
    study: Annotated[
        str | None,
        typer.Argument(metavar="STUDY", help="Name of the study. Default: the latest study.", show_default=False),
    ] = None,
    port: Annotated[
        int, typer.Option(metavar="N", min=1, max=65535, help="The port; if it is taken, the next free one.")
    ] = PORT,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Open a browser, or only print the address.", show_default=False)
    ] = True,
) -> int:
    """Show a study in MLflow: its trials best first, with their learning curves.

    Starts MLflow's own pages on the runs of this folder, and opens a browser as soon as they answer. Without a display
    the address is printed only.
    """
    from pneumo.tracking.store import connect_existing

    store = connect_existing()
    page = _study_page(store, study)
    if store.uri.startswith("http"):
        _show(store.display_uri.rstrip("/") + page, opened=open_)
        return OK
    print("Starting MLflow's pages ...", file=sys.stderr, flush=True)
    from pneumo.tracking.pages import HOST, listen, serve

    with listen(port) as listening:
        address = f"http://{HOST}:{listening.getsockname()[1]}{page}"
        serve(store, listening, lambda: _show(address, opened=open_, note="Ctrl-C stops the pages."))
    return OK


def _study_page(store: Store, name: str | None) -> str:
    """Return the address of a study's page on the server. Raise `RequestError` if there is no such study."""
    from pneumo.tracking.find import named_study
    from pneumo.tracking.views import study_page_address

    return study_page_address(named_study(store, name))


def _show(address: str, *, opened: bool, note: str | None = None) -> None:
    """Print an address, and open it if that is wanted and there is a display."""
    print(address, flush=True)
    if note:
        print(note, file=sys.stderr, flush=True)
    if opened and _has_display():
        webbrowser.open(address)


def _has_display() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    run_command(app, "ui")
