"""One picture in 8 bits, and the same picture in the deeper forms that detectors and programs write."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from tests.support.dicom_files import dicom
from tests.support.pictures import encoded

EMPTY: dict[str, Any] = dict.fromkeys(
    (
        "NumberOfFrames",
        "HighBit",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
        "RescaleSlope",
        "RescaleIntercept",
        "WindowCenter",
        "WindowWidth",
        "VOILUTFunction",
        "PatientID",
        "IssuerOfPatientID",
    )
) | {"ModalityLUTSequence": [], "VOILUTSequence": []}
"""Every element of a DICOM that is read and may be absent, without a value."""


def greys(seed: int = 3) -> NDArray[Any]:
    """Return a picture as uint16 (60, 80) with values from 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(encoded(seed, kind="PNG")))).astype(np.uint16)


def saved(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    """Return an image as a file's bytes."""
    out = io.BytesIO()
    image.save(out, kind, **settings)
    return out.getvalue()


def png(values: NDArray[Any], sbit: int | None = None) -> bytes:
    """Return a PNG of 16 bits: grey for values (rows, columns), else with 2 to 4 channels. `sbit` is its significant bits."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    significant = b"" if sbit is None else _chunk(b"sBIT", bytes([sbit] * channels))
    content = _chunk(b"IHDR", header) + significant + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def _chunk(name: bytes, content: bytes) -> bytes:
    checked = name + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def tiff_12_bit(values: NDArray[Any]) -> bytes:
    """Return a TIFF of 12 bits for each pixel, packed. The number of values has to be even."""
    first, second = values.reshape(-1, 2).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1).astype(np.uint8).tobytes()
    rows, columns = values.shape
    tags = (
        (256, 4, columns),
        (257, 4, rows),
        (258, 3, 12),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, rows),
        (279, 4, len(packed)),
    )
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, kind, 1, n) for tag, kind, n in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory + bytes(4)


def table(entries: NDArray[Any], bits: int, first: int = 0, *, packed: bool = False) -> Dataset:
    """Return an item of a DICOM lookup table, with the entries as numbers or as bytes."""
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    if packed:
        item.add_new("LUTData", "OW", entries.astype("u1" if bits == 8 else "<u2").tobytes())
    else:
        item.add_new("LUTData", "US", entries.tolist())
    return item


def deep_forms(seed: int = 3) -> dict[str, bytes]:
    """Return the picture as files by name. `8.png` has 8 bits; the others look the same within one grey level."""
    plain = greys(seed)
    twelve = plain << 4
    orientation = Image.Exif()
    orientation[0x0112] = 6
    return {
        "8.png": saved(Image.fromarray(plain.astype(np.uint8))),
        "8-in-16.png": png(plain),
        **{f"{bits}-in-16.png": png(plain << (bits - 8)) for bits in (10, 12, 14, 16)},
        **{f"sbit-{bits}.png": png(plain << (bits - 8), bits) for bits in (9, 11, 13, 15, 16)},
        "sbit-12-scaled-up.png": png(np.rint(twelve * (65535 / 4095)), 12),
        "sbit-12-shifted.png": png(plain << 8, 12),
        "sbit-16-of-12.png": png(twelve, 16),
        "sideways.png": saved(Image.fromarray(twelve).transpose(Image.Transpose.ROTATE_90), exif=orientation),
        "8.dcm": dicom(plain, 8),
        "12.dcm": dicom(twelve, 12),
        "12-in-16.dcm": dicom(twelve, 16),
        "12-window-empty.dcm": dicom(twelve, 12, WindowCenter=None, WindowWidth=None),
        "12-in-16-window-empty.dcm": dicom(twelve, 16, WindowCenter=None, WindowWidth=None),
        "12-in-16-all-empty.dcm": dicom(twelve, 16, **EMPTY),
        "12-in-16-inverted.dcm": dicom(4095 - twelve, 16, "MONOCHROME1", WindowCenter=None),
        "12-high-bit.dcm": dicom(plain << 8, 12, HighBit=15),
        "12-padded.dcm": dicom(np.where(plain, twelve, 65535).astype(np.uint16), 16, PixelPaddingValue=65535),
        "14-window.dcm": dicom(plain << 6, 14, WindowCenter=8192, WindowWidth=16384),
    }
