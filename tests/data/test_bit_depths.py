"""A picture looks the same at every bit depth: in training, in the audit, in `predict` and in the served model."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pneumo.data.audit import audit_source, last_audit
from pneumo.data.decoding import RECIPE, UnreadableError, decode, square_of
from pneumo.data.prepare import prepare, sizes_to_decode
from pneumo.data.sources import source_at
from tests.support.deep_pictures import deep_forms, greys, png, saved, tiff_12_bit
from tests.support.pictures import encoded

FORMS = tuple(deep_forms())

LIKE = 0.02
"""Largest difference of two probabilities for pictures that differ by one grey level of 255."""


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every form of one picture in each class, as a data set."""
    root = tmp_path_factory.mktemp("forms")
    for seed, name in ((3, "NORMAL"), (4, "PNEUMONIA")):
        for part in ("train", "test"):
            (root / part / name).mkdir(parents=True)
        for file, content in deep_forms(seed).items():
            (root / "train" / name / file).write_bytes(content)
        (root / "test" / name / "other.png").write_bytes(encoded(seed + 10, kind="PNG"))
    return root


@pytest.fixture(scope="module")
def trained_on(forms: Path) -> dict[str, NDArray[np.uint8]]:
    """Return the pixels that a search trains on, by the picture's name."""
    prepared = prepare(source_at(str(forms), "folder"), [64], 0.3, 0)
    assert prepared.unreadable == ()
    return dict(zip(prepared.names, prepared.pixels(64), strict=True))


