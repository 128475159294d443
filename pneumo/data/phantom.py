"""Generated chest phantoms: for a first look, for tests and for benchmarks, where no real pictures are at hand.

They are not real pictures and nothing medical can be learned from them. A phantom is a frontal view: body, two lung
fields, spine, heart, diaphragm, collar bones and ribs, laid over each other as shadows are. Anatomy is drawn for each
patient, posture, exposure and noise for each picture, so that the one to four pictures of a patient look alike. Pneumonia
is one to three soft opacities in the lungs, of any size from a spot to most of a lobe, some too faint to be found; vessels,
heart and breast shadows of both classes are as bright as many of them. So no network finds all of them, and a
better one finds more.

A phantom follows from seed, patient, picture and size alone, on every machine: the arithmetic is addition, multiplication,
division and square root of single elements, which IEEE 754 fixes to the bit, and no `exp`, `sin`, sums or matrix
products, which differ from one processor to the next.

Every fifth patient is a test patient. Four in seven have pneumonia.
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

from pneumo.data.pictures import Picture, Source, content_digest, patient_of
from pneumo.spec.experiment import DataSpec
from pneumo.spec.result import CLASSES

DRAWING = 1
"""Version of the drawing; a change of pixels wants a new one."""

Plane = NDArray[np.floating[Any]]
"""One value for each pixel: float32 (size, size), which the types of NumPy cannot follow through Python's floats."""


def open_phantoms(spec: DataSpec, _: Path) -> Source:
    """Return the phantoms that `spec.phantom` describes. Each is drawn when it is read."""
    patients, size, seed = spec.phantom.patients, spec.phantom.size, spec.phantom.seed
    pictures = np.random.default_rng([seed, 0]).integers(1, 5, patients)
    listed = [
        _picture(patient, number, size, seed)
        for patient in range(patients)
        for number in range(1, int(pictures[patient]) + 1)
    ]
    listed.sort(key=lambda picture: picture.name)

    def read(picture: Picture) -> bytes:
        patient, number = picture.name.rsplit("phantom", 1)[1].removesuffix(".png").split("_")
        out = io.BytesIO()
        Image.fromarray(draw(int(patient), int(number), picture.label, size, seed)).save(out, "PNG", compress_level=1)
        return out.getvalue()

    return Source(
        kind="phantom",
        description=f"generated phantoms ({patients} patients, {size} pixels): not real pictures",
        pictures=tuple(picture for picture in listed if picture.name.startswith("train/")),
        sealed=tuple(picture for picture in listed if picture.name.startswith("test/")),
        read=read,
    )


def _picture(patient: int, number: int, size: int, seed: int) -> Picture:
    label = int(patient % 7 < 4)
    name = f"{'test' if patient % 5 == 4 else 'train'}/{CLASSES[label]}/phantom{patient:04d}_{number}.png"
    # The recipe stands for the content, so that a list of phantoms can be made without drawing them.
    recipe = f"phantom {DRAWING} seed {seed} size {size} {name}".encode()
    return Picture(name, label, patient_of(name), content_digest(zlib.crc32(recipe), size * size))


def draw(patient: int, number: int, label: int, size: int, seed: int) -> NDArray[np.uint8]:
    """Picture `number` (from 1) of a patient (from 0): 8-bit grey, uint8 (size, size)."""
    own = np.random.default_rng([seed, 1, patient])
    now = np.random.default_rng([seed, 2, patient, number])
    body = _anatomy(own)
    x, y = _posed(size, now)

    lungs = np.maximum(_lung(x, y, -1, body), _lung(x, y, 1, body))
    torso = _inside((x / body.width) ** 2 * (1.1 + 0.25 * y) + _power4((y - 0.35) / 1.5), 0.25)
    shade = 0.05 + 0.46 * torso - body.air * lungs
    shade += 0.12 * _inside(_ellipse(x, y + 1.05, 0.36, 0.26), 0.5)
    shade += 0.12 * _ridge((x - 0.02 * y) / 0.12) * torso * (0.8 + 0.2 * _wave(y / 0.15))
    shade += body.heart * _inside(_ellipse(x - body.apex, y - 0.22, body.heart_wide, body.heart_high, 0.35), 0.35)
    shade += 0.10 * _inside(_ellipse(x - 0.02, y + 0.28, 0.17, 0.36), 0.6)
    shade += 0.18 * _step((y - body.dome - 0.10 * x) / 0.30) * torso
    shade += _bones(x, y, body) * torso
    shade += _vessels(x, y, lungs, own)
    shade += body.breast * _inside(_ellipse(np.abs(x) - 0.44, y - body.breast_low, 0.34, 0.26), 0.9)
    shade += 0.04 * (_cloud(x, y, 9, own) + _cloud(x, y, 4, now)) * (0.3 + lungs)
    if label:
        shade += _opacities(x, y, own, now) * lungs
    return _exposed(shade, now)


