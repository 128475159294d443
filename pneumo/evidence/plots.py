"""A trial's plots, and those of a promotion's test pictures, as PNG: no display, no pyplot, nothing global."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox, TransformedBbox
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_curve, roc_curve

from pneumo.evidence.metrics import Array, auc, both_classes, calibration, predicted
from pneumo.spec.result import CLASSES

MOST_MISTAKES = 12
DPI = 100

# Okabe and Ito's colours, which colour-blind readers can tell apart (Color Universal Design, 2008).
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"

_SHARES, _UNIT = (0, 0.25, 0.5, 0.75, 1), (-0.03, 1.03)
_ONE_CLASS = "Only one class is present: no curve"


def trial_plots(
    *,
    title: str,
    history: Sequence[Mapping[str, float]],
    best_epoch: int,
    labels: Array,
    probabilities: Array,
    names: Sequence[str],
    pixels: Array,
    threshold: float,
    phantom: bool = False,
    classes: Sequence[str] = CLASSES,
) -> dict[str, bytes]:
    """One trial's plots, by file name, as PNG.

    `history` has a mapping per epoch: `epoch` and any of `loss`, `accuracy`, `auc` and the same with `val_`. Of the
    validation pictures, `labels` (n,) are 0 and 1, of `classes`, `probabilities` (n,) of the second class and finite,
    `names` (n,), `pixels` uint8 (n, side, side) grey, at any size. A probability of at least `threshold` counts as
    the second class. With `phantom` every title says that the pictures are phantoms. Raises `ValueError` where the lengths
    differ.
    """
    return {
        "learning_curves.png": _learning_curves(_title(title, phantom), history, best_epoch),
        **picture_plots(
            title=title,
            labels=labels,
            probabilities=probabilities,
            names=names,
            pixels=pixels,
            threshold=threshold,
            phantom=phantom,
            classes=classes,
        ),
    }


def picture_plots(
    *,
    title: str,
    labels: Array,
    probabilities: Array,
    names: Sequence[str],
    pixels: Array,
    threshold: float,
    phantom: bool = False,
    classes: Sequence[str] = CLASSES,
    part: str = "validation",
    others: Mapping[str, Array] | None = None,
) -> dict[str, bytes]:
    """The plots of some pictures that a network was tried on, by file name, as PNG: those of a trial without its learning.

    `part` is what the legends call the pictures. `others` are probabilities (n,) of the same pictures by other networks, by
    what each is called (`champion`), drawn beside in ROC, precision and recall. The rest is as in `trial_plots`.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    if not len(labels) == len(probabilities) == len(names) == len(pixels):
        raise ValueError(
            f"labels, probabilities, names and pixels must be as many, got {len(labels)}, {len(probabilities)}, "
            f"{len(names)} and {len(pixels)}"
        )
    curves = {part: probabilities} | {name: np.asarray(other, np.float64) for name, other in (others or {}).items()}
    for name, other in curves.items():
        if len(other) != len(labels):
            raise ValueError(f"probabilities of the {name} must be as many as labels, got {len(other)}")
    named = [_text(name, 20) for name in classes]
    title = _title(title, phantom)
    return {
        "confusion_matrix.png": _confusion_matrix(title, labels, probabilities, threshold, named),
        "roc.png": _roc(title, labels, curves, threshold, named),
        "precision_recall.png": _precision_recall(title, labels, curves, threshold, named),
        "calibration.png": _calibration(title, labels, probabilities, named, part),
        "mistakes.png": _mistakes(title, labels, probabilities, threshold, names=names, pixels=pixels, named=named),
    }


def warm_up() -> None:
    """Load Matplotlib's fonts and draw each plot once, which makes the first trial's plots as quick as later ones."""
    trial_plots(
        title="warm up",
        history=[{"epoch": 1, "loss": 1.0, "val_loss": 1.0}],
        best_epoch=1,
        labels=np.array([0, 1, 1]),
        probabilities=np.array([0.4, 0.3, 0.9]),
        names=["a", "b", "c"],
        pixels=np.zeros((3, 8, 8), np.uint8),
        threshold=0.5,
    )