@pytest.fixture(scope="module")
def audited(forms: Path) -> tuple[dict[str, NDArray[np.uint8]], set[str]]:
    """Return the audit's thumbnails by the picture's name, and the names of the pictures that it finds fault with."""
    source = source_at(str(forms), "folder")
    audit, measurements = audit_source(source)
    names = [picture.name for picture in (*source.pictures, *source.sealed)]
    suspicious = {
        name
        for finding in audit.findings
        if finding.kind in ("blank", "outlier", "unreadable")
        for name in finding.pictures
    }
    return dict(zip(names, measurements.thumbnails, strict=True)), suspicious


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of the store of one registered model, whose probability depends on the brightness of a picture."""
    from tests.support.networks import brightness_network, register
    from tests.support.new_stores import new_store

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("model"))
        store = new_store(Path())
        register(store, brightness_network(steepness=10.0), "bright")
        yield store.uri


@pytest.fixture(scope="module")
def served(model: str, forms: Path) -> dict[str, float | None]:
    """Return what the served model predicts for each form of a picture, and for one that is dark."""
    from pneumo.tracking.served import load_served
    from pneumo.tracking.store import connect

    pictures = [(forms / "train" / "NORMAL" / file).read_bytes() for file in FORMS]
    pictures.append(saved(Image.fromarray((greys() // 16).astype(np.uint8))))
    predictions = load_served(connect(model), "models:/bright@champion").predict(pictures)
    return {file: each.probability for file, each in zip((*FORMS, "dark"), predictions, strict=True)}


@pytest.fixture(scope="module")
def predicted(model: str, forms: Path) -> dict[str, float]:
    """Return what `python -m pneumo.predict` prints for each form of a picture."""
    from pneumo.predict.__main__ import app

    out = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", model)
        patch.setattr(sys, "stdout", io.TextIOWrapper(out))
        app([str(forms / "train" / "NORMAL"), "--format", "csv"], standalone_mode=False)
        sys.stdout.flush()
        rows = list(csv.DictReader(io.StringIO(out.getvalue().decode())))
    return {Path(row["name"]).name: float(row["probability"]) for row in rows}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", ["NORMAL", "PNEUMONIA"])
def test_training_has_the_pixels_of_8_bits(form: str, label: str, trained_on: dict[str, NDArray[np.uint8]]) -> None:
    assert_alike(trained_on[f"train/{label}/{form}"], trained_on[f"train/{label}/8.png"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", ["NORMAL", "PNEUMONIA"])
def test_the_audit_has_the_pixels_of_8_bits_and_finds_nothing_empty(
    form: str, label: str, audited: tuple[dict[str, NDArray[np.uint8]], set[str]]
) -> None:
    thumbnails, suspicious = audited
    assert_alike(thumbnails[f"train/{label}/{form}"], thumbnails[f"train/{label}/8.png"])
    assert f"train/{label}/{form}" not in suspicious


@pytest.mark.parametrize("form", FORMS)
def test_a_served_model_predicts_as_for_8_bits(form: str, served: dict[str, float | None]) -> None:
    assert served[form] == pytest.approx(served["8.png"], abs=LIKE)


@pytest.mark.parametrize("form", FORMS)
def test_predict_predicts_as_for_8_bits(
    form: str, predicted: dict[str, float], served: dict[str, float | None]
) -> None:
    assert predicted[form] == pytest.approx(predicted["8.png"], abs=LIKE)
    assert predicted[form] == pytest.approx(served[form], abs=1e-6)


def test_the_tolerance_tells_a_dark_picture(served: dict[str, float | None]) -> None:
    assert (served["8.png"] or 0) - (served["dark"] or 0) > 10 * LIKE


def assert_alike(pixels: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """Assert that two pictures differ by one grey level at most."""
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_pixels_and_audits_of_an_earlier_decoder_are_not_taken(forms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_at(str(forms), "folder")
    prepare(source, [16], 0.3, 0)
    audit_source(source)
    assert sizes_to_decode(source, [16]) == ()
    assert last_audit(source) is not None
    for module in ("pneumo.data.prepare.RECIPE", "pneumo.data.audit.examine.DECODING_RECIPE"):
        monkeypatch.setattr(module, RECIPE - 1)
    assert sizes_to_decode(source, [16]) == (16,)
    assert last_audit(source) is None


def plain_square() -> NDArray[np.uint8]:
    return square_of(greys().astype(np.uint8), 64)


TWELVE = greys() << 4


@pytest.mark.parametrize(
    "content",
    [
        saved(Image.fromarray(TWELVE), "TIFF"),
        saved(Image.fromarray(TWELVE), "TIFF", compression="tiff_lzw"),
        saved(Image.fromarray(TWELVE.astype(">u2")), "TIFF"),
        saved(Image.fromarray(TWELVE.astype(np.int32)), "TIFF"),
        saved(Image.fromarray(4095 - TWELVE), "TIFF", tiffinfo={262: 0}),
        tiff_12_bit(TWELVE),
    ],
    ids=["16", "16-compressed", "16-big-endian", "32", "white-is-zero", "12"],
)
def test_a_deep_tiff_has_the_pixels_of_8_bits(content: bytes) -> None:
    for name in ("a.tif", "a.TIFF", None):
        assert_alike(decode(content, [64], name).squares[0], plain_square())


def test_a_stated_width_holds_for_dark_pictures() -> None:
    dark = greys() // 16  # of 255: without a stated width, the values would decide for another one
    expected = square_of(dark.astype(np.uint8), 64)
    for content in (tiff_12_bit(dark << 4), png(dark << 4, 12), png(dark << 8, 10)):
        assert_alike(decode(content, [64]).squares[0], expected)


@pytest.mark.parametrize(
    "array",
    [
        TWELVE,
        TWELVE[..., None],
        TWELVE.astype(np.int64),
        TWELVE.astype(">u2"),
        np.stack([TWELVE] * 3, axis=-1),
        np.stack([TWELVE] * 3 + [np.full_like(TWELVE, 65535)], axis=-1),
        greys(),
        greys() << 2,
        greys() * 257,
    ],
    ids=["16", "channel", "int64", "big-endian", "colours", "alpha", "8", "10", "full"],
)
def test_a_deep_array_has_the_pixels_of_8_bits(array: NDArray[Any]) -> None:
    assert_alike(square_of(array, 64), plain_square())


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_16_bits_are_read_if_they_use_them(channels: int) -> None:
    full = np.stack([greys() * 257] * min(channels, 3), axis=-1)
    if channels % 2 == 0:
        full[..., -1] = 65535
        full = full if channels == 2 else np.dstack([*[greys() * 257] * 3, full[..., -1]])
    assert_alike(decode(png(full), [64]).squares[0], plain_square())
    colours = full.copy()
    colours[..., : channels - (channels % 2 == 0)] >>= 4
    with pytest.raises(UnreadableError, match=r"colours of 16 bits with values up to 4095 only.*expected greys"):
        decode(png(colours), [64])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), 0.5, np.float32), "floating-point"),
        (np.array([[-1, 5]], np.int32), "greys from -1 to 5; expected 0 to 65535"),
        (np.array([[0, 65536]], np.int32), "greys from 0 to 65536; expected 0 to 65535"),
    ],
)
def test_greys_of_unknown_range_are_refused(values: NDArray[Any], message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        decode(saved(Image.fromarray(values), "TIFF"), [64])


def test_transparent_values_of_16_bits_are_black_and_do_not_count() -> None:
    values = TWELVE.copy()
    values[:, :40] = 65535
    square = decode(saved(Image.fromarray(values), transparency=65535), [64]).squares[0]
    assert not square[:, :31].any()
    assert_alike(square[:, 33:], plain_square()[:, 33:])


GREY = Image.fromarray(greys().astype(np.uint8))


@pytest.mark.parametrize(
    "content",
    [
        saved(GREY, "BMP"),
        saved(GREY, "GIF"),
        saved(GREY, "TIFF"),
        saved(GREY.convert("RGB"), "WEBP", lossless=True),
        saved(GREY.convert("LA"), "PNG"),
        saved(GREY.convert("LA"), "TIFF"),
        saved(GREY.convert("P"), "PNG"),
        saved(GREY.convert("P").convert("PA"), "TIFF"),
        saved(GREY.convert("RGBA"), "TIFF"),
        saved(GREY.convert("CMYK"), "TIFF"),
        saved(GREY.convert("RGB").convert("YCbCr"), "TIFF"),
    ],
    ids=["bmp", "gif", "tiff", "webp", "la", "la-tiff", "p", "pa", "rgba", "cmyk", "ycbcr"],
)
def test_every_format_and_mode_of_8_bits_is_read(content: bytes) -> None:
    assert_alike(decode(content, [64]).squares[0], plain_square())


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_a_file_of_several_pictures_is_refused(kind: str) -> None:
    image = GREY.convert("RGB")
    content = saved(image, kind, save_all=True, append_images=[image.rotate(90)])
    with pytest.raises(UnreadableError, match=f"a {kind} of several pictures; expected one picture"):
        decode(content, [64])


def test_the_previews_of_a_jpeg_do_not_count() -> None:
    image = GREY.convert("RGB")
    content = saved(image, "MPO", save_all=True, append_images=[image.rotate(90)])
    assert np.array_equal(decode(content, [64], "a.jpg").squares[0], decode(saved(image, "JPEG"), [64]).squares[0])


STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture is turned to be stored with an EXIF orientation."""

