"""Draw the figures of a network under the changes of the stress suite, as PNG."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from pneumo.evidence.drawing import BLUE, DPI, GREY, ORANGE, label_axes, plot_title, to_png
from pneumo.evidence.stress import StressFigures


def stress_plot(title: str, figures: StressFigures, *, phantom: bool = False) -> bytes:
    """Return a plot with a line for each change: its AUC and accuracy, beside those of the plain pictures.

    Args:
        title: First line of the plot.
        figures: The figures of the network.
        phantom: Whether the pictures are phantoms, which the title then says.
    """
    rows = [figures.plain, *figures.changes]
    figure = Figure(figsize=(8, 6.2), dpi=DPI)
    positions = np.arange(len(rows))
    lowest = np.nanmin([0.95, *(min(row.auc, row.accuracy) for row in rows)])
    for column, (name, label, colour) in enumerate((("auc", "AUC", BLUE), ("accuracy", "accuracy", ORANGE))):
        axes = figure.add_axes((0.17 + 0.42 * column, 0.1, 0.39, 0.76))
        label_axes(axes, f"{label} (share); dotted: plain", "")
        values = np.array([getattr(row, name) for row in rows], np.float64)
        axes.axvline(values[0], color=GREY, linestyle=":", linewidth=1.2, zorder=0)
        axes.hlines(positions, values[0], values, color=colour, linewidth=1.5, alpha=0.5)
        axes.plot(values, positions, color=colour, marker="o", linestyle="none")
        axes.set_xlim(max(0.0, lowest - 0.03), 1.01)
        axes.set_yticks(positions, [row.change for row in rows] if column == 0 else [])
        axes.set_ylim(len(rows) - 0.5, -0.5)
    worst = f"lowest AUC {figures.worst.auc:.4f} ({figures.worst.change})" if figures.worst else "AUC not defined"
    subtitle = f"under the stress suite: {worst}; accuracy at threshold {figures.threshold:.3f}"
    return to_png(figure, plot_title(title, phantom), subtitle)
