"""Figures of a report, as plotly.js takes them, and numbers as text.

A figure is a plain mapping: Plotly's Python package is not needed to write one. The colours are of middle lightness, so that
they can be told apart on a light and on a dark page; texts and lines of a figure take their colours from the page's style.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pneumo.spec.hyperparameters import Value
from pneumo.spec.result import Trial
from pneumo.spec.wording import format_hyperparameter, format_value

Figure = dict[str, Any]

# After Okabe and Ito's palette, which colour-blind readers can distinguish (Color Universal Design, 2008).
BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY = "#1f83c4", "#dd6b10", "#0f9d75", "#b86aa0", "#c99700", "#4aa8d8"
GREY = "#8b919a"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY)
STATE_COLOURS = {"complete": BLUE, "pruned": YELLOW, "failed": ORANGE}
STATE_SYMBOLS = {"complete": "circle", "pruned": "x-thin-open", "failed": "triangle-up-open"}

_LOG_AXIS_RATIO = 30.0
"""Smallest ratio of the largest to the smallest value for which an axis is logarithmic."""


def make_figure(data: Sequence[Mapping[str, Any]], height: int, **layout: Any) -> Figure:
    """Return a figure.

    Args:
        data: Plotly's traces.
        height: Height in pixels. The width is that of the page.
        layout: Plotly's layout, beyond what all figures share.
    """
    shared: dict[str, Any] = {
        "autosize": True,
        "height": height,
        "margin": {"l": 56, "r": 14, "t": 12, "b": 46},
        "font": {"size": 12, "family": "system-ui, sans-serif"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
    }
    return {"data": list(data), "layout": shared | layout}


def make_axis(title: str, **settings: Any) -> dict[str, Any]:
    """Return an axis with a title."""
    shared = {"title": {"text": title, "standoff": 8}, "zeroline": False, "automargin": True, "nticks": 7}
    shared["exponentformat"] = "e"  # by default, 0.0001 is written as 100 with the prefix micro
    return shared | settings


def scale_settings(values: Sequence[float]) -> dict[str, Any]:
    """Return Plotly's settings of an axis for at least one value: logarithmic if the values are far apart."""
    low, high = min(values), max(values)
    return {"type": "linear"} if low <= 0 or high / low < _LOG_AXIS_RATIO else log_settings(values)


def log_settings(values: Sequence[float]) -> dict[str, Any]:
    """Return Plotly's settings of a logarithmic axis for at least one value. All values are positive."""
    low, high = min(values), max(values)
    # Plotly labels its own ticks between powers of ten with their first digit only, as 2 for 20k.
    steps = (1, 2, 5) if high / low < 300 else (1, 3) if high / low < 3000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{step}e{power}") for power in powers for step in steps]
    if sum(low <= tick <= high for tick in ticks) < 2:
        ticks = [float(f"{value:.2g}") for value in (low, high)]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,g}" for tick in ticks]}


def whole_ticks(last: float) -> dict[str, Any]:
    """Return the settings of an axis from 0 or 1 to `last` with about eight ticks, all at whole numbers."""
    step = max(1, math.ceil(last / 8))
    magnitude = 10 ** (len(str(step)) - 1)
    return {"dtick": math.ceil(step / magnitude) * magnitude}


def format_number(value: object) -> str:
    """Return a cell of a table: nothing for None, four digits of a fraction, commas in a large number."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4f}" if 0.1 <= abs(value) < 1 else f"{value:.4g}"


def format_seconds(seconds: float) -> str:
    """Return a duration as `2 h 05 min`, `3 min 20 s` or `12 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min"


def hover_text(trial: Trial, value: float | None, names: Sequence[str] | None = None) -> str:
    """Return what the page shows of a trial under the pointer: number, value, searched hyperparameters."""
    values: Mapping[str, Value] = trial.candidate.hyperparameters
    shown = [name for name in values if name in (trial.candidate.searched if names is None else names)]
    lines = [f"trial {trial.number}" + (f": {format_value(value)}" if value is not None else f", {trial.result.state}")]
    # Plotly reads some HTML in a text, and values of hyperparameters have none.
    return "<br>".join([*lines, *(f"{name} {format_hyperparameter(values[name])}" for name in shown)])
