"""Draw all plots of a trial, as PNG."""

from __future__ import annotations

from pneumo.evidence.attention_plot import attention_plot
from pneumo.evidence.causes import figures_by_cause
from pneumo.evidence.causes_plot import causes_plot
from pneumo.evidence.drawing import plot_title, printable
from pneumo.evidence.plots import learning_curves, picture_plots
from pneumo.evidence.stress import judge
from pneumo.evidence.stress_plot import stress_plot
from pneumo.evidence.threshold_plots import Scores, score_plot, threshold_plot
from pneumo.evidence.trial_values import TrialValues


def trial_plots(values: TrialValues) -> dict[str, bytes]:
    """Return the plots of a trial as PNG by file name: those that `values.plots` names.

    Raises:
        ValueError: The lengths of the values differ.
    """
    title, classes = plot_title(values.title, values.phantom), [printable(name, 20) for name in values.classes]
    pixels = dict(zip(values.shown.tolist(), values.pixels, strict=True))
    stress = judge(values.stress) if values.stress else None
    scores = {"plain": Scores(values.labels, values.probabilities, values.threshold)}
    if values.stress and stress:
        scores["stressed"] = Scores(*values.stress.pooled, stress.threshold)
    plots = {
        "learning_curves.png": learning_curves(title, values.history, values.best_epoch),
        **picture_plots(
            title=values.title,
            labels=values.labels,
            probabilities=values.probabilities,
            names=values.names,
            pixels=pixels,
            threshold=values.threshold,
            phantom=values.phantom,
            classes=values.classes,
        ),
        "scores.png": score_plot(title, scores["plain"], classes),
        "threshold.png": threshold_plot(title, scores, classes),
    }
    if stress:
        plots["stress.png"] = stress_plot(values.title, stress, phantom=values.phantom)
    if values.heat_maps and not values.heat_maps.missing:
        plots["gradcam.png"] = attention_plot(title, values, pixels, classes)
    if any(values.causes):
        figures = figures_by_cause(
            values.labels, values.probabilities, values.threshold, values.causes, values.patients
        )
        plots["causes.png"] = causes_plot(title, figures, values.threshold, classes)
    return plots
