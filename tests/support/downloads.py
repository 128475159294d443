"""A server on loopback that speaks Kaggle's and Zenodo's protocols, and the real `fetch` in a child process against it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "KGAT_0123456789abcdef-secret"
"""The one that the server takes."""

KAGGLE = "/v1/datasets.DatasetApiService/DownloadDataset"
STORAGE = "/storage/"
INTROSPECT = "/v1/security.OAuthService/IntrospectToken"

LAUNCHER = """
import resource, runpy, sys
from kagglesdk.kaggle_env import KaggleEnv, _env_to_endpoint
import pneumo.data.fetch
_env_to_endpoint[KaggleEnv.PROD], md5, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
pneumo.data.fetch.MD5[28] = md5 or pneumo.data.fetch.MD5[28]
if most:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
sys.argv[1:4] = []
runpy.run_module("pneumo.data", run_name="__main__", alter_sys=True)
"""
"""The package has no setting for another server, and PneumoniaMNIST's published checksum is not that of a test's file."""


@dataclass
class Remote:
    """What the server has, how it fails, and what it was asked."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """By path, for Zenodo; by owner/name, for Kaggle."""
    cuts: list[int] = field(default_factory=list)
    """After so many bytes of its body the next answer's connection is cut; used up one by one."""
    stall: int | None = None
    """After so many bytes the answer waits for `go`."""
    claims: int = 0
    """The length that Kaggle's answer claims, where it is not the true one."""
    go: threading.Event = field(default_factory=threading.Event)
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of every request for a file."""


@contextmanager
def remote() -> Iterator[Remote]:
    """Runs the server while the block runs."""
    has = Remote()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client was killed
                super().handle()

        def do_GET(self) -> None:
            self._file(has.files.get(self.path.removeprefix(STORAGE)))

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if self.path == INTROSPECT:
                known = asked["token"] == TOKEN
                self._json(
                    200 if known else 400, {"active": True, "username": "u"} if known else {"code": 400, "message": ""}
                )
            elif self.path != KAGGLE:
                self._json(404, {"code": 404, "message": "no such service"})
            elif token != TOKEN:
                self._json(401, {"code": 401, "message": "Unauthenticated"})
            elif (slug := f"{asked['ownerSlug']}/{asked['datasetSlug']}") not in has.files:
                self._json(404, {"code": 404, "message": "Not found"})
            else:  # Kaggle sends to where the file is stored, under an address signed for a while
                self.send_response(302)
                self.send_header("Location", f"{has.address}{STORAGE}{slug}")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _json(self, status: int, answer: dict[str, object]) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _file(self, content: bytes | None) -> None:
            has.ranges.append(self.headers.get("Range"))
            if content is None:
                return self._json(404, {"code": 404, "message": "Not found"})
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            first = int(wanted[1]) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Type", "application/zip")
            self.send_header("Content-Length", str(has.claims or len(content) - first))
            self.send_header("Last-Modified", "Sat, 24 Mar 2018 19:41:59 GMT")
            self.send_header("ETag", f'"{len(content)}"')
            self.send_header("Accept-Ranges", "bytes")
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            body = content[first:]
            if has.cuts:
                self.wfile.write(body[: has.cuts.pop(0)])
                self.close_connection = True
                return None
            if has.stall is not None:
                self.wfile.write(body[: has.stall])
                body, has.stall = body[has.stall :], None
                has.go.wait()
            self.wfile.write(body)
            return None

        def finish(self) -> None:
            with suppress(ConnectionError):
                super().finish()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        has.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield has
        finally:
            has.go.set()
            server.shutdown()
            thread.join()


def fetch(
    has: Remote,
    *arguments: object,
    folder: Path,
    md5: str = "",
    most_bytes: int = 0,
    before: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """`python -m pneumo.data fetch ...` in a folder that is the user's home too, without credentials of its own.

    `md5` is that of the file that stands for PneumoniaMNIST at 28 pixels, `most_bytes` the size at which no file grows any
    more, `before` a command that runs this one.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("KAGGLE_", "PNEUMO_"))}
    clean |= {"HOME": str(folder), "PNEUMO_MEDMNIST_URL": f"{has.address}/records", **(environment or {})}
    command = [sys.executable, "-c", LAUNCHER, has.address, md5, str(most_bytes), "fetch", *map(str, arguments)]
    return subprocess.Popen(
        [*before, *command],
        cwd=folder,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
