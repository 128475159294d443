"""python -m pneumo.predict: pictures in, probabilities out, with a registered model."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.console.command import INTERRUPTED, NOTHING_FIT, OK, run_command, silence_native_output
from pneumo.console.signals import Interruption
from pneumo.predict.output import Format, PredictionRow, printed
from pneumo.spec.errors import RequestError

if TYPE_CHECKING:
    from pneumo.tracking.served import Prediction, Served

SOME_UNREADABLE = 1
"""Exit status where some pictures could not be read."""

AT_ONCE = 32
"""Pictures that are predicted before their rows are printed; it bounds the memory."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".dcm", ".dicom")
SHOWN = 512
"""Longer side of an overlay, pixels."""

TRIED_ON = 100
"""Phantoms that an exported file is tried on."""

NOT_MEDICAL = "No medical device: for research and teaching only."

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


class Exported(StrEnum):
    """What a model can be written as."""

    ONNX = "onnx"
    TFLITE = "tflite"


@app.command(
    epilog="""[bold]Examples[/]

python -m pneumo.predict scan.dcm\n
  one picture, with the champion of the registry

python -m pneumo.predict ward/ --format csv > ward.csv\n
  every JPEG, PNG and DICOM below a folder

python -m pneumo.predict ward/ --model models:/article/3 --explain seen/\n
  a certain version, and for each picture a PNG of where it sees what speaks for pneumonia (Grad-CAM)

python -m pneumo.predict --export onnx article.onnx\n
  the model as a file for other runtimes, tried against the model itself

Standard output holds the predictions alone; what else there is to say goes to standard error. No medical device.
Exit status: 0 done; 1 some pictures could not be read; 2 the request was wrong; 3 no picture could be read;
130 interrupted, what was printed is whole."""
)
def main(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PICTURE_OR_FOLDER", help="JPEG, PNG or DICOM, or folders of them.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="As models:/NAME@champion or models:/NAME/3; left out: the only champion there is."
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How the predictions are written.")] = Format.TABLE,
    explain: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a PNG of each picture with its Grad-CAM there.")
    ] = None,
    export: Annotated[
        tuple[Exported, Path] | None,
        typer.Option(
            metavar="onnx|tflite PATH", help="Write the model as a file for other runtimes, and predict nothing."
        ),
    ] = None,
) -> int:
    """Predict pneumonia on chest X-rays with a registered model: calibrated probabilities, and labels at its threshold.

    Rows appear as the pictures are predicted. A picture that cannot be read is named, and the others go on.
    """
    if export and (pictures or explain):
        raise RequestError("--export writes a file and predicts nothing; leave out the pictures and --explain")
    if not export and not pictures:
        raise RequestError("no picture is named; give JPEG, PNG or DICOM files, or folders of them")
    listed = _listed(pictures or ())
    if explain:
        _make(explain)
    with silence_native_output():
        from pneumo.cnn.device import warm_up

        warm_up()
    served, name = _served(model)
    if export:
        return _export(served, name, *export)
    return _predict(listed, served, name, format_, explain)


def _listed(paths: Sequence[Path]) -> list[Path]:
    """The pictures, folders taken apart. Raises `RequestError` where one is not there, or a folder has none."""
    from pneumo.data.archive import open_archive, printable

    wanted = ", ".join(SUFFIXES)
    listed = []
    for path in paths:
        if path.is_dir():
            archive = open_archive(path, "pictures")
            inside = sorted(file for file in archive.files if _is_picture(file))
            for file, reason in archive.left_out:
                if _is_picture(file):
                    print(f"{printable(str(path / file))}: left out: {reason}", file=sys.stderr)
            if not inside:
                raise RequestError(f"{path}: no picture in this folder; wants {wanted}")
            listed += [path / file for file in inside]
        elif not path.is_file():
            raise RequestError(f"{path}: {'is no file' if path.exists() else 'there is no such file or folder'}")
        elif path.suffix.lower() not in SUFFIXES:
            raise RequestError(f"{path}: no picture by its name; wants {wanted}, or a folder")
        else:
            listed.append(path)
    return listed


def _is_picture(file: str) -> bool:
    """Whether a file of a folder counts: by its suffix, and not hidden, as what macOS leaves beside a file is."""
    path = Path(file)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise RequestError(f"--explain {folder}: cannot be written: {error.strerror}") from None


def _served(uri: str | None) -> tuple[Served, str]:
    """The model, and what it is called: an alias is followed once, so that both are of one version."""
    from pneumo.tracking.registry import at, only_champion
    from pneumo.tracking.served import load_served
    from pneumo.tracking.store import connect_existing

    store = connect_existing()
    uri = uri or only_champion(store)
    name = uri
    if alias := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", uri):
        if version := at(store, *alias.groups()):
            uri, name = version.uri, f"{version.model} version {version.number}, {alias[2]}"
    elif number := re.fullmatch(r"models:/([^/@]+)/(\d+)", uri):
        name = f"{number[1]} version {number[2]}"
    return load_served(store, uri), name


