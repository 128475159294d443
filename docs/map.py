"""Draw docs/architecture.svg: the folders of pneumo in their layers, and who imports whom.

    python docs/map.py > docs/architecture.svg

The layers are those of the import contract in pyproject.toml; the arrows are the imports that the code has.
"""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pneumo"

WIDTH = 960
BOX_HEIGHT = 56
LAYER_HEIGHT = 130
MARGIN = 20
LABEL_WIDTH = 90

TITLES = ("verbs", "one trial", "folders", "values")
"""What the layers are, from the top down."""

COLORS = ("#3949ab", "#00897b", "#d81b60", "#ef6c00", "#6d4c41", "#546e7a", "#7cb342")
"""One for each folder that has arrows, in turn."""

OUTSIDE = {
    "engines": "Optuna, KerasTuner",
    "cnn": "TensorFlow, Keras",
    "tracking": "MLflow",
    "evidence": "matplotlib, plotly.js",
    "data": "Pillow, pydicom",
    "console": "typer, rich",
    "compute": "multiprocessing",
    "spec": "pydantic",
}
"""The libraries that a folder is there for."""


def layers() -> list[list[str]]:
    """Return the folders of each layer, from the top down, as the import contract lists them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [contract] = [contract for contract in contracts if contract["type"] == "layers"]
    listed = [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]
    folders = [[name for name in layer if (PACKAGE / name).is_dir()] for layer in listed]
    return [layer for layer in folders if layer]


def imports() -> dict[str, set[str]]:
    """Return the folders that each folder of pneumo imports, itself left out."""
    known = {name for layer in layers() for name in layer}
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        folder = path.relative_to(PACKAGE).parts[0]
        # python -m pneumo.data is a verb, in the folder of what it is about.
        if folder not in known or path == PACKAGE / "data" / "__main__.py":
            continue
        found[folder] |= {name for name in _imported(path) if name in known and name != folder}
    return found


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            package, _, rest = module.partition(".")
            if package == "pneumo" and rest:
                yield rest.split(".")[0]


def draw() -> str:
    """Return the picture as SVG."""
    rows, arrows = layers(), imports()
    height = LAYER_HEIGHT * len(rows)
    place = {name: box for row, layer in enumerate(rows) for name, box in _boxes(row, layer)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="Helvetica, Arial, sans-serif" font-size="15">',
        "<title>The folders of pneumo in their layers, and who imports whom</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for row, title in enumerate(TITLES):
        top = row * LAYER_HEIGHT
        parts.append(
            f'<rect x="0" y="{top + 10}" width="{WIDTH}" height="{LAYER_HEIGHT - 34}" rx="6" fill="#f2f3f9"/>'
            f'<text x="{MARGIN - 6}" y="{top + LAYER_HEIGHT / 2 - 2:.0f}" fill="#555" font-size="13">{title}</text>'
        )
    importers = sorted((name for layer in rows[:-2] for name in layer), key=lambda name: place[name])
    for number, importer in enumerate(importers):
        # Arrows end beside each other, in the order of the folders that they come from.
        share = (number + 1) / (len(importers) + 1)
        for imported in sorted(arrows[importer] - set(rows[-1])):
            parts.append(_arrow(place[importer], place[imported], share, COLORS[number % len(COLORS)]))
    x, y, width = place[rows[-1][0]]
    parts.append(
        f'<text x="{x + width + 20:.0f}" y="{y + 33:.0f}" fill="#555" font-size="13">every folder above imports it</text>'
    )
    for name, (x, y, width) in place.items():
        middle, library = x + width / 2, OUTSIDE.get(name)
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="5" fill="#fff" stroke="#3f51b5"/>'
            f'<text x="{middle:.0f}" y="{y + (25 if library else 34):.0f}" text-anchor="middle" fill="#111">{name}</text>'
        )
        if library:
            parts.append(
                f'<text x="{middle:.0f}" y="{y + 44:.0f}" text-anchor="middle" fill="#555" font-size="11">{library}</text>'
            )
    return "\n".join([*parts, "</svg>\n"])


def _boxes(row: int, layer: list[str]) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Yield the place of each folder of a layer: left, top and width of its box."""
    room = WIDTH - LABEL_WIDTH - MARGIN
    share = room / len(layer)
    width = min(share - 8, 150)
    for column, name in enumerate(layer):
        # A layer of one folder stands at the left, where fewer arrows pass behind it.
        left = 8 if len(layer) == 1 else share * column + (share - width) / 2
        yield name, (LABEL_WIDTH + left, row * LAYER_HEIGHT + 30, width)


def _arrow(importer: tuple[float, float, float], imported: tuple[float, float, float], share: float, color: str) -> str:
    (x1, y1, w1), (x2, y2, w2) = importer, imported
    begin, end = x1 + w1 / 2, x2 + w2 * share
    top, bottom = y1 + BOX_HEIGHT, y2 - 8
    bend = (bottom - top) / 2
    return (
        f'<path d="M{begin:.0f} {top:.0f}C{begin:.0f} {top + bend:.0f} {end:.0f} {bottom - bend:.0f} {end:.0f} {bottom:.0f}"'
        f' fill="none" stroke="{color}" stroke-opacity="0.7"/>'
        f'<path d="M{end - 4:.0f} {bottom - 1:.0f}h8l-4 8z" fill="{color}"/>'
    )


if __name__ == "__main__":
    print(draw(), end="")
