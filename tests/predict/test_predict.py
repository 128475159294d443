"""python -m pneumo.predict: pictures in, probabilities out, with a registered model."""

from __future__ import annotations

import csv
import io
import json
import os
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
from pneumo.data.decoding import decode
from pneumo.predict.__main__ import AT_ONCE, SOME_UNREADABLE, app
from pneumo.tracking.served import load_served
from pneumo.tracking.store import connect
from tests.support.networks import brightness_network, network, register
from tests.support.pictures import encoded
from tests.support.program import LONGEST

SIDE = 32
THRESHOLD = 0.4

Said = tuple[int, str, str]
"""Exit status, standard output and standard error."""

Predict = Callable[..., Said]


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with one champion, for which bright pictures are pneumonia; the current folder meanwhile."""
    folder = tmp_path_factory.mktemp("ward")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        register(connect(), brightness_network(image_size=SIDE), "bright", threshold=THRESHOLD, temperature=2.0)
        yield folder


@pytest.fixture
def predict(ward: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Predict:
    """The verb, within this process."""
    monkeypatch.chdir(ward)

    def predicted(*arguments: object) -> Said:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["pneumo.predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run_command(app, "predict")
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return predicted


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
    # The columns are aligned: every label begins where its head does.
    assert {line.index(word) for line, word in zip(lines, ["label", "cannot", "NORMAL", "PNEUMONIA"], strict=True)} == {
        lines[0].index("label")
    }
    assert f"{folder / 'link.png'}: left out" in err
    assert f"{folder / 'a/broken.jpg'}: cannot be read: " in err
    assert "3 pictures, 1 PNEUMONIA at threshold 0.4, 1 unreadable: model bright version 1, champion\n" in err
    assert "No medical device" in err


def test_the_formats_say_what_the_model_says(predict: Predict, tmp_path: Path) -> None:
    folder = write(
        tmp_path, {f"{level:03}.png": grey(level) for level in (90, 120, 125, 130, 170)} | {"z.jpg": b"broken"}
    )
    paths = sorted(folder.iterdir())
    wanted = load_served(connect(), "models:/bright@champion").predict(paths)

    status, out, _ = predict(folder, "--format", "json")
    rows = json.loads(out)
    assert status == SOME_UNREADABLE
    assert [row["name"] for row in rows] == list(map(str, paths))
    assert [(row["probability"], row["label"]) for row in rows] == [(one.probability, one.label) for one in wanted]
    assert {row["threshold"] for row in rows} == {THRESHOLD}
    assert [row["error"] is None for row in rows] == [True] * 5 + [False]
    assert [row["label"] == "PNEUMONIA" for row in rows[:5]] == [row["probability"] >= THRESHOLD for row in rows[:5]]
    assert len({row["label"] for row in rows[:5]}) == 2

    status, out, _ = predict(folder, "--format", "csv")
    read = list(csv.DictReader(io.StringIO(out)))
    assert status == SOME_UNREADABLE
    assert list(read[0]) == ["name", "probability", "label", "threshold"]
    assert [float(row["probability"]) for row in read[:5]] == [one.probability for one in wanted[:5]]
    assert (read[5]["probability"], read[5]["label"]) == ("", "")


@pytest.mark.parametrize("format_", ["table", "json", "csv"])
def test_rows_of_many_pictures_are_one_table(predict: Predict, tmp_path: Path, format_: str) -> None:
    path = write(tmp_path, {"one.png": grey(200)}) / "one.png"
    count = 2 * AT_ONCE + 3
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


def test_nothing_that_can_be_read_is_a_status_of_its_own(predict: Predict, tmp_path: Path) -> None:
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
    (spot,) = spots  # of the black picture nothing speaks for pneumonia, and nothing is coloured
    # The square in its place, and the picture's proportions as they were: 256 of 512 pixels, in the middle of the sheet.
    coloured = np.argwhere(np.ptp(spot[:512], axis=-1) > 50)
    top, left_edge = coloured.min(axis=0)
    bottom, right_edge = coloured.max(axis=0)
    sheet = spot.shape[1]
    assert (top + bottom) / 2 == pytest.approx(256, abs=16)
    assert (left_edge + right_edge) / 2 - (sheet - 256) / 2 == pytest.approx(51, abs=16)

    # The same again takes the same names, and follows no link that somebody has put there.
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
    for told in ("float32 (n, 32, 32, 3)", "float32 (n, 1)", "PNEUMONIA from 0.4 on", "100 phantoms", "version 1"):
        assert told in out
    pictures = [grey(level) for level in (0, 110, 128, 140, 255)]
    wanted = [one.probability for one in load_served(connect(), "models:/bright@champion").predict(pictures)]
    squares = np.stack([decode(picture, [SIDE]).squares[0] for picture in pictures])
    raw = np.repeat(squares[..., None].astype(np.float32), 3, axis=-1)
    found = _runtime(kind, path)(raw)
    np.testing.assert_allclose(found[:, 0], np.array(wanted, np.float64), atol=1e-4)


def _runtime(kind: str, path: Path) -> Callable[[Any], Any]:
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda pictures: session.run(None, {"pictures": pictures})[0]
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    return lambda pictures: runner(pictures=pictures)["output_0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no picture is named"),
        (["nowhere.png"], "nowhere.png: there is no such file or folder"),
        (["mlflow.db"], "mlflow.db: no picture by its name; wants .jpg"),
        (["mlruns"], "mlruns: no picture in this folder; wants .jpg"),
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


def test_a_phantoms_model_says_so_and_two_champions_have_to_be_told_apart(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = write(project, {"a.png": grey(200)}) / "a.png"
    register(connect(), network(), "drawn", phantom=True)
    monkeypatch.setattr(sys, "argv", ["pneumo.predict", str(picture)])
    with pytest.raises(SystemExit):
        run_command(app, "predict")
    assert "model drawn version 1, champion, trained on generated phantoms, no X-rays" in capfd.readouterr().err
    register(connect(), network(), "another")
    with pytest.raises(SystemExit) as ended:
        run_command(app, "predict")
    assert ended.value.code == 2
    assert "another, drawn" in capfd.readouterr().err


@pytest.mark.slow
def test_interrupted_what_was_printed_is_whole(ward: Path, tmp_path: Path) -> None:
    path = write(tmp_path, {"one.png": grey(200)}) / "one.png"
    many = 4000  # rows that no pipe holds: it cannot be done before it is interrupted
    process = start(ward, *[path] * many, "--format", "json")
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        begin = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rows = json.loads(begin + process.stdout.read())
        err = process.stderr.read()
    assert process.wait(timeout=LONGEST) == 130
    assert AT_ONCE <= len(rows) < many
    assert {row["label"] for row in rows} == {"PNEUMONIA"}
    assert f"Interrupted: {many - len(rows)} of {many} are left." in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_reader_that_leaves_ends_it_quietly(ward: Path, tmp_path: Path) -> None:
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
def test_an_output_that_cannot_be_written_is_said_so(ward: Path, tmp_path: Path) -> None:
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