def _predict(listed: Sequence[Path], served: Served, model: str, format_: Format, explain: Path | None) -> int:
    from pneumo.data.archive import printable

    decision, draw = served.decision, _explainer(served, explain) if explain else None
    names = [str(path) for path in listed]
    seen = positive = unreadable = 0
    try:
        with Interruption() as interrupted, _bar(len(listed)) as bar, printed(format_, names) as write:
            while seen < len(listed) and not interrupted():
                chunk = listed[seen : seen + AT_ONCE]
                rows = [_row(*one, decision.threshold) for one in zip(chunk, served.predict(chunk), strict=True)]
                write(rows)
                for path, row in zip(chunk, rows, strict=True):
                    if row.error:
                        bar.say(f"{printable(row.name)}: cannot be read: {row.error}")
                    elif draw:
                        draw(path, row)
                seen += len(chunk)
                unreadable += sum(row.error is not None for row in rows)
                positive += sum(row.label == decision.classes[1] for row in rows)
                bar.at(seen)
    except BrokenPipeError:
        return _status(seen, unreadable)  # the reader has what it wanted
    stopped = seen < len(listed)
    told = f"{seen:,} picture{'' if seen == 1 else 's'}, {positive:,} {decision.classes[1]}"
    told += f" at threshold {decision.threshold:.3g}" + (f", {unreadable:,} unreadable" if unreadable else "")
    print(f"{told}: model {model}{_phantom(served)}", file=sys.stderr)
    if explain:
        print(f"Where it sees what speaks for {decision.classes[1]}: {explain}", file=sys.stderr)
    print(NOT_MEDICAL, file=sys.stderr)
    if stopped:
        print(f"Interrupted: {len(listed) - seen} of {len(listed)} are left.", file=sys.stderr)
        return INTERRUPTED
    return _status(seen, unreadable)


def _row(path: Path, prediction: Prediction, threshold: float) -> PredictionRow:
    error = prediction.error and prediction.error.removeprefix("cannot be read: ")
    return PredictionRow(str(path), prediction.probability, prediction.label, threshold, error)


def _status(seen: int, unreadable: int) -> int:
    return OK if not unreadable else NOTHING_FIT if unreadable == seen else SOME_UNREADABLE


def _phantom(served: Served) -> str:
    return ", trained on generated phantoms, no X-rays" if served.decision.phantom else ""


def _explainer(served: Served, folder: Path) -> Callable[[Path, PredictionRow], None]:
    """A function that writes the PNG of one picture."""
    from pneumo.cnn.explain import grad_cam
    from pneumo.cnn.load import load_network
    from pneumo.data.cache import replacing
    from pneumo.data.decoding import UnreadableError, decode
    from pneumo.evidence.overlay import render_explanation, restore_aspect_ratio

    decision, heat_of = served.decision, grad_cam(load_network(served.network))

    def draw(path: Path, row: PredictionRow) -> None:
        assert row.probability is not None
        assert row.label is not None
        try:
            decoded = decode(path.read_bytes(), [decision.image_size, SHOWN], str(path))
        except (UnreadableError, OSError) as error:
            raise RequestError(f"{path}: changed after it was predicted, and cannot be shown: {error}") from None
        png = render_explanation(
            restore_aspect_ratio(decoded.squares[1], decoded.width, decoded.height),
            heat_of(decoded.squares[0]),
            name=path.name,
            probability=row.probability,
            label=row.label,
            threshold=decision.threshold,
            classes=decision.classes,
            note=NOT_MEDICAL + (" Trained on phantoms." if decision.phantom else ""),
        )
        try:
            with replacing(folder / _file_name(path)) as file:
                file.write(png)
        except OSError as error:
            raise RequestError(f"--explain {folder}: cannot be written: {error.strerror}") from None

    return draw


def _file_name(path: Path) -> str:
    """Of a picture's PNG: harmless, the same again for the same picture, and another for another of the same name."""
    harmless = re.sub(r"[^\w.-]", "_", path.stem, flags=re.ASCII).lstrip(".")[:100] or "picture"
    return f"{harmless}-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]}.png"


def _export(served: Served, model: str, format_: str, path: Path) -> int:
    import numpy as np

    from pneumo.cnn.export import export
    from pneumo.cnn.load import load_network
    from pneumo.data.phantom import draw

    decision, network = served.decision, load_network(served.network)
    side, positive = decision.image_size, decision.classes[1]
    phantoms = np.stack([draw(patient, 1, patient % 2, side, 0) for patient in range(TRIED_ON)])
    with silence_native_output():
        difference = export(network, decision.temperature, format_, path, phantoms)
    print(f"{path}: {format_}, {path.stat().st_size:,} bytes, of model {model}{_phantom(served)}")
    print(f"takes  float32 (n, {side}, {side}, {decision.channels}): grey pictures, 0 to 255, stretched to the square")
    print(f"gives  float32 (n, 1): the probability of {positive}, calibrated (temperature {decision.temperature:.4g})")
    print(f"says   {positive} from {decision.threshold:.6g} on, else {decision.classes[0]}")
    print(f"tried  on {TRIED_ON} phantoms: {difference:.1e} from the model's own probability at most")
    print(NOT_MEDICAL)
    return OK


@dataclass(frozen=True)
class _Bar:
    """A progress bar on standard error: `at` a number of pictures; `say` prints a line above it."""

    at: Callable[[int], None]
    say: Callable[[str], None]


@contextmanager
def _bar(pictures: int) -> Iterator[_Bar]:
    """Where standard error is a terminal and standard output is not, whose rows show the progress themselves."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("  predicting"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal or sys.stdout.isatty(),
        redirect_stdout=False,  # else the predictions would go where the bar goes
    ) as bar:
        task = bar.add_task("", total=pictures)
        yield _Bar(
            lambda seen: bar.update(task, completed=seen),
            lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
        )


if __name__ == "__main__":
    run_command(app, "predict")
