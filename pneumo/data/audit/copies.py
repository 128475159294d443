"""Copies of a picture: exact ones by content, near ones by their appearance.

All chest X-rays look alike: thumbnails of two patients correlate at up to 0.97, more than those of a picture and the same
picture shifted by 4 of 224 pixels (0.91). So only the middle frequencies are compared, which show ribs and vessels and not the
outline of the body: 0.08 to 0.25 cycles per pixel of a 64-pixel thumbnail. They are weighted by frequency, because a picture's
spectrum falls with it. The comparison has two steps. Pairs whose amplitudes correlate above 0.6, which a shift hardly changes,
are candidates. Candidates are compared at every shift of up to 4 of 64 pixels, and a correlation of 0.8 or more at the best
shift is a near copy.

The bound of 0.8 separates the two groups: on the 5,216 pictures of the public archive's training folder, two different
patients reach 0.74 at most. 150 of these pictures, encoded again at JPEG quality 30 to 95, scaled to 50 or 90 %, with contrast
0.7, or shifted by 1 to 6 of 224 pixels and brightened by 20 %, all reach 0.85. A crop of 5 % reaches 0.70 and is not found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pneumo.data.archive import printable
from pneumo.data.audit.findings import Finding, Severity
from pneumo.data.pictures import Picture

CANDIDATE = 0.6
"""Correlation of the amplitudes above which a pair is compared at every shift."""

NEAR = 0.8
"""Correlation at the best shift from which a pair is a near copy."""

SHIFT = 4
"""Largest shift, in pixels of a 64-pixel thumbnail."""

BLANK = 4.0
"""Standard deviation of the grey values (0 to 255) below which a picture is blank."""

METHOD = (
    f"Near copies: thumbnails of 64 pixels, middle frequencies only, laid over each other at the best shift of up to "
    f"{SHIFT} pixels; a correlation of {NEAR} or more. In the public archive two patients reach 0.74 at most; copies encoded "
    f"again, scaled, brightened or shifted by up to 6 of 224 pixels reach 0.85 at least; crops of 5 % or more are not found."
)

_BLOCK = 512
"""Pictures, and pairs of them, that are compared at a time."""


def exact_groups(pictures: Sequence[Picture], digests: Sequence[str]) -> list[tuple[Picture, ...]]:
    """Return the groups of two or more pictures with equal digests. An empty digest equals no other."""
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture, digest in zip(pictures, digests, strict=True):
        if digest:
            groups[digest].append(picture)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def near_pairs(thumbnails: NDArray[np.uint8], contrast: NDArray[np.float64]) -> list[tuple[int, int, float]]:
    """Return the pairs of near copies.

    Args:
        thumbnails: uint8 (n, 64, 64).
        contrast: Standard deviations of the grey values, (n,). Blank pictures are not compared.

    Returns:
        For each pair the two rows, the smaller first, and the correlation at the best shift.
    """
    rows = np.flatnonzero(contrast >= BLANK)
    if len(rows) < 2:
        return []
    spectra = _spectra(thumbnails[rows])
    amplitudes = np.sqrt(np.abs(spectra[:, _frequency_weights() > 0]))
    amplitudes -= amplitudes.mean(axis=1, keepdims=True)
    amplitudes /= np.linalg.norm(amplitudes, axis=1, keepdims=True) + 1e-9
    blocks = []
    for start in range(0, len(rows), _BLOCK):
        first, second = np.nonzero(amplitudes[start : start + _BLOCK] @ amplitudes[start:].T > CANDIDATE)
        ordered = first < second
        blocks.append(np.stack([first[ordered], second[ordered]], axis=1) + start)
    candidates = np.concatenate(blocks)
    pairs = []
    for start in range(0, len(candidates), _BLOCK):
        first, second = candidates[start : start + _BLOCK].T
        correlations = _shifted_correlation(spectra[first], spectra[second])
        pairs += [
            (int(rows[a]), int(rows[b]), float(correlation))
            for a, b, correlation in zip(first, second, correlations, strict=True)
            if correlation >= NEAR
        ]
    return pairs


def _frequency_weights() -> NDArray[np.float32]:
    """Return the weights of a thumbnail's frequencies: 0 outside the middle band."""
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None])
    return np.where((frequency > 0.08) & (frequency < 0.25), frequency, 0).astype(np.float32)