KINDS: dict[str, Callable[[Image.Image, Image.Exif], bytes]] = {
    "JPEG": lambda image, exif: saved(image, "JPEG", quality=100, exif=exif),
    "PNG": lambda image, exif: saved(image, "PNG", exif=exif),
    "TIFF": lambda image, exif: saved(image, "TIFF", exif=exif),
    "TIFF-compressed": lambda image, exif: saved(image, "TIFF", exif=exif, compression="tiff_lzw"),
    "WEBP": lambda image, exif: saved(image.convert("RGB"), "WEBP", lossless=True, exif=exif),
}


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    # Large enough for the JPEG decoder to scale down.
    upright = GREY.resize((640, 480))
    turn = STORED_AS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = KINDS[kind](upright if turn is None else upright.transpose(turn), exif)
    decoded = decode(content, [64, 400])
    assert (decoded.width, decoded.height) == (640, 480)
    for size, square in zip((64, 400), decoded.squares, strict=True):
        assert np.abs(square.astype(int) - square_of(np.asarray(upright), size)).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"Exif\0\0", None, 0, 9, 77])
def test_without_a_valid_orientation_a_picture_is_as_it_is_stored(kind: str, exif: bytes | int | None) -> None:
    image = GREY.convert("RGB")
    settings: dict[str, Any] = {}
    if isinstance(exif, int):
        settings["exif"] = Image.Exif()
        settings["exif"][0x0112] = exif
    elif exif is not None:
        settings["exif"] = exif
    square = decode(saved(image, kind, **settings), [64]).squares[0]
    assert np.array_equal(square, decode(saved(image, kind), [64]).squares[0])