@dataclass(frozen=True)
class _Anatomy:
    """What a patient's pictures share. Lengths in half pictures, brightness from 0 to 1."""

    width: float
    air: float
    lung_wide: float
    lung_high: float
    dome: float
    heart: float
    heart_wide: float
    heart_high: float
    apex: float
    rib_gap: float
    rib_tilt: float
    rib: float
    rib_start: float
    breast: float
    breast_low: float


def _anatomy(rng: np.random.Generator) -> _Anatomy:
    return _Anatomy(
        width=rng.uniform(0.84, 1.02),
        air=rng.uniform(0.28, 0.36),
        lung_wide=rng.uniform(0.29, 0.36),
        lung_high=rng.uniform(0.60, 0.74),
        dome=rng.uniform(0.42, 0.62),
        heart=rng.uniform(0.10, 0.18),
        heart_wide=rng.uniform(0.24, 0.36),
        heart_high=rng.uniform(0.28, 0.38),
        apex=rng.uniform(0.06, 0.16),
        rib_gap=rng.uniform(0.18, 0.25),
        rib_tilt=rng.uniform(0.10, 0.30),
        rib=rng.uniform(0.05, 0.10),
        rib_start=rng.uniform(0.0, 1.0),
        breast=rng.uniform(0.0, 0.08),
        breast_low=rng.uniform(0.25, 0.50),
    )


