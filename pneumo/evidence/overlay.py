"""A heat map laid over a picture, as a PNG that says what it shows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

STRONGEST = 0.6
"""Share of the colour where the heat is 1, so that the picture still shows."""

COLOURS = "inferno"
"""Even in brightness, and told apart by colour-blind readers (S. van der Walt and N. Smith, SciPy 2015)."""

_NARROWEST = 320  # pixels, which the text needs
_SIZE, _LINE, _MARGIN = 13, 18, 6  # of the text, pixels


def overlay(picture: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture, uint8 (h, w) grey, with the heat, float32 (side, side) from 0 to 1, stretched over it: uint8 (h, w, 3).

    Where the heat is 0 the picture is as it was; up to 1 the colour grows brighter and covers more, `STRONGEST` at most.
    """
    height, width = picture.shape
    stretched = Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    warm = np.clip(np.asarray(stretched), 0, 1)
    colours = matplotlib.colormaps[COLOURS](warm)[..., :3] * 255
    share = STRONGEST * warm[..., None]
    mixed: NDArray[np.uint8] = np.rint((1 - share) * picture[..., None] + share * colours).astype(np.uint8)
    return mixed


def in_proportion(square: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """A picture that was stretched to a square, uint8 (side, side), in its own proportions again: the longer side is `side`."""
    share = square.shape[0] / max(width, height)
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.asarray(Image.fromarray(square).resize(size, Image.Resampling.BILINEAR))


def explained_png(
    picture: NDArray[np.uint8],
    heat: NDArray[np.float32],
    *,
    name: str,
    probability: float,
    label: str,
    threshold: float,
    classes: Sequence[str],
    note: str = "",
) -> bytes:
    """The overlay, see there, as a PNG with text below it: the picture's name, what the model says of it, and what the
    colours are. `probability` is of the second of `classes`. A `note` is one more line.
    """
    shown = Image.fromarray(overlay(picture, heat))
    said = f"{label}   probability of {classes[1]} {probability:.3f}   threshold {threshold:.3f}"
    told = f"bright: what speaks for {classes[1]} (Grad-CAM)" if heat.any() else f"nothing speaks for {classes[1]}"
    lines = [name, said, told, *([note] if note else [])]
    width = max(shown.width, _NARROWEST)
    sheet = Image.new("RGB", (width, shown.height + 2 * _MARGIN + _LINE * len(lines)), "white")
    sheet.paste(shown, ((width - shown.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        place = (_MARGIN, shown.height + _MARGIN + number * _LINE)
        draw.text(place, _fitting(line, width - 2 * _MARGIN), fill="black", font=_font())
    out = io.BytesIO()
    sheet.save(out, "PNG", compress_level=3)  # a third of the time of Pillow's own level, for 15 % more bytes
    return out.getvalue()


def _fitting(line: str, width: int) -> str:
    """The line, what does not print as question marks, shortened in its middle to a width in pixels."""
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    keep = len(line)
    short = line
    while keep > 2 and _font().getlength(short) > width:
        keep -= 1
        short = f"{line[: keep // 2]}…{line[-(keep - keep // 2) :]}"
    return short


@cache
def _font() -> ImageFont.FreeTypeFont:
    """Matplotlib's own font, which is on every machine that has Matplotlib and has most letters."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), _SIZE)
