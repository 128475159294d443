"""Copies of a picture: exact ones by content, near ones by what they look like.

Chest X-rays all look alike: thumbnails of two strangers correlate at up to 0.97, more than those of a picture and the same
picture shifted by 4 of 224 pixels (0.91). So only the middle frequencies count here, ribs and vessels and not the
body's outline: 0.08 to 0.25 cycles a pixel of a 64-pixel thumbnail, weighted by frequency, against the fall of a picture's
spectrum. In two steps: pairs whose amplitudes there correlate above 0.6, which a shift hardly changes, are then laid over
each other at the best shift of up to 4 pixels of 64; a near copy is what correlates at 0.8 or more.

Why 0.8: on the 5,216 pictures of the public archive's training folder the highest two patients reach is 0.74, while 150 of
them encoded again at JPEG quality 30 to 95, scaled to 50 or 90 %, with contrast 0.7, or shifted by 1 to 6 of 224 pixels and
brightened by 20 % all reach 0.85. A crop of 5 % reaches 0.70 and is not told from a stranger.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pneumo.data.archive import printable
from pneumo.data.audit.findings import Finding
from pneumo.data.pictures import Picture

CANDIDATE, NEAR, SHIFT = 0.6, 0.8, 4
BLANK = 4.0
"""Standard deviation of the grey values, of 255, below which a picture shows nothing."""

METHOD = (
    f"Near copies: thumbnails of 64 pixels, middle frequencies only, laid over each other at the best shift of up to "
    f"{SHIFT} pixels; a correlation of {NEAR} or more. In the public archive two patients reach 0.74 at most; copies encoded "
    f"again, scaled, brightened or shifted by up to 6 of 224 pixels reach 0.85 at least; crops of 5 % or more are not found."
)

_BLOCK = 512


def exact_groups(pictures: Sequence[Picture], contents: Sequence[str]) -> list[tuple[Picture, ...]]:
    """The pictures that are equal byte for byte, two or more to a group; an empty content counts as none."""
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture, content in zip(pictures, contents, strict=True):
        if content:
            groups[content].append(picture)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def near_pairs(thumbnails: NDArray[np.uint8], contrast: NDArray[np.float64]) -> list[tuple[int, int, float]]:
    """Pairs of rows (the smaller first) that look alike, and their correlation, of uint8 (n, 64, 64)."""
    rows = np.flatnonzero(contrast >= BLANK)
    if len(rows) < 2:
        return []
    spectra = _spectra(thumbnails[rows])
    amplitudes = np.sqrt(np.abs(spectra[:, _band() > 0]))
    amplitudes -= amplitudes.mean(axis=1, keepdims=True)
    amplitudes /= np.linalg.norm(amplitudes, axis=1, keepdims=True) + 1e-9
    pairs = []
    for start in range(0, len(rows), _BLOCK):
        one, other = np.nonzero(amplitudes[start : start + _BLOCK] @ amplitudes[start:].T > CANDIDATE)
        later = one < other
        pairs.append(np.stack([one[later], other[later]], axis=1) + start)
    found = []
    candidates = np.concatenate(pairs)
    for start in range(0, len(candidates), _BLOCK):
        one, other = candidates[start : start + _BLOCK].T
        alike = _alike(spectra[one], spectra[other])
        found += [
            (int(rows[a]), int(rows[b]), float(c)) for a, b, c in zip(one, other, alike, strict=True) if c >= NEAR
        ]
    return found


def _band() -> NDArray[np.float32]:
    size = 64
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    return np.where((frequency > 0.08) & (frequency < 0.25), frequency, 0).astype(np.float32)


def _spectra(thumbnails: NDArray[np.uint8]) -> NDArray[np.complex64]:
    window = np.outer(np.hanning(64), np.hanning(64)).astype(np.float32)
    grey = thumbnails.astype(np.float32)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    return (np.fft.rfft2(grey * window) * _band()).astype(np.complex64)


def _alike(one: NDArray[np.complex64], other: NDArray[np.complex64]) -> NDArray[np.float64]:
    """Correlation at the best shift, of spectra (n, 64, 33)."""
    near = np.r_[-SHIFT : SHIFT + 1]
    crossed = np.fft.irfft2(one * np.conj(other), s=(64, 64))[:, near][:, :, near]
    norms = [np.sqrt((np.fft.irfft2(each, s=(64, 64)) ** 2).sum(axis=(1, 2))) for each in (one, other)]
    best: NDArray[np.float64] = crossed.max(axis=(1, 2)) / (norms[0] * norms[1] + 1e-9)
    return best


def judged(
    groups: Sequence[tuple[Picture, ...]],
    parts: Mapping[str, str],
    classes: Sequence[str],
    val_kept: bool,
    alike: Sequence[float] | None = None,
) -> list[Finding]:
    """What groups of copies mean. `alike` are their correlations where they are near copies."""
    near = alike is not None
    kind = "near-" if near else ""
    found, same = [], []
    for number, group in enumerate(groups):
        names = tuple(sorted((picture.name for picture in group), key=lambda name: parts[name] != "test"))
        how = f"looks like (correlation {alike[number]:.2f})" if alike else "is, byte for byte,"
        said = f"{printable(names[0])} {how} {', '.join(printable(name) for name in names[1:])}"
        within = {parts[name] for name in names}
        leaking = "test" in within and len(within) > 1
        if leaking:
            found.append(Finding(f"{kind}copy-leak", "fault", said, names))
        if len({picture.label for picture in group}) > 1:
            labels = " and ".join(classes)
            found.append(Finding(f"{kind}label-conflict", "fault", f"labelled {labels}: {said}", names))
        elif within == {"train", "val"} and val_kept:
            found.append(Finding(f"{kind}validation-leak", "fault", said, names))
        elif not leaking and len({picture.patient for picture in group}) > 1:
            found.append(Finding(f"{kind}copy-of-another-patient", "warning", f"patients differ: {said}", names))
        elif not leaking:
            same.append(names)
    if same:
        pictures = tuple(name for names in same for name in names)
        groups_said = f"{len(same)} group{'s' * (len(same) > 1)} of {'near' if near else 'exact'} copies"
        said = f"{groups_said} ({len(pictures)} pictures), each within one patient and class: they count more than once"
        found.append(Finding(f"{kind}copies", "note" if near else "warning", said, pictures))
    return found
