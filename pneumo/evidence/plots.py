"""Draw the plots of the pictures that a network predicted, and of its learning, as PNG.

The module uses neither a display nor pyplot, so it changes no global state of Matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox, TransformedBbox
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_curve, roc_curve

from pneumo.evidence.drawing import BLUE, DPI, GREY, ORANGE, label_axes, plot_title, printable, to_png, write_centred
from pneumo.evidence.metrics import Array, auc, calibration, has_both_classes, most_confident, predict_labels
from pneumo.evidence.trial_values import MAX_MISTAKES
from pneumo.spec.result import CLASSES

_SHARE_TICKS, _SHARE_LIMITS = (0, 0.25, 0.5, 0.75, 1), (-0.03, 1.03)
_ONE_CLASS = "No curve: only one class is present"


def picture_plots(
    *,
    title: str,
    labels: Array,
    probabilities: Array,
    names: Sequence[str],
    pixels: Array | Mapping[int, Array],
    threshold: float,
    phantom: bool = False,
    classes: Sequence[str] = CLASSES,
    part: str = "validation",
    others: Mapping[str, Array] | None = None,
) -> dict[str, bytes]:
    """Return the plots of the pictures that a network predicted, as PNG by file name.

    Args:
        title: First line of each plot.
        labels: Of the pictures, 0 or 1, shape (n,).
        probabilities: Of the second class, finite, shape (n,).
        names: Names of the pictures, n entries.
        pixels: The pictures, uint8 (n, side, side), grey, of any size; or a mapping from the positions of the most confident
            mistakes to uint8 (side, side).
        threshold: Smallest probability that counts as the second class.
        phantom: Whether the pictures are phantoms, which each title then says.
        classes: Names of the two classes.
        part: The part of the data set, as the legends call it.
        others: Probabilities of the same pictures by other networks, shape (n,), by name (`champion`). Their ROC and
            precision-recall curves are drawn too.

    Raises:
        ValueError: The lengths differ.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    pictures = len(labels) if isinstance(pixels, Mapping) else len(pixels)
    if not len(labels) == len(probabilities) == len(names) == pictures:
        raise ValueError(
            f"labels, probabilities, names and pixels must have the same length, got {len(labels)}, {len(probabilities)}, "
            f"{len(names)} and {pictures}"
        )
    curves = {part: probabilities} | {name: np.asarray(other, np.float64) for name, other in (others or {}).items()}
    for name, other in curves.items():
        if len(other) != len(labels):
            raise ValueError(
                f"probabilities of the {name} must have the length of labels, {len(labels)}, got {len(other)}"
            )
    class_names = [printable(name, 20) for name in classes]
    title = plot_title(title, phantom)
    return {
        "confusion_matrix.png": _confusion_matrix(title, labels, probabilities, threshold, class_names),
        "roc.png": _roc(title, labels, curves, threshold, class_names),
        "precision_recall.png": _precision_recall(title, labels, curves, threshold, class_names),
        "calibration.png": _calibration(title, labels, probabilities, class_names, part),
        "mistakes.png": _mistakes(
            title, labels, probabilities, threshold, names=names, pixels=pixels, class_names=class_names
        ),
    }


