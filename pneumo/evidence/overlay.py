"""Draw a heat map over a picture, and a PNG of it with a caption."""

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
"""Share of the colour at heat 1, so that the picture remains visible."""

COLOURS = "inferno"
"""A perceptually uniform colour map that colour-blind readers can read (S. van der Walt and N. Smith, SciPy 2015)."""

_MIN_WIDTH = 320  # pixels that the caption needs
_FONT_SIZE, _LINE_HEIGHT, _MARGIN = 13, 18, 6  # of the caption, pixels


def overlay_heat(picture: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a picture with a heat map over it.

    Where the heat is 0 the picture is unchanged; with more heat the colour is brighter and covers more, up to `STRONGEST`.

    Args:
        picture: Grey, uint8 (h, w).
        heat: float32 (side, side), 0 to 1; it is stretched to the picture.

    Returns:
        uint8 (h, w, 3).
    """
    height, width = picture.shape
    stretched = Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    clipped = np.clip(np.asarray(stretched), 0, 1)
    colours = matplotlib.colormaps[COLOURS](clipped)[..., :3] * 255
    share = STRONGEST * clipped[..., None]
    mixed: NDArray[np.uint8] = np.rint((1 - share) * picture[..., None] + share * colours).astype(np.uint8)
    return mixed


def restore_aspect_ratio(square: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Return a picture that was stretched to a square with its original aspect ratio.

    Args:
        square: uint8 (side, side).
        width: Original width in pixels.
        height: Original height in pixels.

    Returns:
        uint8, whose longer side is `side`.
    """
    scale = square.shape[0] / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(square).resize(size, Image.Resampling.BILINEAR))


def mean_heat(maps: Sequence[NDArray[np.float32]], weights: Sequence[float]) -> NDArray[np.float32]:
    """Return the weighted mean of heat maps, float32 (side, side), 0 to 1.

    Args:
        maps: Heat maps, each float32 (side, side) of a side of its own; smaller ones are enlarged to the largest side.
        weights: The weight of each; they sum to 1.
    """
    side = max(len(heat) for heat in maps)
    enlarged = [Image.fromarray(heat).resize((side, side), Image.Resampling.BILINEAR) for heat in maps]
    mean: NDArray[np.float32] = np.average([np.asarray(heat) for heat in enlarged], axis=0, weights=weights).astype(
        np.float32
    )
    return mean


def render_explanation(
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
    """Return a PNG of a picture with its heat map and a caption below.

    Args:
        picture: Grey, uint8 (h, w).
        heat: As in `overlay_heat`.
        name: Name of the picture.
        probability: Probability of the second class.
        label: Predicted class.
        threshold: Operating point of the model.
        classes: Names of the two classes.
        note: Another line of the caption.
    """
    image = Image.fromarray(overlay_heat(picture, heat))
    prediction = f"{label}   probability of {classes[1]} {probability:.3f}   threshold {threshold:.3f}"
    legend = (
        f"bright: raises the probability of {classes[1]} (Grad-CAM)"
        if heat.any()
        else f"no region raises the probability of {classes[1]}"
    )
    lines = [name, prediction, legend, *([note] if note else [])]
    width = max(image.width, _MIN_WIDTH)
    sheet = Image.new("RGB", (width, image.height + 2 * _MARGIN + _LINE_HEIGHT * len(lines)), "white")
    sheet.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        position = (_MARGIN, image.height + _MARGIN + number * _LINE_HEIGHT)
        draw.text(position, _shorten_to_width(line, width - 2 * _MARGIN), fill="black", font=_font())
    out = io.BytesIO()
    sheet.save(out, "PNG", compress_level=3)  # takes a third of the time of Pillow's default, for 15 % more bytes
    return out.getvalue()


def _shorten_to_width(line: str, width: int) -> str:
    """Return a line that fits a width in pixels: shortened in its middle, with ? for letters that do not print."""
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    letters = len(line)
    short = line
    while letters > 2 and _font().getlength(short) > width:
        letters -= 1
        short = f"{line[: letters // 2]}…{line[-(letters - letters // 2) :]}"
    return short


@cache
def _font() -> ImageFont.FreeTypeFont:
    """Return the font that comes with Matplotlib, so that each machine has it; it has most letters."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), _FONT_SIZE)
