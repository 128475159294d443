"""Draw how a network's decisions depend on the threshold, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pneumo.evidence.drawing import BLUE, DPI, GREY, ORANGE, label_axes, to_png, write_centred
from pneumo.evidence.metrics import Array

_BINS = 25
_COLOURS = (BLUE, ORANGE)  # of the two classes, as on the other plots


class Scores(NamedTuple):
    """The labels and probabilities of pictures, both (n,), and the threshold that was chosen on them."""

    labels: Array
    probabilities: Array
    threshold: float

    def share_right(self, label: int, thresholds: Array) -> Array:
        """Return the share of a class's pictures that are predicted rightly at each threshold; NaN if there is none."""
        own = np.sort(self.probabilities[self.labels == label].astype(np.float64))
        below = np.searchsorted(own, thresholds, side="left")
        right = len(own) - below if label else below
        return right / len(own) if len(own) else np.full(len(thresholds), np.nan)


def threshold_plot(title: str, scores: Mapping[str, Scores], classes: Sequence[str]) -> bytes:
    """Return a plot of sensitivity and specificity over the threshold, with the thresholds that were chosen.

    Args:
        title: First line of the plot.
        scores: By name; those of the plain pictures first. They are drawn solid, the others dashed.
        classes: Names of the two classes, printable.
    """
    figure = Figure(figsize=(7.6, 5.4), dpi=DPI)
    axes = figure.add_axes((0.1, 0.11, 0.86, 0.7))
    label_axes(axes, f"threshold: smallest probability called {classes[1]}", "share of the class called rightly")
    handles = []
    thresholds = np.linspace(0, 1, 1001)
    styles: tuple[Literal["-", "--"], ...] = ("-", "--")
    for (name, own), style in zip(scores.items(), styles, strict=False):
        for label, measure in ((1, "sensitivity"), (0, "specificity")):
            colour = _COLOURS[label]
            axes.plot(thresholds, own.share_right(label, thresholds), color=colour, linestyle=style, linewidth=1.8)
            at = own.share_right(label, np.array([own.threshold]))
            marker, fill = ("o", colour) if style == "-" else ("s", "white")
            axes.plot(own.threshold, at, color=colour, marker=marker, markerfacecolor=fill, markersize=7, zorder=5)
            legend = f"{measure} ({classes[label]}), {name}: {at[0]:.3f}"
            handles.append(Line2D([], [], color=colour, linestyle=style, marker=marker, mfc=fill, label=legend))
        axes.axvline(own.threshold, color=GREY, linestyle=style, linewidth=1.2, zorder=0)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.03, 1.03), xticks=np.linspace(0, 1, 11), yticks=np.linspace(0, 1, 6))
    axes.grid(axis="y", color="#e5e5e5", zorder=0)
    axes.legend(handles=handles, loc="lower center", fontsize=10, edgecolor="none", framealpha=0.9)
    chosen = ", ".join(f"{own.threshold:.3f} ({name})" for name, own in scores.items())
    return to_png(figure, title, f"sensitivity and specificity; chosen threshold {chosen}")


def score_plot(title: str, scores: Scores, classes: Sequence[str]) -> bytes:
    """Return a histogram of the probabilities for each class, with the threshold.

    Args:
        title: First line of the plot.
        scores: Of the plain pictures.
        classes: Names of the two classes, printable.
    """
    figure = Figure(figsize=(7.6, 5.4), dpi=DPI)
    for label in (0, 1):
        axes = figure.add_axes((0.1, 0.51 - 0.4 * label, 0.86, 0.29))
        own = scores.probabilities[scores.labels == label]
        label_axes(axes, f"probability of {classes[1]}" if label else "", "pictures")
        axes.set(xlim=(-0.01, 1.01), xticks=np.linspace(0, 1, 11))
        axes.tick_params(labelbottom=bool(label))
        axes.axvline(scores.threshold, color="black", linestyle="--", linewidth=1.4, zorder=3)
        if not len(own):
            axes.set_yticks([])
            write_centred(axes, "No picture of this class")
            continue
        axes.hist(own, bins=_BINS, range=(0, 1), color=_COLOURS[label], edgecolor="white", linewidth=0.6)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        wrong = int(np.count_nonzero((own >= scores.threshold) != label))
        side = "at or above" if label == 0 else "below"
        text = f"{classes[label]}: {wrong:,} of {len(own):,} are {side} the threshold, so wrong"
        axes.set_title(text, loc="left", fontsize=10.5, parse_math=False)
    subtitle = f"validation pictures by class; dashed: threshold {scores.threshold:.3f}"
    return to_png(figure, title, subtitle)
