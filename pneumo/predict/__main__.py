"""python -m pneumo.predict: predict pictures with a registered model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.console.command import INTERRUPTED, NOTHING_FIT, OK, run_command, silence_native_output
from pneumo.predict.export import ExportFormat
from pneumo.predict.output import Format
from pneumo.spec.errors import RequestError

if TYPE_CHECKING:
    from pneumo.predict.loop import PredictionCounts

SOME_UNREADABLE = 1
"""Exit status if some pictures, but not all, cannot be read."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(
    epilog="""[bold]Examples[/]

python -m pneumo.predict scan.dcm\n
  one picture, with the registry's champion

python -m pneumo.predict ward/ --format csv > ward.csv\n
  every picture below a folder

python -m pneumo.predict ward/ --model models:/article/3 --explain seen/\n
  a certain version, and a Grad-CAM overlay of each picture

python -m pneumo.predict --export onnx article.onnx\n
  the model as an ONNX file, checked against the model itself

Standard output has only the predictions; messages go to standard error. Not a medical device.

Exit status: 0 done, 1 some pictures cannot be read, 2 wrong request, 3 no picture can be read, 130 interrupted \
(the printed output is complete JSON or CSV)."""
)
def main(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PICTURE_OR_FOLDER",
            help="Picture files (JPEG, PNG, TIFF, BMP, GIF, WebP or DICOM), or folders.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="models:/NAME@champion or models:/NAME/3. Default: the only champion in the registry."
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="Format of the predictions.")] = Format.TABLE,
    explain: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a Grad-CAM overlay of each picture to DIR.")
    ] = None,
    export: Annotated[
        tuple[ExportFormat, Path] | None,
        typer.Option(metavar="onnx|tflite PATH", help="Write the model to PATH for other runtimes; predict nothing."),
    ] = None,
) -> int:
    """Predict pneumonia on chest X-rays with a registered model.

    Each picture gets a calibrated probability, and a label at the model's
    threshold. Rows are printed as the pictures are predicted. The row of a
    picture that cannot be read has an error.
    """
    from pneumo.predict.explain import make_overlay_folder, overlay_writer
    from pneumo.predict.export import export_model
    from pneumo.predict.loop import predict_pictures, print_summary
    from pneumo.predict.model import find_model
    from pneumo.predict.pictures import find_pictures

    if export and (pictures or explain):
        raise RequestError("--export writes a file and predicts nothing; leave out the pictures and --explain")
    if not export and not pictures:
        raise RequestError(
            "no pictures are given; give picture files (JPEG, PNG, TIFF, BMP, GIF, WebP or DICOM), or folders of them"
        )
    paths = find_pictures(pictures or ())
    if explain:
        make_overlay_folder(explain)
    found = find_model(model)
    _start_tensorflow()
    loaded = found.load()
    if export:
        export_model(loaded, *export)
        return OK
    counts = predict_pictures(paths, loaded, format_, overlay_writer(loaded, explain) if explain else None)
    if not counts.output_closed:
        print_summary(counts, loaded, explain)
    return _exit_status(counts)


def _start_tensorflow() -> None:
    with silence_native_output():
        from pneumo.cnn.device import warm_up

        warm_up()


def _exit_status(counts: PredictionCounts) -> int:
    if counts.interrupted:
        return INTERRUPTED
    if not counts.unreadable:
        return OK
    return NOTHING_FIT if counts.unreadable == counts.predicted else SOME_UNREADABLE


if __name__ == "__main__":
    run_command(app, "predict")