def learning_curves(title: str, history: Sequence[Mapping[str, float]], best_epoch: int) -> bytes:
    """Return the plot of loss, accuracy and AUC after each epoch, as PNG.

    Args:
        title: First line of the plot.
        history: A mapping for each epoch, with `epoch` and any of `loss`, `accuracy`, `auc`, and the same with `val_`.
        best_epoch: Number of the best epoch.
    """
    figure = Figure(figsize=(11, 4), dpi=DPI)
    epochs = [epoch["epoch"] for epoch in history]
    panels = {
        "loss": "binary cross-entropy (nats)",
        "accuracy": "accuracy at 0.5 (share)",
        "auc": "area under ROC (share)",
    }
    for column, (metric, label) in enumerate(panels.items()):
        axes = figure.add_axes((0.065 + 0.325 * column, 0.14, 0.26, 0.66))
        label_axes(axes, "epoch", label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        for key, name, colour in ((metric, "training", GREY), (f"val_{metric}", "validation", BLUE)):
            values = np.array([epoch.get(key, math.nan) for epoch in history], np.float64)
            values[~np.isfinite(values)] = math.nan
            if not np.isnan(values).all():
                axes.plot(epochs, values, color=colour, label=name, marker="o", markersize=3.5, linewidth=1.8)
        if not axes.lines:
            axes.set_xticks([])
            axes.set_yticks([])
            write_centred(axes, "No values were recorded")
            continue
        axes.axvline(best_epoch, color=ORANGE, linestyle=":", linewidth=1.5, zorder=0, label="best epoch")
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    lines = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    drawn = [name for name in ("training", "validation", "best epoch") if name in lines]
    if drawn:
        handles = [lines[name] for name in drawn]
        figure.legend(handles, drawn, loc="upper right", ncols=3, frameon=False, fontsize=10)
    last = f"{max(epochs):g}" if epochs else "0"
    return to_png(figure, title, f"learning curves, best epoch {best_epoch} of {last}", left=0.065)


def _confusion_matrix(
    title: str, labels: Array, probabilities: Array, threshold: float, class_names: Sequence[str]
) -> bytes:
    figure = Figure(figsize=(5.6, 5.2), dpi=DPI)
    axes = figure.add_axes((0.2, 0.12, 0.76, 0.7))
    counts = confusion_matrix(labels, predict_labels(probabilities, threshold), labels=[0, 1])
    class_counts = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(class_counts, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
    for (truth, guess), count in np.ndenumerate(counts):
        share = f"\n{shares[truth, guess]:.1%} of {class_names[truth]}" if class_counts[truth, 0] else "\nno picture"
        colour = "white" if shares[truth, guess] > 0.75 else "black"
        axes.text(guess, truth, f"{count:,}{share}", ha="center", va="center", color=colour, fontsize=12)
    axes.set_xticks([0, 1], class_names, fontsize=11)
    axes.set_yticks([0, 1], class_names, fontsize=11, rotation=90, va="center")
    axes.set_xlabel("predicted class", fontsize=11)
    axes.set_ylabel("true class", fontsize=11)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    correct, usual = int(np.trace(counts)), np.count_nonzero(predict_labels(probabilities, 0.5) == labels)
    shares_right = [count / max(len(labels), 1) for count in (correct, usual)]
    subtitle = (
        f"{shares_right[0]:.1%} of {len(labels):,} correct at threshold {threshold:.3f}; {shares_right[1]:.1%} at 0.5"
    )
    return to_png(figure, title, subtitle, left=0.06)


def _roc(title: str, labels: Array, curves: Mapping[str, Array], threshold: float, class_names: Sequence[str]) -> bytes:
    """Draw the ROC curves. `curves` are probabilities by name, those of the network itself first."""
    figure, axes = _unit_axes(
        f"1 - specificity (share of {class_names[0]} called {class_names[1]})",
        f"sensitivity (share of {class_names[1]} detected)",
    )
    if not has_both_classes(labels):
        write_centred(axes, _ONE_CLASS)
        return to_png(figure, title, "ROC curve, AUC not defined")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="chance")
    for name, probabilities, style in _curve_styles(curves):
        false_positives, true_positives, _ = roc_curve(labels, probabilities)
        axes.plot(false_positives, true_positives, label=name, **style)
    ours, *_ = curves.values()
    positive = predict_labels(ours, threshold)
    operating_point = float(np.mean(positive[labels == 0])), float(np.mean(positive[labels == 1]))
    _mark_threshold(axes, operating_point, threshold)
    _legend(axes, "lower right")
    comparison = "".join(f", {name} {auc(labels, other):.4f}" for name, other in list(curves.items())[1:])
    return to_png(figure, title, f"ROC curve, AUC {auc(labels, ours):.4f}{comparison}")


def _precision_recall(
    title: str, labels: Array, curves: Mapping[str, Array], threshold: float, class_names: Sequence[str]
) -> bytes:
    figure, axes = _unit_axes(
        f"recall (share of {class_names[1]} detected)",
        f"precision (share of {class_names[1]} among positive calls)",
    )
    if not has_both_classes(labels):
        write_centred(axes, _ONE_CLASS)
        return to_png(figure, title, "precision and recall, average precision not defined")
    prevalence = float(np.mean(labels))
    axes.axhline(prevalence, color=GREY, linestyle="--", linewidth=1.2, label=f"chance (prevalence {prevalence:.2f})")
    for name, probabilities, style in _curve_styles(curves):
        precision, recall, _ = precision_recall_curve(labels, probabilities)
        axes.plot(recall, precision, label=name, drawstyle="steps-post", **style)
    ours, *_ = curves.values()
    positive = predict_labels(ours, threshold)
    if positive.any():
        _mark_threshold(axes, (float(np.mean(positive[labels == 1])), float(np.mean(labels[positive == 1]))), threshold)
    _legend(axes, "lower left")
    average, *other_averages = (average_precision_score(labels, probabilities) for probabilities in curves.values())
    comparison = "".join(f", {name} {value:.4f}" for name, value in zip(list(curves)[1:], other_averages, strict=True))
    return to_png(figure, title, f"precision and recall, average precision {average:.4f}{comparison}")


def _calibration(title: str, labels: Array, probabilities: Array, class_names: Sequence[str], part: str) -> bytes:
    figure = Figure(figsize=(5.6, 5.8), dpi=DPI)
    axes = figure.add_axes((0.13, 0.34, 0.83, 0.52))
    below = figure.add_axes((0.13, 0.1, 0.83, 0.19))
    label_axes(axes, "", f"share of {class_names[1]} in the bin")
    label_axes(below, f"probability of {class_names[1]}", "pictures")
    bins = calibration(labels, probabilities)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="perfect calibration")
    axes.plot(bins.probability, bins.share, color=BLUE, linewidth=2, marker="o", markersize=6, label=part)
    _legend(axes, "upper left")
    axes.set(yticks=_SHARE_TICKS, ylim=_SHARE_LIMITS)
    axes.tick_params(labelbottom=False)
    below.hist(probabilities, bins=10, range=(0, 1), color=BLUE, edgecolor="white")
    below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    for panel in (axes, below):
        panel.set(xticks=_SHARE_TICKS, xlim=_SHARE_LIMITS)
    return to_png(figure, title, f"calibration, expected calibration error {bins.error:.4f}")


