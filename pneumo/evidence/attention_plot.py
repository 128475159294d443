"""Draw Grad-CAM heat maps over the pictures that a network is most confident of, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pneumo.evidence.attention import attention_inside, frame_width
from pneumo.evidence.drawing import BLUE, DPI, ORANGE, printable, to_png, write_centred
from pneumo.evidence.metrics import Array, predict_labels
from pneumo.evidence.overlay import COLOURS, overlay_heat
from pneumo.evidence.trial_values import TrialValues

_COLUMNS, _CELL = 4, 2.28  # cells in a row, and the height of a cell in units of its width
_WIDTH = 9.6  # inches
_ROW = 0.86 * _WIDTH * _CELL / _COLUMNS
_HEIGHT = 0.75 + 2 * _ROW


def attention_plot(title: str, values: TrialValues, pixels: Mapping[int, Array], classes: Sequence[str]) -> bytes:
    """Return a sheet of heat maps: a row of right predictions above a row of wrong ones.

    Args:
        title: First line of the sheet.
        values: The values of the trial, with heat maps.
        pixels: The pictures that have a map, uint8 (side, side), by position.
        classes: Names of the two classes, printable.
    """
    maps = values.heat_maps
    assert maps is not None
    is_right = predict_labels(values.probabilities, values.threshold) == values.labels
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=DPI)
    for row, (name, wanted) in enumerate((("right", True), ("wrong", False))):
        axes = figure.add_axes((0.06, 1 - (0.72 + (row + 1) * _ROW) / _HEIGHT, 0.86, _ROW / _HEIGHT))
        axes.set(xlim=(0, _COLUMNS), ylim=(_CELL, 0))  # of equal units: a cell is 1 wide
        axes.set_axis_off()
        axes.text(-0.03, 0.97, name, rotation=90, ha="right", va="center", fontsize=12, fontweight="bold")
        chosen = [index for index, position in enumerate(maps.positions) if is_right[position] == wanted][:_COLUMNS]
        if not chosen:
            write_centred(axes, f"No {name} prediction")
        for column, index in enumerate(chosen):
            _draw_cell(axes, column, values, pixels, index, classes)
    scale = figure.add_axes((0.92, 0.3, 0.016, 0.3))
    bar = figure.colorbar(ScalarMappable(cmap=matplotlib.colormaps[COLOURS]), cax=scale)
    bar.set_ticks([0, 1], labels=["none", "most"])
    bar.ax.tick_params(labelsize=10, length=0)
    bar.outline.set_visible(False)
    inside = "" if np.isnan(maps.inside) else f"; {maps.inside:.0%} inside the middle, sample mean"
    subtitle = f"Grad-CAM: bright raises the probability of {classes[1]}{inside}"
    return to_png(figure, title, subtitle, left=0.06)


def _draw_cell(
    axes: Axes, column: int, values: TrialValues, pixels: Mapping[int, Array], index: int, classes: Sequence[str]
) -> None:
    """Draw a picture, and below it its map over it, in a cell that is 1 wide; both are 0.94 wide and high."""
    maps = values.heat_maps
    assert maps is not None
    position, heat = int(maps.positions[index]), maps.heat[index].astype(np.float32)
    for top, picture in ((0, pixels[position]), (0.97, overlay_heat(pixels[position], heat))):
        extent = (column, column + 0.94, top + 0.94, top)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto", zorder=2)
    side = len(heat)
    edge = 0.94 * frame_width(side) / side
    width = 0.94 - 2 * edge
    axes.add_patch(
        Rectangle((column + edge, 0.97 + edge), width, width, fill=False, edgecolor="white", linestyle="--", zorder=3)
    )
    truth = int(values.labels[position])
    name = printable(values.names[position].rsplit("/", 1)[-1], 29)
    share = attention_inside(heat)
    inside = "no region raises it" if np.isnan(share) else f"{share:.0%} inside"
    line = f"true {classes[truth]}, p = {values.probabilities[position]:.3f}"
    axes.text(column, 1.93, name, fontsize=8.5, va="top", parse_math=False)
    axes.text(column, 2.025, line, fontsize=9, va="top", color=ORANGE if truth else BLUE, parse_math=False)
    axes.text(column, 2.12, inside, fontsize=9, va="top")