def _spectra(thumbnails: NDArray[np.uint8]) -> NDArray[np.complex64]:
    window = np.outer(np.hanning(64), np.hanning(64)).astype(np.float32)
    grey = thumbnails.astype(np.float32)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    return (np.fft.rfft2(grey * window) * _frequency_weights()).astype(np.complex64)


def _shifted_correlation(first: NDArray[np.complex64], second: NDArray[np.complex64]) -> NDArray[np.float64]:
    """Return the correlation at the best shift, for spectra (n, 64, 33)."""
    shifts = np.r_[-SHIFT : SHIFT + 1]
    products = np.fft.irfft2(first * np.conj(second), s=(64, 64))[:, shifts][:, :, shifts]
    norms = [np.sqrt((np.fft.irfft2(spectra, s=(64, 64)) ** 2).sum(axis=(1, 2))) for spectra in (first, second)]
    best: NDArray[np.float64] = products.max(axis=(1, 2)) / (norms[0] * norms[1] + 1e-9)
    return best


def copy_findings(
    groups: Sequence[tuple[Picture, ...]],
    parts: Mapping[str, str],
    classes: Sequence[str],
    has_val: bool,
    correlations: Sequence[float] | None = None,
) -> list[Finding]:
    """Return what groups of copies mean.

    Args:
        groups: Groups of equal or nearly equal pictures.
        parts: The part of each picture by name.
        classes: The names of the labels 0 and 1.
        has_val: Whether the `val` folder is used for validation.
        correlations: The correlation of each group if these are near copies.
    """
    prefix = "" if correlations is None else "near-"
    findings, harmless = [], []
    severity: Severity
    for number, group in enumerate(groups):
        names = tuple(sorted((picture.name for picture in group), key=lambda name: parts[name] != "test"))
        relation = f"looks like (correlation {correlations[number]:.2f})" if correlations else "is, byte for byte,"
        message = f"{printable(names[0])} {relation} {', '.join(printable(name) for name in names[1:])}"
        parts_of_group = {parts[name] for name in names}
        leaks = "test" in parts_of_group and len(parts_of_group) > 1
        if leaks:
            findings.append(Finding(f"{prefix}copy-leak", "fault", message, names))
        if len({picture.label for picture in group}) > 1:
            labels = " and ".join(classes)
            findings.append(Finding(f"{prefix}label-conflict", "fault", f"labelled {labels}: {message}", names))
        elif parts_of_group == {"train", "val"} and has_val:
            findings.append(Finding(f"{prefix}validation-leak", "fault", message, names))
        elif not leaks and not all(picture.known_by for picture in group):
            # A search keeps exact copies on one side. Near copies may come to lie on both.
            may_be_cut = correlations is not None and "test" not in parts_of_group and not has_val
            message = f"patients not known: {message}"
            severity = "fault" if may_be_cut else "warning"
            findings.append(Finding(f"{prefix}copy-of-unknown-patient", severity, message, names))
        elif not leaks and len({picture.patient for picture in group}) > 1:
            message = f"patients differ: {message}"
            findings.append(Finding(f"{prefix}copy-of-another-patient", "warning", message, names))
        elif not leaks:
            harmless.append(names)
    if harmless:
        pictures = tuple(name for names in harmless for name in names)
        severity = "warning" if correlations is None else "note"
        kind = "exact" if correlations is None else "near"
        counted = f"{len(harmless)} group{'s' * (len(harmless) > 1)} of {kind} copies ({len(pictures)} pictures)"
        message = f"{counted}, each within one patient and class: they count more than once"
        findings.append(Finding(f"{prefix}copies", severity, message, pictures))
    return findings
