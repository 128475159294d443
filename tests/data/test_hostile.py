"""Input from whoever it comes: named and left out, or refused in one line; nothing is written outside the cache."""

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
"""So many that one bad picture is less than 1 %."""

NORMAL = "train/NORMAL"


def zipped(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    write_zip(path / "a.zip", FILES, "")
    with zipfile.ZipFile(path / "a.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path / "a.zip"


def tree(path: Path, name: str = "", content: bytes = b"") -> Path:
    return write_folder(path / "tree", FILES | ({name: content} if name else {}), "")


def entry(name: str, content: bytes | None = None) -> Callable[[Path], Path]:
    return lambda path: zipped(path, (name, encoded(900) if content is None else content))


def link_entry(path: Path) -> Path:
    link = zipfile.ZipInfo(f"{NORMAL}/link.jpeg")
    link.external_attr = 0o120777 << 16
    return zipped(path, (link, b"/etc/passwd"))


def patched(offset_of: bytes, offset: int, value: bytes) -> Callable[[Path], Path]:
    """A zip with one more picture, `evil.jpeg`, whose directory entry is changed at an offset."""

    def make(path: Path) -> Path:
        made = zipped(path, (f"{NORMAL}/evil.jpeg", encoded(900)))
        whole = bytearray(made.read_bytes())
        at = whole.rindex(offset_of)
        whole[at + offset : at + offset + len(value)] = value
        made.write_bytes(whole)
        return made

    return make


DIRECTORY = b"PK\x01\x02"
"""Begins the directory's entries; the last one is that of `evil.jpeg`."""


def twice(path: Path) -> Path:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return zipped(path, (f"{NORMAL}/evil.jpeg", encoded(900)), (f"{NORMAL}/evil.jpeg", encoded(901)))


def bomb(path: Path) -> Path:
    made = zipped(path, (f"{NORMAL}/evil.jpeg", encoded(900)))
    whole = bytearray(made.read_bytes())
    # Every entry claims 400 MB, as where members overlap.
    at = whole.find(DIRECTORY)
    while at >= 0:
        whole[at + 24 : at + 28] = struct.pack("<I", 400 * 2**20)
        at = whole.find(DIRECTORY, at + 4)
    made.write_bytes(whole)
    return made


def png_of(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(2**20), 9)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    packed = (struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def link_out(path: Path) -> Path:
    made = tree(path)
    (path / "outside.jpeg").write_bytes(encoded(900))
    (made / NORMAL / "evil.jpeg").symlink_to(path / "outside.jpeg")
    return made


def link_circle(path: Path) -> Path:
    made = tree(path)
    (made / NORMAL / "evil.jpeg").symlink_to(made / NORMAL / "evil.jpeg")
    return made


def link_to_a_folder_above(path: Path) -> Path:
    made = tree(path)
    (made / NORMAL / "evil").symlink_to(made)
    return made


def pipe(path: Path) -> Path:
    made = tree(path)
    os.mkfifo(made / NORMAL / "evil.jpeg")
    return made


def sparse(path: Path) -> Path:
    made = tree(path)
    with (made / NORMAL / "evil.jpeg").open("wb") as file:
        file.truncate(600 * 2**20)
    return made


def zip_in_zip(path: Path) -> Path:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("x", b"x")
    return zipped(path, (f"{NORMAL}/evil.jpeg", inner.getvalue()))


def not_utf8(path: Path) -> Path:
    made = tree(path)
    Path(os.fsdecode(os.fsencode(made / NORMAL) + b"/evil\xff.jpeg")).write_bytes(encoded(900))
    return made


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "climbs out": (entry("../../evil.jpeg"), "climbs out"),
    "climbs out from within": (entry(f"{NORMAL}/../../../evil.jpeg"), "climbs out"),
    "absolute": (entry("/tmp/evil.jpeg"), "absolute"),
    "a drive": (entry("C:/train/NORMAL/evil.jpeg"), "absolute"),
    "backslashes": (entry("..\\..\\evil.jpeg"), "absolute"),
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
    "an empty file": (lambda path: tree(path, f"{NORMAL}/evil.jpeg"), "neither a JPEG"),
    "a link that leads out": (link_out, "leads out"),
    "a link in a circle": (link_circle, "a link to nothing"),
    "a link to a folder above": (link_to_a_folder_above, "not followed"),
    "a pipe": (pipe, "a pipe"),
    "a file of 600 MB": (sparse, "629,145,600 bytes"),
    "a name that is not UTF-8": (not_utf8, "not UTF-8"),
}


@pytest.mark.parametrize(("make", "said"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_input_is_named_and_left_out_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], said: str
) -> None:
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = make(tmp_path)
    before = everything(tmp_path)
    lines: list[str] = []
    try:
        prepared = prepare(source_at(str(path), "kaggle"), [32], 0.2, 0, say=lines.append)
        assert sorted(
            {prepared.names[row] for part in (prepared.training, prepared.validation) for row in part}
        ) == sorted(name for name in FILES if name.startswith("train/"))
    except RequestError as error:
        lines = [str(error)]
    (line,) = lines
    assert said in line
    assert line.isprintable()
    if "left out" in line:
        assert any(word in line for word in ("evil", "link.jpeg"))
    else:
        assert str(path) in line
    assert {name for name in everything(tmp_path) - before if not name.startswith("cache")} == set()


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