def _learning_curves(title: str, history: Sequence[Mapping[str, float]], best_epoch: int) -> bytes:
    figure = Figure(figsize=(11, 4), dpi=DPI)
    epochs = [epoch["epoch"] for epoch in history]
    panels = {"loss": "binary cross-entropy (nats)", "accuracy": "accuracy (share)", "auc": "area under ROC (share)"}
    for column, (metric, label) in enumerate(panels.items()):
        axes = figure.add_axes((0.065 + 0.325 * column, 0.14, 0.26, 0.66))
        _frame(axes, "epoch", label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        for key, name, colour in ((metric, "training", GREY), (f"val_{metric}", "validation", BLUE)):
            values = np.array([epoch.get(key, math.nan) for epoch in history], np.float64)
            values[~np.isfinite(values)] = math.nan
            if not np.isnan(values).all():
                axes.plot(epochs, values, color=colour, label=name, marker="o", markersize=3.5, linewidth=1.8)
        if not axes.lines:
            axes.set_xticks([])
            axes.set_yticks([])
            _say(axes, "No value was recorded")
            continue
        axes.axvline(best_epoch, color=ORANGE, linestyle=":", linewidth=1.5, zorder=0, label="best epoch")
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    lines = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    known = [name for name in ("training", "validation", "best epoch") if name in lines]
    if known:
        handles = [lines[name] for name in known]
        figure.legend(handles, known, loc="upper right", ncols=3, frameon=False, fontsize=10)
    last = f"{max(epochs):g}" if epochs else "0"
    return _png(figure, title, f"learning curves, best epoch {best_epoch} of {last}", left=0.065)


def _confusion_matrix(title: str, labels: Array, probabilities: Array, threshold: float, named: Sequence[str]) -> bytes:
    figure = Figure(figsize=(5.6, 5.2), dpi=DPI)
    axes = figure.add_axes((0.2, 0.12, 0.76, 0.7))
    counts = confusion_matrix(labels, predicted(probabilities, threshold), labels=[0, 1])
    of_class = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(of_class, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
    for (truth, guess), count in np.ndenumerate(counts):
        share = f"\n{shares[truth, guess]:.1%} of {named[truth]}" if of_class[truth, 0] else "\nno picture"
        colour = "white" if shares[truth, guess] > 0.75 else "black"
        axes.text(guess, truth, f"{count:,}{share}", ha="center", va="center", color=colour, fontsize=12)
    axes.set_xticks([0, 1], named, fontsize=11)
    axes.set_yticks([0, 1], named, fontsize=11, rotation=90, va="center")
    axes.set_xlabel("predicted class", fontsize=11)
    axes.set_ylabel("true class", fontsize=11)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    right = int(np.trace(counts))
    figures = f"{right:,} of {len(labels):,} right at threshold {threshold:.3f}"
    return _png(figure, title, figures, left=0.06)


def _roc(title: str, labels: Array, curves: Mapping[str, Array], threshold: float, named: Sequence[str]) -> bytes:
    """`curves` are probabilities by name, ours first; another network's are grey and below."""
    figure, axes = _square(
        f"1 - specificity (share of {named[0]} called {named[1]})", f"sensitivity (share of {named[1]} found)"
    )
    if not both_classes(labels):
        _say(axes, _ONE_CLASS)
        return _png(figure, title, "ROC, AUC not defined")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="chance")
    for name, probabilities, style in _styled(curves):
        false_positives, true_positives, _ = roc_curve(labels, probabilities)
        axes.plot(false_positives, true_positives, label=name, **style)
    ours, *_ = curves.values()
    positive = predicted(ours, threshold)
    here = float(np.mean(positive[labels == 0])), float(np.mean(positive[labels == 1]))
    _mark(axes, here, threshold)
    _legend(axes, "lower right")
    against = "".join(f", {name} {auc(labels, other):.4f}" for name, other in list(curves.items())[1:])
    return _png(figure, title, f"ROC, AUC {auc(labels, ours):.4f}{against}")


def _precision_recall(
    title: str, labels: Array, curves: Mapping[str, Array], threshold: float, named: Sequence[str]
) -> bytes:
    figure, axes = _square(
        f"recall (share of {named[1]} found)", f"precision (share of {named[1]} among those called so)"
    )
    if not both_classes(labels):
        _say(axes, _ONE_CLASS)
        return _png(figure, title, "precision and recall, average precision not defined")
    prevalence = float(np.mean(labels))
    axes.axhline(prevalence, color=GREY, linestyle="--", linewidth=1.2, label=f"chance (prevalence {prevalence:.2f})")
    for name, probabilities, style in _styled(curves):
        precision, recall, _ = precision_recall_curve(labels, probabilities)
        axes.plot(recall, precision, label=name, drawstyle="steps-post", **style)
    ours, *_ = curves.values()
    positive = predicted(ours, threshold)
    if positive.any():
        _mark(axes, (float(np.mean(positive[labels == 1])), float(np.mean(labels[positive == 1]))), threshold)
    _legend(axes, "lower left")
    scores = {name: average_precision_score(labels, each) for name, each in curves.items()}
    average, against = (
        scores.pop(next(iter(scores))),
        "".join(f", {name} {score:.4f}" for name, score in scores.items()),
    )
    return _png(figure, title, f"precision and recall, average precision {average:.4f}{against}")


def _calibration(title: str, labels: Array, probabilities: Array, named: Sequence[str], part: str) -> bytes:
    figure = Figure(figsize=(5.6, 5.8), dpi=DPI)
    axes = figure.add_axes((0.13, 0.34, 0.83, 0.52))
    below = figure.add_axes((0.13, 0.1, 0.83, 0.19))
    _frame(axes, "", f"share of {named[1]} in the bin")
    _frame(below, f"probability of {named[1]}", "pictures")
    bins = calibration(labels, probabilities)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="perfect")
    axes.plot(bins.probability, bins.share, color=BLUE, linewidth=2, marker="o", markersize=6, label=part)
    _legend(axes, "upper left")
    axes.set(yticks=_SHARES, ylim=_UNIT)
    axes.tick_params(labelbottom=False)
    below.hist(probabilities, bins=10, range=(0, 1), color=BLUE, edgecolor="white")
    below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    for each in (axes, below):
        each.set(xticks=_SHARES, xlim=_UNIT)
    return _png(figure, title, f"calibration, expected calibration error {bins.error:.4f}")


