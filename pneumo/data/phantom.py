"""Generated chest phantoms, for tests, for benchmarks and for a first try without real pictures.

They are not real pictures, and nothing medical can be learned from them. A phantom is a frontal view: body, two lung fields,
spine, heart, diaphragm, collar bones and ribs, added up as shadows are. The anatomy is random for each patient; posture,
exposure and noise are random for each picture. So the one to four pictures of a patient look alike. Pneumonia is one to three
soft opacities in the lungs, of any size from a spot to most of a lobe. Some are too faint to be found, and vessels, heart and
breast shadows of both classes are as bright as many of them. So no network finds all opacities, and a better one finds more.

A phantom depends only on seed, patient, picture number and size, and is the same on every machine. The arithmetic is addition,
multiplication, division and square root of single elements, which IEEE 754 defines to the bit. `exp`, `sin`, sums and matrix
products are not used, because their results differ between processors.

Every fifth patient is a test patient. Four in seven patients have pneumonia.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo.data.pictures import Picture, Source, content_digest
from pneumo.spec.experiment import DataSpec
from pneumo.spec.result import CLASSES

DRAWING = 1
"""Version of the drawing. Increase it when the pixels change."""

Plane = NDArray[np.floating[Any]]
"""One value for each pixel, float32 (size, size). NumPy's types cannot infer float32 from operations with Python's floats."""


def open_phantoms(spec: DataSpec, _: Path) -> Source:
    """Return the phantoms that `spec.phantom` describes. Each is drawn when it is read."""
    patients, size, seed = spec.phantom.patients, spec.phantom.size, spec.phantom.seed
    picture_counts = np.random.default_rng([seed, 0]).integers(1, 5, patients)
    pictures = [
        _picture(patient, number, size, seed)
        for patient in range(patients)
        for number in range(1, int(picture_counts[patient]) + 1)
    ]
    pictures.sort(key=lambda picture: picture.name)

    def read(picture: Picture) -> bytes:
        patient, number = picture.name.rsplit("phantom", 1)[1].removesuffix(".png").split("_")
        out = io.BytesIO()
        Image.fromarray(draw(int(patient), int(number), picture.label, size, seed)).save(out, "PNG", compress_level=1)
        return out.getvalue()

    return Source(
        kind="phantom",
        description=f"generated phantoms ({patients} patients, {size} pixels): not real pictures",
        pictures=tuple(picture for picture in pictures if picture.name.startswith("train/")),
        sealed=tuple(picture for picture in pictures if picture.name.startswith("test/")),
        read=read,
    )


def _picture(patient: int, number: int, size: int, seed: int) -> Picture:
    label = int(patient % 7 < 4)
    name = f"{'test' if patient % 5 == 4 else 'train'}/{CLASSES[label]}/phantom{patient:04d}_{number}.png"
    # The digest is that of the recipe, so that phantoms can be listed without drawing them.
    recipe = f"phantom {DRAWING} seed {seed} size {size} {name}".encode()
    digest = content_digest(zlib.crc32(recipe), size * size)
    return Picture(name, label, f"phantom{patient:04d}", digest, known_by="the generator")


def draw(patient: int, number: int, label: int, size: int, seed: int) -> NDArray[np.uint8]:
    """Draw picture `number` (from 1) of a patient (from 0) as 8-bit grey, uint8 (size, size)."""
    patient_rng = np.random.default_rng([seed, 1, patient])
    picture_rng = np.random.default_rng([seed, 2, patient, number])
    # The order of the calls matters: each takes random numbers from one of the two generators.
    body = _random_anatomy(patient_rng)
    x, y = _pixel_coordinates(size, picture_rng)

    lungs = np.maximum(_lung(x, y, -1, body), _lung(x, y, 1, body))
    torso = _inside((x / body.width) ** 2 * (1.1 + 0.25 * y) + _power4((y - 0.35) / 1.5), 0.25)
    shade = 0.05 + 0.46 * torso - body.air * lungs
    shade += 0.12 * _inside(_ellipse(x, y + 1.05, 0.36, 0.26), 0.5)  # neck
    shade += 0.12 * _ridge((x - 0.02 * y) / 0.12) * torso * (0.8 + 0.2 * _wave(y / 0.15))  # spine
    shade += body.heart * _inside(_ellipse(x - body.apex, y - 0.22, body.heart_width, body.heart_height, 0.35), 0.35)
    shade += 0.10 * _inside(_ellipse(x - 0.02, y + 0.28, 0.17, 0.36), 0.6)  # mediastinum
    shade += 0.18 * _step((y - body.dome - 0.10 * x) / 0.30) * torso  # below the diaphragm
    shade += _bones(x, y, body) * torso
    shade += _vessels(x, y, lungs, patient_rng)
    shade += body.breast * _inside(_ellipse(np.abs(x) - 0.44, y - body.breast_y, 0.34, 0.26), 0.9)
    shade += 0.04 * (_cloud(x, y, 9, patient_rng) + _cloud(x, y, 4, picture_rng)) * (0.3 + lungs)
    if label:
        shade += _opacities(x, y, patient_rng, picture_rng) * lungs
    return _expose(shade, picture_rng)


@dataclass(frozen=True)
class _Anatomy:
    """The anatomy that a patient's pictures share. Lengths are in half pictures, brightness is from 0 to 1."""

    width: float
    air: float
    lung_width: float
    lung_height: float
    dome: float
    heart: float
    heart_width: float
    heart_height: float
    apex: float
    rib_gap: float
    rib_tilt: float
    rib: float
    rib_start: float
    breast: float
    breast_y: float