def _mistakes(
    title: str,
    labels: Array,
    probabilities: Array,
    threshold: float,
    *,
    names: Sequence[str],
    pixels: Array | Mapping[int, Array],
    class_names: Sequence[str],
) -> bytes:
    """Draw the pictures classified wrongly, in falling order of the wrong class's probability."""
    wrong = np.flatnonzero(predict_labels(probabilities, threshold) != labels)
    selected = most_confident(labels, probabilities, threshold, right=False, most=MAX_MISTAKES)
    columns = 4
    rows = max(1, math.ceil(len(selected) / columns))
    figure = Figure(figsize=(9, 0.8 + 2.75 * rows), dpi=DPI)
    axes = figure.add_axes((0.02, 0.0, 0.96, 1 - 0.75 / (0.8 + 2.75 * rows)))
    axes.set_axis_off()
    # One set of axes for the whole sheet, since twelve sets would take as long as all other plots together. A cell is 1 wide
    # and 1.25 high, the picture in it 0.94 wide.
    for position, picture in enumerate(selected):
        row, column = divmod(position, columns)
        top = 1.25 * row
        axes.imshow(
            pixels[int(picture)],
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=(column, column + 0.94, top + 0.94, top),
            zorder=2,
        )
        truth = int(labels[picture])
        name = axes.text(
            column,
            top + 0.96,
            printable(names[picture].rsplit("/", 1)[-1], 30),
            fontsize=8.5,
            va="top",
            parse_math=False,
        )
        name.set_clip_box(TransformedBbox(Bbox([[column, top], [column + 0.97, top + 1.25]]), axes.transData))
        name.set_clip_on(True)
        line = f"true {class_names[truth]}, p = {probabilities[picture]:.3f}"
        axes.text(column, top + 1.055, line, fontsize=9, va="top", color=ORANGE if truth else BLUE)
    axes.set_xlim(0, columns - 0.06)
    axes.set_ylim(1.25 * rows, 0)
    if not len(selected):
        write_centred(axes, "No mistakes at this threshold")
    subtitle = f"{len(wrong):,} of {len(labels):,} wrong at threshold {threshold:.3f}"
    if len(selected):
        subtitle += "" if len(wrong) == len(selected) else f"; the {len(selected)} most confident mistakes"
        subtitle += f"; p is the probability of {class_names[1]}"
    return to_png(figure, title, subtitle, left=0.02)


def _curve_styles(curves: Mapping[str, Array]) -> Iterator[tuple[str, Array, dict[str, Any]]]:
    """Yield name, probabilities and line style of each curve: the first is blue and on top, the others are grey."""
    for position, (name, probabilities) in enumerate(curves.items()):
        yield name, probabilities, {"color": GREY if position else BLUE, "linewidth": 2, "zorder": 2 - position / 10}


def _unit_axes(x: str, y: str) -> tuple[Figure, Axes]:
    """Return a figure with axes from 0 to 1 in both directions."""
    figure = Figure(figsize=(5.6, 5.6), dpi=DPI)
    axes = figure.add_axes((0.13, 0.11, 0.83, 0.74))
    label_axes(axes, x, y)
    axes.set(xticks=_SHARE_TICKS, yticks=_SHARE_TICKS, xlim=_SHARE_LIMITS, ylim=_SHARE_LIMITS)
    return figure, axes


def _legend(axes: Axes, location: Literal["lower left", "lower right", "upper left"]) -> None:
    axes.legend(loc=location, fontsize=10, edgecolor="none", framealpha=0.85)


def _mark_threshold(axes: Axes, point: tuple[float, float], threshold: float) -> None:
    axes.plot(
        *point, color=ORANGE, marker="o", markersize=8, linestyle="none", label=f"threshold {threshold:.3f}", zorder=5
    )
