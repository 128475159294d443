"""The contents of PneumoniaMNIST's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def arrays(n: int = 8, size: int = 28, colour: bool = False) -> dict[str, Any]:
    """Return the file's six arrays: `n` pictures of noise in each part, every second one of class 1."""
    rng = np.random.default_rng(0)
    contents: dict[str, Any] = {}
    for part in ("train", "val", "test"):
        shape = (n, size, size, 3) if colour else (n, size, size)
        contents[f"{part}_images"] = rng.integers(0, 256, shape, np.uint8)
        contents[f"{part}_labels"] = (np.arange(n, dtype=np.uint8) % 2)[:, None]
    return contents


def save_arrays(path: Path, made: dict[str, Any]) -> Path:
    np.savez_compressed(path, **made)
    return path