def _posed(size: int, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Coordinates of the pixels, -1 to 1 from left to right and from top to bottom, slightly shifted, turned and scaled."""
    shift_x, shift_y, turn = (rng.uniform(-0.06, 0.06) for _ in range(3))
    scale = rng.uniform(0.94, 1.08)
    line = ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)
    x, y = line[None, :], line[:, None]
    return x * scale + y * turn + shift_x, y * scale - x * turn + shift_y


def _lung(x: Plane, y: Plane, side: int, body: _Anatomy) -> Plane:
    """A lung field: narrow above, wide below, cut off by the diaphragm."""
    middle = 0.40 + 0.10 * y
    wide = body.lung_wide * (1 + 0.30 * y)
    field = _inside(((x * side - middle) / wide) ** 2 + _power4((y + 0.08) / body.lung_high), 0.30)
    dome = body.dome + 0.03 * side + 0.45 * (x * side - 0.36) ** 2
    return field * _step((dome - y) / 0.10)


def _bones(x: Plane, y: Plane, body: _Anatomy) -> Plane:
    """Ribs behind, falling to the sides, fainter ribs in front, falling to the middle, and the collar bones."""
    aside = np.abs(x)
    back = (y - body.rib_tilt * aside - 0.60 * aside * aside) / body.rib_gap + body.rib_start
    front = (y + 0.75 * aside - 0.30) / (1.5 * body.rib_gap) + body.rib_start
    cage = _inside((x / (0.84 * body.width)) ** 2 + _power4((y - 0.05) / 0.95), 0.2)
    ribs = _rib(back) * _step((aside - 0.06) / 0.10) + 0.35 * _rib(front) * _step((aside - 0.35) / 0.25)
    collar = _ridge((y + 0.66 + 0.30 * aside - 0.22 * aside * aside) / 0.045) * _step((aside - 0.10) / 0.08)
    return body.rib * cage * ribs + 0.10 * collar


def _vessels(x: Plane, y: Plane, lungs: Plane, rng: np.random.Generator) -> Plane:
    """The roots of the lungs, and vessels that spread from them: bright, of both classes, and in the way."""
    strength, grain = rng.uniform(0.04, 0.10), rng.uniform(0.06, 0.14)
    root = _inside(_ellipse(np.abs(x) - 0.20, y + 0.02, 0.17, 0.30), 1.0)
    near = 1 / (1 + 6 * ((np.abs(x) - 0.15) ** 2 + 0.6 * y * y))
    twigs = _cloud(x, y, 14, rng) * _cloud(x, y, 26, rng)
    return strength * root + grain * near * lungs * (twigs + 0.35 * _cloud(x, y, 18, rng))


def _opacities(x: Plane, y: Plane, own: np.random.Generator, now: np.random.Generator) -> Plane:
    """One to three soft, ragged spots in the lungs; the same in each picture of a patient, a little fainter or stronger."""
    shadow = np.zeros_like(x)
    course = now.uniform(0.8, 1.2)
    ragged = 0.55 + 0.45 * _cloud(x, y, 12, own)
    for _ in range(own.integers(1, 4)):
        side = 2 * int(own.integers(0, 2)) - 1
        middle_x, middle_y = side * own.uniform(0.22, 0.58), own.uniform(-0.40, 0.48)
        radius, stretch = own.uniform(0.12, 0.36), own.uniform(0.7, 1.4)
        contrast = 0.12 + 0.38 * own.uniform()
        away = _ellipse(x - middle_x, y - middle_y, radius * stretch, radius / stretch, own.uniform(-0.4, 0.4))
        shadow += contrast * course / (1 + away * away)
    return shadow * ragged


def _exposed(shade: Plane, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Brightness, contrast, a side that got more of the rays, and the film's grain; rounded to 8 bits."""
    gain, lift, slope, grain = rng.uniform(0.9, 1.15), rng.uniform(-0.04, 0.05), rng.uniform(-0.04, 0.04), rng.uniform()
    # Four uniform values, added one by one: close to a normal distribution.
    noise = rng.random((4, *shade.shape), np.float32)
    film = (noise[0] + noise[1]) + (noise[2] + noise[3]) - 2
    light = shade * gain + lift + slope * np.linspace(-1, 1, shade.shape[1], dtype=np.float32)
    light += (0.02 + 0.04 * grain) * film
    grey: NDArray[np.uint8] = np.rint(np.clip(light, 0, 1) * 255).astype(np.uint8)
    return grey


def _cloud(x: Plane, y: Plane, cells: int, rng: np.random.Generator) -> Plane:
    """Smooth noise from -1 to 1: random values on a grid of so many cells a side, joined by smooth steps.

    It follows the picture's shift and scale and not its slight turn, so that rows and columns can be joined in turn.
    """
    grid = rng.uniform(-1, 1, (cells + 2, cells + 2)).astype(np.float32)
    across, right = _cell(x[x.shape[0] // 2], cells)
    down, below = _cell(y[:, y.shape[1] // 2], cells)
    rows = grid[:, across] + right * (grid[:, across + 1] - grid[:, across])
    return rows[down] + below[:, None] * (rows[down + 1] - rows[down])


def _cell(position: Plane, cells: int) -> tuple[NDArray[np.intp], Plane]:
    """The grid's cell that each position lies in, and how far in it, 0 to 1."""
    scaled = np.clip((position + 1.2) * (cells / 2.4), 0, cells)
    cell = scaled.astype(np.intp)
    return cell, _step((scaled - cell).astype(np.float32))


def _inside(distance: Plane, soft: float) -> Plane:
    """1 where `distance` is well below 1, 0 where it is well above."""
    return _step((1 + soft / 2 - distance) / soft)


def _ellipse(x: Plane, y: Plane, wide: float, high: float, lean: float = 0.0) -> Plane:
    """Squared distance from the middle, 1 on the ellipse; `lean` shears it."""
    return ((x - lean * y) / wide) ** 2 + (y / high) ** 2


def _step(value: Plane) -> Plane:
    """0 below 0, 1 above 1, smooth between."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def _ridge(value: Plane) -> Plane:
    """1 at 0, falling to both sides, a half at -1 and 1."""
    return 1 / (1 + _power4(value))


def _power4(value: Plane) -> Plane:
    square = value * value
    return square * square


def _wave(phase: Plane) -> Plane:
    """-1 to 1 and back, once for each whole number, smooth."""
    return 2 * _step(_across(phase)) - 1


def _rib(phase: Plane) -> Plane:
    """A rib's shadow across it: bright edges, less bright between, nothing in the gap."""
    across = _across(phase)
    return _step((0.60 - across) * 4) * (0.65 + 0.6 * across)


def _across(phase: Plane) -> Plane:
    """1 on whole numbers, 0 between them."""
    across: Plane = np.abs(phase - np.floor(phase) - 0.5) * 2
    return across
