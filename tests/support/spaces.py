"""Random spaces for hypothesis, as `hyperparameters` blocks of an experiment."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pneumo.spec.algorithms import Algorithm


@st.composite
def blocks(draw: st.DrawFn, capabilities: Algorithm) -> dict[str, Any]:
    """Draw a block that an algorithm supports: ranges with and without step and log, choices, nested conditions."""
    block: dict[str, Any] = {
        "layers": draw(_integer_range(1, 4)),
        "dense_units": draw(_integer_range(1, 300)),
        "image_size": 256,
    }
    block["learning_rate"] = draw(_float_range(1e-6, 1.0, capabilities.ranges))
    if draw(st.booleans()):
        block["dropout"] = draw(_float_range(0.0, 0.9, capabilities.ranges))
    if not capabilities.choices:
        return block
    for name, values in _CHOICES.items():
        if draw(st.booleans()):
            block[name] = draw(st.lists(st.sampled_from(values), min_size=1, max_size=4, unique=True))
    if capabilities.conditions and draw(st.booleans()):
        block["optimizer"] = ["adam", "sgd", "rmsprop"]
        block["momentum"] = draw(_float_range(0.0, 0.9, capabilities.ranges)) | {
            "when": {"optimizer": draw(_any_of("sgd", "rmsprop"))}
        }
        block["weight_decay"] = draw(_float_range(0.0, 0.5, capabilities.ranges)) | {
            "when": {"optimizer": "adam", "batch_norm": True}
        }
        block["batch_norm"] = [False, True]
        # It is active only if its parent is, which has a condition itself.
        block["label_smoothing"] = {"values": [0.0, 0.1, 0.2], "when": {"schedule": "cosine"}}
        block["schedule"] = {"values": ["constant", "cosine"], "when": {"optimizer": ["sgd", "adam"]}}
    return block


_CHOICES: dict[str, list[Any]] = {
    "filters": [4, 8, 16, 32],
    "filter_growth": [0.5, 1.0, 1.5, 2.0],
    "batch_norm": [False, True],
    "activation": ["relu", "elu", "tanh", "gelu"],
    "zoom": [0.0, 0.1, 0.35],
    "channels": [1, 3],
}


def _any_of(*values: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, unique=True)


@st.composite
def _integer_range(draw: st.DrawFn, least: int, most: int) -> dict[str, Any]:
    low = draw(st.integers(least, most - 1))
    high = draw(st.integers(low + 1, most))
    match draw(st.sampled_from(["plain", "step", "log"])):
        case "step":
            return {"low": low, "high": high, "step": draw(st.integers(1, high - low))}
        case "log":
            return {"low": low, "high": high, "log": True}
    return {"low": low, "high": high}


@st.composite
def _float_range(draw: st.DrawFn, least: float, most: float, ranges: bool) -> dict[str, Any]:
    steps = draw(st.integers(2, 9))
    ends = sorted(draw(st.lists(st.integers(1, 9999), min_size=2, max_size=2, unique=True)))
    low, high = (round(least + (most - least) * end / 10_000, 6) for end in ends)
    if low == high:
        high = low + 1e-4
    kinds = ["plain", "step", "log"] if ranges else ["step"]
    match draw(st.sampled_from(kinds)):
        case "step":
            return {"low": low, "high": high, "step": max(round((high - low) / steps, 7), 1e-7)}
        case "log":
            return {"low": low, "high": high, "log": True}
    return {"low": low, "high": high}


TEN_SEARCHED: dict[str, object] = {
    "layers": [1, 2],
    "filters": [8, 16],
    "filter_growth": {"low": 1.0, "high": 1.5},
    "kernel_size": [3, 5],
    "dense_units": [8, 16],
    "dropout": {"low": 0.0, "high": 0.5},
    "learning_rate": {"low": 0.001, "high": 0.01, "log": True},
    "weight_decay": {"low": 0.0, "high": 0.001},
    "batch_size": [2, 4],
    "zoom": {"low": 0.0, "high": 0.3},
}
"""A space of ten hyperparameters, for small pictures."""
