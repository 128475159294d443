"""What the plots have in common: colours, labels, titles, and the PNG file.

The modules that draw use neither a display nor pyplot, so they change no global state of Matplotlib.
"""

from __future__ import annotations

import io
import warnings

from matplotlib.axes import Axes
from matplotlib.figure import Figure

DPI = 100
"""Resolution of the plots, dots per inch."""

# Okabe and Ito's palette, which colour-blind readers can distinguish (Color Universal Design, 2008).
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"


def label_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=10.5)
    axes.set_ylabel(y, fontsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=10)


def write_centred(axes: Axes, sentence: str) -> None:
    axes.text(0.5, 0.5, sentence, transform=axes.transAxes, ha="center", va="center", fontsize=12)


def plot_title(title: str, phantom: bool) -> str:
    return printable(title, 44) + (" (phantoms)" if phantom else "")


def printable(text: str, max_length: int) -> str:
    """Return a text of at most `max_length` letters, shortened in its middle, with ? for letters that do not print."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    half = max_length // 2
    return text if len(text) <= max_length else f"{text[:half]}…{text[-(max_length - half - 1) :]}"


def to_png(figure: Figure, title: str, subtitle: str, left: float = 0.05) -> bytes:
    """Return the figure as PNG, with the title and the subtitle on top."""
    height = figure.get_figheight()
    figure.text(left, 1 - 0.12 / height, title, fontsize=12, fontweight="bold", va="top", parse_math=False)
    figure.text(left, 1 - 0.4 / height, subtitle, fontsize=11, va="top")
    out = io.BytesIO()
    with warnings.catch_warnings():
        # File names may have letters that the font lacks; they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(out, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    return out.getvalue()