def _mistakes(
    title: str,
    labels: Array,
    probabilities: Array,
    threshold: float,
    *,
    names: Sequence[str],
    pixels: Array,
    named: Sequence[str],
) -> bytes:
    """Most confident first: by the probability that the wrong class was given."""
    wrong = np.flatnonzero(predicted(probabilities, threshold) != labels)
    confidence = np.where(labels[wrong] == 1, 1 - probabilities[wrong], probabilities[wrong])
    shown = wrong[np.argsort(-confidence, kind="stable")][:MOST_MISTAKES]
    columns = 4
    rows = max(1, math.ceil(len(shown) / columns))
    figure = Figure(figsize=(9, 0.8 + 2.75 * rows), dpi=DPI)
    axes = figure.add_axes((0.02, 0.0, 0.96, 1 - 0.75 / (0.8 + 2.75 * rows)))
    axes.set_axis_off()
    # One set of axes for the whole sheet: twelve of them would take as long as all other plots together. A picture is
    # 0.94 wide in a cell 1 wide and 1.25 high.
    for position, picture in enumerate(shown):
        row, column = divmod(position, columns)
        top = 1.25 * row
        axes.imshow(
            pixels[picture], cmap="gray", vmin=0, vmax=255, extent=(column, column + 0.94, top + 0.94, top), zorder=2
        )
        truth = int(labels[picture])
        name = axes.text(
            column, top + 0.96, _text(names[picture].rsplit("/", 1)[-1], 27), fontsize=9, va="top", parse_math=False
        )
        name.set_clip_box(TransformedBbox(Bbox([[column, top], [column + 0.97, top + 1.25]]), axes.transData))
        name.set_clip_on(True)
        line = f"true {named[truth]}, p = {probabilities[picture]:.3f}"
        axes.text(column, top + 1.055, line, fontsize=9, va="top", color=ORANGE if truth else BLUE)
    axes.set_xlim(0, columns - 0.06)
    axes.set_ylim(1.25 * rows, 0)
    if not len(shown):
        _say(axes, "No mistakes at this threshold")
    figures = f"{len(wrong):,} of {len(labels):,} wrong at threshold {threshold:.3f}"
    if len(shown):
        figures += "" if len(wrong) == len(shown) else f"; the {len(shown)} most confident mistakes"
        figures += f"; p is the probability of {named[1]}"
    return _png(figure, title, figures, left=0.02)


def _styled(curves: Mapping[str, Array]) -> Iterator[tuple[str, Array, dict[str, Any]]]:
    """Name, probabilities and line: the first in colour and on top of the others."""
    for place, (name, probabilities) in enumerate(curves.items()):
        yield name, probabilities, {"color": GREY if place else BLUE, "linewidth": 2, "zorder": 2 - place / 10}


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    """Axes from 0 to 1 both ways."""
    figure = Figure(figsize=(5.6, 5.6), dpi=DPI)
    axes = figure.add_axes((0.13, 0.11, 0.83, 0.74))
    _frame(axes, x, y)
    axes.set(xticks=_SHARES, yticks=_SHARES, xlim=_UNIT, ylim=_UNIT)
    return figure, axes


def _frame(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=10.5)
    axes.set_ylabel(y, fontsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=10)


def _legend(axes: Axes, place: Literal["lower left", "lower right", "upper left"]) -> None:
    axes.legend(loc=place, fontsize=10, edgecolor="none", framealpha=0.85)


def _mark(axes: Axes, point: tuple[float, float], threshold: float) -> None:
    axes.plot(
        *point, color=ORANGE, marker="o", markersize=8, linestyle="none", label=f"threshold {threshold:.3f}", zorder=5
    )


def _say(axes: Axes, sentence: str) -> None:
    axes.text(0.5, 0.5, sentence, transform=axes.transAxes, ha="center", va="center", fontsize=12)


def _title(title: str, phantom: bool) -> str:
    return _text(title, 44) + (" (phantoms)" if phantom else "")


def _text(text: str, most: int) -> str:
    """A name as it can be drawn: what does not print as a question mark, a long one shortened in its middle."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-(most - half - 1) :]}"


def _png(figure: Figure, title: str, figures: str, left: float = 0.05) -> bytes:
    """The figure with two lines on top: the trial, and the figure that matters."""
    height = figure.get_figheight()
    figure.text(left, 1 - 0.12 / height, title, fontsize=12, fontweight="bold", va="top", parse_math=False)
    figure.text(left, 1 - 0.4 / height, figures, fontsize=11, va="top")
    out = io.BytesIO()
    with warnings.catch_warnings():
        # A file's name may hold letters that the font lacks; they show as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(out, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    return out.getvalue()
