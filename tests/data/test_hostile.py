"""Hostile input is named and left out, or refused in one line. Nothing is written outside the cache."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pneumo.data.prepare import prepare
from pneumo.data.sources import source_at
from pneumo.spec.errors import RequestError
from tests.support.pictures import archive_files, encoded, write_folder, write_zip

FILES = archive_files(patients=60, pictures=1)
"""Enough pictures that one bad one is less than 1 %."""

NORMAL = "train/NORMAL"


def zipped(folder: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    path = write_zip(folder / "a.zip", FILES, "")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def tree(path: Path, name: str = "", content: bytes = b"") -> Path:
    return write_folder(path / "tree", FILES | ({name: content} if name else {}), "")


def entry(name: str, content: bytes | None = None) -> Callable[[Path], Path]:
    return lambda path: zipped(path, (name, encoded(900) if content is None else content))


def link_entry(path: Path) -> Path:
    link = zipfile.ZipInfo(f"{NORMAL}/link.jpeg")
    link.external_attr = 0o120777 << 16
    return zipped(path, (link, b"/etc/passwd"))


def dos_entry(path: Path) -> Path:
    member = zipfile.ZipInfo("..\\..\\evil.jpeg")
    member.create_system = 0
    return zipped(path, (member, encoded(900)))


def patched(offset_of: bytes, offset: int, value: bytes) -> Callable[[Path], Path]:
    """Return a function that writes a zip with one more picture, `evil.jpeg`, and changes its directory entry at an offset."""

    def make(path: Path) -> Path:
        zip_path = zipped(path, (f"{NORMAL}/evil.jpeg", encoded(900)))
        content = bytearray(zip_path.read_bytes())
        at = content.rindex(offset_of)
        content[at + offset : at + offset + len(value)] = value
        zip_path.write_bytes(content)
        return zip_path

    return make


DIRECTORY = b"PK\x01\x02"
"""The bytes at the beginning of each directory entry. The last entry is that of `evil.jpeg`."""


def twice(path: Path) -> Path:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return zipped(path, (f"{NORMAL}/evil.jpeg", encoded(900)), (f"{NORMAL}/evil.jpeg", encoded(901)))


def bomb(path: Path) -> Path:
    zip_path = zipped(path, (f"{NORMAL}/evil.jpeg", encoded(900)))
    content = bytearray(zip_path.read_bytes())
    # Every entry claims 400 MB, as if the members overlapped.
    at = content.find(DIRECTORY)
    while at >= 0:
        content[at + 24 : at + 28] = struct.pack("<I", 400 * 2**20)
        at = content.find(DIRECTORY, at + 4)
    zip_path.write_bytes(content)
    return zip_path


def png_of(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(2**20), 9)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    packed = (struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def link_out(path: Path) -> Path:
    root = tree(path)
    (path / "outside.jpeg").write_bytes(encoded(900))
    (root / NORMAL / "evil.jpeg").symlink_to(path / "outside.jpeg")
    return root


def link_circle(path: Path) -> Path:
    root = tree(path)
    (root / NORMAL / "evil.jpeg").symlink_to(root / NORMAL / "evil.jpeg")
    return root


def link_to_a_folder_above(path: Path) -> Path:
    root = tree(path)
    (root / NORMAL / "evil").symlink_to(root)
    return root


def pipe(path: Path) -> Path:
    root = tree(path)
    os.mkfifo(root / NORMAL / "evil.jpeg")
    return root


def sparse(path: Path) -> Path:
    root = tree(path)
    with (root / NORMAL / "evil.jpeg").open("wb") as file:
        file.truncate(600 * 2**20)
    return root


def zip_in_zip(path: Path) -> Path:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("x", b"x")
    return zipped(path, (f"{NORMAL}/evil.jpeg", inner.getvalue()))


def not_utf8(path: Path) -> Path:
    root = tree(path)
    Path(os.fsdecode(os.fsencode(root / NORMAL) + b"/evil\xff.jpeg")).write_bytes(encoded(900))
    return root


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "climbs out": (entry("../../evil.jpeg"), "climbs out"),
    "climbs out from within": (entry(f"{NORMAL}/../../../evil.jpeg"), "climbs out"),
    "absolute": (entry("/tmp/evil.jpeg"), "absolute"),
    "a drive": (entry("C:/train/NORMAL/evil.jpeg"), "absolute"),
    "backslashes": (entry("train\\NORMAL\\evil.jpeg"), "a name with a backslash"),
    "backslashes of DOS": (dos_entry, "climbs out"),
    "a link in the zip": (link_entry, "a link"),
    "control characters": (entry(f"{NORMAL}/evil\n\x1b[31m.jpeg"), "control characters"),
    "twice": (twice, "twice"),
    "encrypted": (patched(DIRECTORY, 8, b"\x01"), "encrypted"),
    "too large": (patched(DIRECTORY, 24, struct.pack("<I", 600 * 2**20)), "unpacks to 629,145,600 bytes"),
    "smaller than it says": (patched(DIRECTORY, 24, struct.pack("<I", 2**20)), "broken in the zip"),
    "another checksum": (patched(DIRECTORY, 16, b"\x00\x01\x02\x03"), "broken in the zip"),
    "an unknown compression": (patched(DIRECTORY, 10, b"\x63"), "broken in the zip"),
    "overlapping members": (bomb, "is a bomb"),
    "a zip in the zip": (zip_in_zip, "neither a JPEG"),
    "a picture of 10 gigapixels": (entry(f"{NORMAL}/evil.png", png_of(100_000, 100_000)), "pixels"),
    "a PNG that is a JPEG": (entry(f"{NORMAL}/evil.png", encoded(900)), "is a JPEG, though its name says PNG"),
    "a JPEG that is a PNG": (
        entry(f"{NORMAL}/evil.jpeg", encoded(900, kind="PNG")),
        "is a PNG, though its name says JPEG",
    ),
    "a script": (entry(f"{NORMAL}/evil.jpeg", b"#!/bin/sh\ntouch /tmp/evil"), "neither a JPEG"),
    "half a JPEG": (entry(f"{NORMAL}/evil.jpeg", half(encoded(900, (400, 300)))), "truncated"),
    "half a PNG": (entry(f"{NORMAL}/evil.png", half(encoded(900, (400, 300), kind="PNG"))), ""),
    "an empty file": (lambda path: tree(path, f"{NORMAL}/evil.jpeg"), "left out: empty"),
    "an empty file in a zip": (entry(f"{NORMAL}/evil.jpeg", b""), "left out: empty"),
    "a link that leads out": (link_out, "leads out"),
    "a link in a circle": (link_circle, "a link to nothing"),
    "a link to a folder above": (link_to_a_folder_above, "not followed"),
    "a pipe": (pipe, "a pipe"),
    "a file of 600 MB": (sparse, "629,145,600 bytes"),
    "a name that is not UTF-8": (not_utf8, "not UTF-8"),
}


@pytest.mark.parametrize(("make", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_input_is_named_and_left_out_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], reason: str
) -> None:
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = make(tmp_path)
    before = paths_below(tmp_path)
    lines: list[str] = []
    try:
        prepared = prepare(source_at(str(path), "kaggle"), [32], 0.2, 0, say=lines.append)
        assert sorted(
            {prepared.names[row] for part in (prepared.training, prepared.validation) for row in part}
        ) == sorted(name for name in FILES if name.startswith("train/"))
    except RequestError as error:
        lines = [str(error)]
    (line,) = lines
    assert reason in line
    assert line.isprintable()
    if "left out" in line:
        assert any(word in line for word in ("evil", "link.jpeg"))
    else:
        assert str(path) in line
    assert {name for name in paths_below(tmp_path) - before if not name.startswith("cache")} == set()


def paths_below(folder: Path) -> set[str]:
    """Return the paths of all files and folders below a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