def _random_anatomy(rng: np.random.Generator) -> _Anatomy:
    return _Anatomy(
        width=rng.uniform(0.84, 1.02),
        air=rng.uniform(0.28, 0.36),
        lung_width=rng.uniform(0.29, 0.36),
        lung_height=rng.uniform(0.60, 0.74),
        dome=rng.uniform(0.42, 0.62),
        heart=rng.uniform(0.10, 0.18),
        heart_width=rng.uniform(0.24, 0.36),
        heart_height=rng.uniform(0.28, 0.38),
        apex=rng.uniform(0.06, 0.16),
        rib_gap=rng.uniform(0.18, 0.25),
        rib_tilt=rng.uniform(0.10, 0.30),
        rib=rng.uniform(0.05, 0.10),
        rib_start=rng.uniform(0.0, 1.0),
        breast=rng.uniform(0.0, 0.08),
        breast_y=rng.uniform(0.25, 0.50),
    )


def _pixel_coordinates(size: int, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Return x and y of the pixels, -1 to 1 from left to right and from top to bottom, at random shift, turn and scale."""
    shift_x, shift_y, turn = (rng.uniform(-0.06, 0.06) for _ in range(3))
    scale = rng.uniform(0.94, 1.08)
    line = ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)
    x, y = line[None, :], line[:, None]
    return x * scale + y * turn + shift_x, y * scale - x * turn + shift_y


def _lung(x: Plane, y: Plane, side: int, body: _Anatomy) -> Plane:
    """Draw a lung field: narrow at the top, wide at the bottom, bounded by the diaphragm. `side` is -1 or 1."""
    middle = 0.40 + 0.10 * y
    width = body.lung_width * (1 + 0.30 * y)
    field = _inside(((x * side - middle) / width) ** 2 + _power4((y + 0.08) / body.lung_height), 0.30)
    dome = body.dome + 0.03 * side + 0.45 * (x * side - 0.36) ** 2
    return field * _step((dome - y) / 0.10)


def _bones(x: Plane, y: Plane, body: _Anatomy) -> Plane:
    """Draw the back ribs, which fall to the sides, the fainter front ribs, which fall to the middle, and the collar bones."""
    from_middle = np.abs(x)
    back = (y - body.rib_tilt * from_middle - 0.60 * from_middle * from_middle) / body.rib_gap + body.rib_start
    front = (y + 0.75 * from_middle - 0.30) / (1.5 * body.rib_gap) + body.rib_start
    cage = _inside((x / (0.84 * body.width)) ** 2 + _power4((y - 0.05) / 0.95), 0.2)
    ribs = _rib(back) * _step((from_middle - 0.06) / 0.10) + 0.35 * _rib(front) * _step((from_middle - 0.35) / 0.25)
    collar_line = y + 0.66 + 0.30 * from_middle - 0.22 * from_middle * from_middle
    collar = _ridge(collar_line / 0.045) * _step((from_middle - 0.10) / 0.08)
    return body.rib * cage * ribs + 0.10 * collar


def _vessels(x: Plane, y: Plane, lungs: Plane, rng: np.random.Generator) -> Plane:
    """Draw the roots of the lungs and the vessels that spread from them, which hide opacities in both classes."""
    strength, contrast = rng.uniform(0.04, 0.10), rng.uniform(0.06, 0.14)
    root = _inside(_ellipse(np.abs(x) - 0.20, y + 0.02, 0.17, 0.30), 1.0)
    near = 1 / (1 + 6 * ((np.abs(x) - 0.15) ** 2 + 0.6 * y * y))
    twigs = _cloud(x, y, 14, rng) * _cloud(x, y, 26, rng)
    return strength * root + contrast * near * lungs * (twigs + 0.35 * _cloud(x, y, 18, rng))


def _opacities(x: Plane, y: Plane, patient_rng: np.random.Generator, picture_rng: np.random.Generator) -> Plane:
    """Draw one to three soft, ragged spots. A patient's pictures have the same ones, slightly fainter or stronger."""
    shadow = np.zeros_like(x)
    strength = picture_rng.uniform(0.8, 1.2)
    ragged = 0.55 + 0.45 * _cloud(x, y, 12, patient_rng)
    for _ in range(patient_rng.integers(1, 4)):
        side = 2 * int(patient_rng.integers(0, 2)) - 1
        middle_x, middle_y = side * patient_rng.uniform(0.22, 0.58), patient_rng.uniform(-0.40, 0.48)
        radius, stretch = patient_rng.uniform(0.12, 0.36), patient_rng.uniform(0.7, 1.4)
        contrast = 0.12 + 0.38 * patient_rng.uniform()
        distance = _ellipse(
            x - middle_x, y - middle_y, radius * stretch, radius / stretch, patient_rng.uniform(-0.4, 0.4)
        )
        shadow += contrast * strength / (1 + distance * distance)
    return shadow * ragged


def _expose(shade: Plane, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Apply contrast, brightness, a gradient from side to side and the film's grain, and round to 8 bits."""
    contrast, brightness = rng.uniform(0.9, 1.15), rng.uniform(-0.04, 0.05)
    gradient, grain = rng.uniform(-0.04, 0.04), rng.uniform()
    # The sum of four uniform values is close to a normal distribution.
    uniform = rng.random((4, *shade.shape), np.float32)
    noise = (uniform[0] + uniform[1]) + (uniform[2] + uniform[3]) - 2
    light = shade * contrast + brightness + gradient * np.linspace(-1, 1, shade.shape[1], dtype=np.float32)
    light += (0.02 + 0.04 * grain) * noise
    grey: NDArray[np.uint8] = np.rint(np.clip(light, 0, 1) * 255).astype(np.uint8)
    return grey


def _cloud(x: Plane, y: Plane, cells: int, rng: np.random.Generator) -> Plane:
    """Return smooth noise from -1 to 1: random values on a grid of `cells` per side, interpolated smoothly.

    It follows the picture's shift and scale but not its turn, so that columns and rows can be interpolated one after the other.
    """
    grid = rng.uniform(-1, 1, (cells + 2, cells + 2)).astype(np.float32)
    column, x_weight = _cell(x[x.shape[0] // 2], cells)
    row, y_weight = _cell(y[:, y.shape[1] // 2], cells)
    lines = grid[:, column] + x_weight * (grid[:, column + 1] - grid[:, column])
    return lines[row] + y_weight[:, None] * (lines[row + 1] - lines[row])


def _cell(position: Plane, cells: int) -> tuple[NDArray[np.intp], Plane]:
    """Return the grid cell of each position, and the weight of the next cell, 0 to 1."""
    scaled = np.clip((position + 1.2) * (cells / 2.4), 0, cells)
    cell = scaled.astype(np.intp)
    return cell, _step((scaled - cell).astype(np.float32))


def _inside(distance: Plane, softness: float) -> Plane:
    """Return 1 where `distance` is well below 1, 0 where it is well above, with a soft edge between."""
    return _step((1 + softness / 2 - distance) / softness)


def _ellipse(x: Plane, y: Plane, width: float, height: float, shear: float = 0.0) -> Plane:
    """Return the squared distance from the middle, scaled to 1 on the ellipse."""
    return ((x - shear * y) / width) ** 2 + (y / height) ** 2


def _step(value: Plane) -> Plane:
    """Return 0 below 0, 1 above 1, and a smooth step between."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def _ridge(value: Plane) -> Plane:
    """Return 1 at 0, falling to a half at -1 and 1 and further outside."""
    return 1 / (1 + _power4(value))


def _power4(value: Plane) -> Plane:
    square = value * value
    return square * square


def _wave(phase: Plane) -> Plane:
    """Return a smooth wave from -1 to 1 with period 1, which is 1 at whole numbers."""
    return 2 * _step(_triangle(phase)) - 1


def _rib(phase: Plane) -> Plane:
    """Return the brightness across a rib: bright edges, a darker middle, 0 in the gap between ribs."""
    triangle = _triangle(phase)
    return _step((0.60 - triangle) * 4) * (0.65 + 0.6 * triangle)


def _triangle(phase: Plane) -> Plane:
    """Return a triangle wave from 0 to 1 with period 1, which is 1 at whole numbers."""
    triangle: Plane = np.abs(phase - np.floor(phase) - 0.5) * 2
    return triangle
