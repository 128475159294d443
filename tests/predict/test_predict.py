"""python -m pneumo.predict: predictions in every format, overlays, exports, wrong requests, interruptions."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pneumo.console.command import NOTHING_FIT, OK, run_command
from pneumo.data import decoding
from pneumo.data.decoding import decode
from pneumo.predict.__main__ import SOME_UNREADABLE, app
from pneumo.predict.loop import BATCH
from pneumo.predict.pictures import find_pictures
from pneumo.tracking.served import load_served
from pneumo.tracking.store import connect
from tests.support.networks import brightness_network, network, register
from tests.support.new_stores import new_store
from tests.support.pictures import encoded
from tests.support.program import LONGEST

SIDE = 32
THRESHOLD = 0.4

Result = tuple[int, str, str]
"""Exit status, standard output and standard error."""

Predict = Callable[..., Result]


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with one champion, which calls bright pictures pneumonia. It is the current folder during the tests."""
    folder = tmp_path_factory.mktemp("ward")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        register(new_store(folder), brightness_network(image_size=SIDE), "bright", threshold=THRESHOLD, temperature=2.0)
        yield folder


@pytest.fixture
def predict(ward: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Predict:
    """A function that runs `python -m pneumo.predict` within this process."""
    monkeypatch.chdir(ward)

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["pneumo.predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run_command(app, "predict")
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


def grey(level: int, kind: str = "PNG", size: tuple[int, int] = (40, 50)) -> bytes:
    out = io.BytesIO()
    Image.new("L", size, level).save(out, kind)
    return out.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pneumo.predict", *map(str, arguments)]


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command(*arguments), cwd=folder, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
    )


def test_a_folder_is_predicted_in_order(predict: Predict, tmp_path: Path) -> None:
    files = {
        "b/bright.PNG": grey(250),
        "a/dark.jpeg": grey(5, "JPEG"),
        "a/broken.jpg": b"\xff\xd8 no more",
        ".hidden/x.png": grey(9),
        "a/._dark.jpeg": b"left by a Mac",
        "notes.txt": b"text",
    }
    folder = write(tmp_path / "pictures", files)
    secret = write(tmp_path, {"secret.png": grey(250)}) / "secret.png"
    (folder / "link.png").symlink_to(secret)
    status, out, err = predict(folder)
    lines = out.splitlines()
    assert status == SOME_UNREADABLE
    assert [line.split()[0] for line in lines] == [
        "name",
        *(str(folder / name) for name in ("a/broken.jpg", "a/dark.jpeg", "b/bright.PNG")),
    ]
    assert [line.split()[-1] for line in lines[2:]] == ["NORMAL", "PNEUMONIA"]
    assert "cannot be read: " in lines[1]
    # The columns are aligned: every label begins below its header.
    assert {line.index(word) for line, word in zip(lines, ["label", "cannot", "NORMAL", "PNEUMONIA"], strict=True)} == {
        lines[0].index("label")
    }
    assert f"{folder / 'link.png'}: left out" in err
    assert f"{folder / 'a/broken.jpg'}: cannot be read: " in err
    assert "3 pictures, 1 PNEUMONIA at threshold 0.4, 1 unreadable: model bright version 1, champion\n" in err
    assert "Not a medical device" in err


def test_every_format_has_the_predictions_of_the_model(predict: Predict, tmp_path: Path) -> None:
    folder = write(
        tmp_path, {f"{level:03}.png": grey(level) for level in (90, 120, 125, 130, 170)} | {"z.jpg": b"broken"}
    )
    paths = sorted(folder.iterdir())
    expected = load_served(connect(), "models:/bright@champion").predict(paths)

    status, out, _ = predict(folder, "--format", "json")
    rows = json.loads(out)
    assert status == SOME_UNREADABLE
    assert [row["name"] for row in rows] == list(map(str, paths))
    assert [(row["probability"], row["label"]) for row in rows] == [
        (prediction.probability, prediction.label) for prediction in expected
    ]
    assert {row["threshold"] for row in rows} == {THRESHOLD}
    assert [row["error"] is None for row in rows] == [True] * 5 + [False]
    assert [row["label"] == "PNEUMONIA" for row in rows[:5]] == [row["probability"] >= THRESHOLD for row in rows[:5]]
    assert len({row["label"] for row in rows[:5]}) == 2

    status, out, _ = predict(folder, "--format", "csv")
    read = list(csv.DictReader(io.StringIO(out)))
    assert status == SOME_UNREADABLE
    assert list(read[0]) == ["name", "probability", "label", "threshold"]
    assert [float(row["probability"]) for row in read[:5]] == [prediction.probability for prediction in expected[:5]]
    assert (read[5]["probability"], read[5]["label"]) == ("", "")


@pytest.mark.parametrize("format_", ["table", "json", "csv"])
def test_rows_of_many_pictures_are_one_table(predict: Predict, tmp_path: Path, format_: str) -> None:
    path = write(tmp_path, {"one.png": grey(200)}) / "one.png"
    count = 2 * BATCH + 3
    status, out, err = predict(*[path] * count, "--format", format_)
    rows = json.loads(out) if format_ == "json" else out.splitlines()[1:]
    assert (status, len(rows), len(set(map(str, rows)))) == (OK, count, 1)
    assert f"{count} pictures, {count} PNEUMONIA" in err


def test_names_do_no_harm(predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ward: Path) -> None:
    names = ["=1+1.png", "a\nb.png", "\x1b[31mred.png"]
    for name in names:
        (ward / name).write_bytes(grey(9))
    try:
        status, out, _ = predict(*names, "--format", "csv")
        assert status == OK
        assert [row[0] for row in csv.reader(io.StringIO(out))] == [
            "name",
            "'=1+1.png",
            "a\\nb.png",
            "\\x1b[31mred.png",
        ]
        _, out, _ = predict(*names)
        assert len(out.splitlines()) == 4
        assert "\x1b" not in out
        _, out, _ = predict(*names, "--format", "json")
        assert [row["name"] for row in json.loads(out)] == names
        _, out, _ = predict(*names, "--explain", tmp_path / "seen")
        assert len(list((tmp_path / "seen").iterdir())) == 3
        assert all(file.name.isprintable() for file in (tmp_path / "seen").iterdir())
    finally:
        for name in names:
            (ward / name).unlink()


def test_a_request_without_readable_pictures_has_its_own_status(predict: Predict, tmp_path: Path) -> None:
    write(tmp_path, {"a.png": b"broken", "b.dcm": b"broken"})
    status, out, err = predict(tmp_path, "--format", "csv")
    assert status == NOTHING_FIT
    assert len(out.splitlines()) == 3
    assert "2 pictures, 0 PNEUMONIA at threshold 0.4, 2 unreadable" in err


def test_each_picture_has_its_overlay(predict: Predict, tmp_path: Path) -> None:
    left = np.zeros((200, 100), np.uint8)
    left[80:120, 10:30] = 255
    out = io.BytesIO()
    Image.fromarray(left).save(out, "PNG")
    folder = write(tmp_path / "in", {"a/same.png": out.getvalue(), "b/same.png": grey(0), "bad.png": b"broken"})
    seen = tmp_path / "seen"
    status, _, err = predict(folder, "--explain", seen)
    assert (status, str(seen) in err) == (SOME_UNREADABLE, True)
    files = sorted(seen.iterdir())
    assert [file.name.startswith("same-") for file in files] == [True, True]
    pictures = [np.asarray(Image.open(file)).astype(int) for file in files]
    spots = [picture for picture in pictures if np.ptp(picture[:512], axis=-1).max() > 50]
    (spot,) = spots  # the heat map of the black picture is 0 everywhere, so its overlay has no colour
    # The overlay keeps the picture's proportions (256 by 512 pixels, centred), and the heat covers the bright square.
    coloured = np.argwhere(np.ptp(spot[:512], axis=-1) > 50)
    top, left_edge = coloured.min(axis=0)
    bottom, right_edge = coloured.max(axis=0)
    sheet = spot.shape[1]
    assert (top + bottom) / 2 == pytest.approx(256, abs=16)
    assert (left_edge + right_edge) / 2 - (sheet - 256) / 2 == pytest.approx(51, abs=16)

    # A second run writes the same names, and does not follow a symbolic link in the place of an overlay.
    outside = write(tmp_path, {"outside": b"mine"}) / "outside"
    files[0].unlink()
    files[0].symlink_to(outside)
    predict(folder, "--explain", seen)
    assert sorted(seen.iterdir()) == files
    assert outside.read_bytes() == b"mine"
    assert not files[0].is_symlink()


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_the_model_is_exported(predict: Predict, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bright.{kind}"
    status, out, err = predict("--export", kind, path)
    assert (status, err) == (OK, "")
    for text in (
        "float32 (n, 32, 32, 3)",
        "float32 (n, 1)",
        "PNEUMONIA from probability 0.4 on",
        "100 phantoms",
        "version 1",
    ):
        assert text in out
    pictures = [grey(level) for level in (0, 110, 128, 140, 255)]
    expected = [
        prediction.probability for prediction in load_served(connect(), "models:/bright@champion").predict(pictures)
    ]
    squares = np.stack([decode(picture, [SIDE]).squares[0] for picture in pictures])
    raw = np.repeat(squares[..., None].astype(np.float32), 3, axis=-1)
    probabilities = _runtime(kind, path)(raw)
    np.testing.assert_allclose(probabilities[:, 0], np.array(expected, np.float64), atol=1e-4)


def _runtime(kind: str, path: Path) -> Callable[[Any], Any]:
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda pictures: session.run(None, {"pictures": pictures})[0]
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    return lambda pictures: runner(pictures=pictures)["output_0"]


def test_each_format_that_is_decoded_is_found(tmp_path: Path) -> None:
    expected = [tmp_path / f"a{suffix}" for suffix in decoding.FORMATS] + [tmp_path / "B.TIF"]
    for path in expected:
        path.touch()
    (tmp_path / "notes.txt").touch()
    assert set(find_pictures([tmp_path])) == set(find_pictures(expected)) == set(expected)


def test_a_model_keeps_its_decoder_and_predict_says_what_it_reads_otherwise(
    project: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was promoted with an earlier decoder predicts from the pixels of that decoder."""
    earlier = project / "earlier" / "decoding"
    shutil.copytree(Path(decoding.__file__).parent, earlier, ignore=shutil.ignore_patterns("__pycache__"))
    for name, line, before in (
        ("picture.py", f"RECIPE = {decoding.RECIPE}\n", f"RECIPE = {decoding.RECIPE - 1}\n"),
        ("greys.py", "WIDTHS = (8, 10, 12, 14, 16)\n", "WIDTHS = (16,)\n"),
    ):
        text = (earlier / name).read_text()
        assert line in text
        (earlier / name).write_text(text.replace(line, before))
    monkeypatch.chdir(project)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "__file__", str(earlier / "__init__.py"))
        register(new_store(project), brightness_network(image_size=SIDE), "before", threshold=THRESHOLD)
    pixels = np.full((40, 40), 200, np.uint16)
    for name, values in {"plain.png": pixels.astype(np.uint8), "deep.png": pixels << 4}.items():
        Image.fromarray(values).save(project / name)
    _, out, err = predict(project / "plain.png", project / "deep.png", "--format", "csv", "--explain", project / "seen")
    plain, deep = csv.DictReader(io.StringIO(out))
    assert (plain["label"], deep["label"]) == ("PNEUMONIA", "NORMAL")
    assert re.findall(r"(\S+): predicted from other pixels than pneumo reads now", err) == [str(project / "deep.png")]
    assert len(list((project / "seen").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no pictures are given"),
        (["nowhere.png"], "nowhere.png: there is no such file or folder"),
        (["mlflow.db"], "mlflow.db: not a picture by its suffix; expected .jpg"),
        (["mlruns"], "mlruns: no pictures in this folder; expected .jpg"),
        (["--export", "onnx", "x", "a.png"], "leave out the pictures"),
        (["--export", "pdf", "x"], "--export"),
        (["--export", "onnx", "nowhere/x"], "nowhere/x: must be a file in an existing folder"),
        (["a.png", "--format", "xml"], "--format"),
        (["a.png", "--explain", "mlflow.db/seen"], "--explain mlflow.db/seen: cannot be written"),
        (["a.png", "--model", "models:/dark@champion"], "models:/dark@champion: not in"),
        (["a.png", "--model", "models:/bright/7"], "models:/bright/7: not in"),
        (["a.png", "--model", "nowhere"], "nowhere: neither a registered model"),
    ],
    ids=str,
)
def test_a_wrong_request_is_one_line(predict: Predict, ward: Path, arguments: Sequence[str], message: str) -> None:
    (ward / "a.png").write_bytes(grey(9))
    before = sorted(ward.iterdir())
    status, out, err = predict(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("pneumo.predict: ")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(ward.iterdir()) == before


def test_a_model_of_phantoms_is_named_so_and_two_champions_need_a_choice(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = write(project, {"a.png": grey(200)}) / "a.png"
    register(new_store(project), network(), "drawn", phantom=True)
    monkeypatch.setattr(sys, "argv", ["pneumo.predict", str(picture)])
    with pytest.raises(SystemExit):
        run_command(app, "predict")
    assert "model drawn version 1, champion, trained on generated phantoms, not on X-rays" in capfd.readouterr().err
    register(connect(), network(), "another")
    with pytest.raises(SystemExit) as ended:
        run_command(app, "predict")
    assert ended.value.code == 2
    assert "another, drawn" in capfd.readouterr().err


@pytest.mark.slow
def test_an_interruption_leaves_complete_output(ward: Path, tmp_path: Path) -> None:
    path = write(tmp_path, {"one.png": grey(200)}) / "one.png"
    many = 4000  # more rows than a pipe holds, so the program cannot end before the interruption
    process = start(ward, *[path] * many, "--format", "json")
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        begin = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rows = json.loads(begin + process.stdout.read())
        err = process.stderr.read()
    assert process.wait(timeout=LONGEST) == 130
    assert BATCH <= len(rows) < many
    assert {row["label"] for row in rows} == {"PNEUMONIA"}
    assert f"Interrupted: {many - len(rows)} of {many} pictures were not predicted." in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_closed_pipe_ends_the_predictions_silently(ward: Path, tmp_path: Path) -> None:
    path = write(tmp_path, {"one.png": grey(200)}) / "one.png"
    process = start(ward, *[path] * 4000, "--format", "csv")
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stderr:
        with process.stdout:
            assert process.stdout.readline() == "name,probability,label,threshold\n"
        assert process.stderr.read() == ""
    assert process.wait(timeout=LONGEST) == OK


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_an_output_that_cannot_be_written_is_an_error(ward: Path, tmp_path: Path) -> None:
    path = write(tmp_path, {"one.png": grey(200)}) / "one.png"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command(path), cwd=ward, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "pneumo.predict: standard output: cannot be written: No space left on device\n"


@pytest.mark.slow
def test_a_thousand_full_size_pictures_need_no_more_memory_than_a_hundred(ward: Path, tmp_path: Path) -> None:
    few = [encoded(seed, (1300, 1000)) for seed in range(10)]
    peaks = {}
    for count in (100, 1000):
        folder = write(tmp_path / str(count), {f"{number:04}.jpeg": few[number % 10] for number in range(count)})
        with (tmp_path / f"{count}.csv").open("w") as out:
            process = subprocess.Popen(
                command(folder, "--format", "csv"), cwd=ward, stdin=subprocess.DEVNULL, stdout=out
            )
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == OK
        assert len((tmp_path / f"{count}.csv").read_text().splitlines()) == count + 1
        peaks[count] = used.ru_maxrss / 1024  # MB, on Linux
    assert peaks[1000] - peaks[100] < 150, peaks
