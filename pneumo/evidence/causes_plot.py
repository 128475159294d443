"""Draw the error rates of a network by the cause of the pneumonia, as PNG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pneumo.evidence.causes import CauseFigures
from pneumo.evidence.drawing import BLUE, DPI, ORANGE, label_axes, to_png


def causes_plot(title: str, figures: Sequence[CauseFigures], threshold: float, classes: Sequence[str]) -> bytes:
    """Return a plot with a line for each class and cause: the share of wrong predictions and its interval.

    Args:
        title: First line of the plot.
        figures: The figures, one at least.
        threshold: The threshold that they are at.
        classes: Names of the two classes, printable.
    """
    height = 1.7 + 0.62 * len(figures)
    figure = Figure(figsize=(8, height), dpi=DPI)
    axes = figure.add_axes((0.27, 0.6 / height, 0.69, 1 - 1.45 / height))
    label_axes(axes, "share of pictures called wrongly, with its 95 % interval", "")
    names, limit = [], min(1.0, max(0.1, 1.15 * max(row.high for row in figures)))
    for position, row in enumerate(figures):
        colour = ORANGE if row.label else BLUE
        axes.plot(
            [row.low, row.high], [position, position], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt"
        )
        axes.plot(row.error_rate, position, color=colour, marker="o", markersize=8)
        text = f"{row.wrong:,} of {row.pictures:,} pictures wrong ({row.error_rate:.1%})"
        is_left = row.error_rate < limit / 2  # otherwise the text would leave the plot
        at, side = (row.low, "left") if is_left else (row.high, "right")
        axes.text(at, position - 0.17, text, fontsize=10, va="bottom", ha=side)
        unknown = ", cause not named" if any(other.cause and other.label == row.label for other in figures) else ""
        names.append(f"{classes[row.label]}{f', {row.cause}' if row.cause else unknown}\n{row.patients:,} patients")
    axes.set_yticks(np.arange(len(figures)), names, parse_math=False)
    axes.set_ylim(len(figures) - 0.5, -0.7)
    axes.set_xlim(0, limit)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return to_png(figure, title, f"errors by the cause in the file's name, at threshold {threshold:.3f}")
