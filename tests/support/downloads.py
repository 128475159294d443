"""A server on loopback that speaks Kaggle's and Zenodo's protocols, and a child process that downloads from it."""

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
"""The token that the server accepts."""

KAGGLE = "/v1/datasets.DatasetApiService/DownloadDataset"
STORAGE = "/storage/"
INTROSPECT = "/v1/security.OAuthService/IntrospectToken"

LAUNCHER = """
import resource, runpy, sys
from kagglesdk.kaggle_env import KaggleEnv, _env_to_endpoint
import pneumo.data.fetch
_env_to_endpoint[KaggleEnv.PROD], md5, most_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
pneumo.data.fetch.MD5[28] = md5 or pneumo.data.fetch.MD5[28]
if most_bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
sys.argv[1:4] = []
runpy.run_module("pneumo.data", run_name="__main__", alter_sys=True)
"""
"""Runs `python -m pneumo.data`. It replaces Kaggle's address, which has no setting, and PneumoniaMNIST's checksum."""


@dataclass
class Remote:
    """The server's files, how its answers fail, and the requests that it received."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """Contents by path for Zenodo, by owner/name for Kaggle."""
    cuts: list[int] = field(default_factory=list)
    """Number of bytes after which the connection of the next answer is cut; each answer removes one entry."""
    stall: int | None = None
    """Number of bytes after which the next answer waits for `go`."""
    claims: int = 0
    """The length that Kaggle's answer claims, if it is not the true one."""
    go: threading.Event = field(default_factory=threading.Event)
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of every request for a file."""


@contextmanager
def remote_server() -> Iterator[Remote]:
    """Run the server while the block runs."""
    remote = Remote()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client was killed
                super().handle()

        def do_GET(self) -> None:
            self._file(remote.files.get(self.path.removeprefix(STORAGE)))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if self.path == INTROSPECT:
                known = request["token"] == TOKEN
                self._json(
                    200 if known else 400, {"active": True, "username": "u"} if known else {"code": 400, "message": ""}
                )
            elif self.path != KAGGLE:
                self._json(404, {"code": 404, "message": "no such service"})
            elif token != TOKEN:
                self._json(401, {"code": 401, "message": "Unauthenticated"})
            elif (slug := f"{request['ownerSlug']}/{request['datasetSlug']}") not in remote.files:
                self._json(404, {"code": 404, "message": "Not found"})
            else:  # Kaggle redirects to the storage, with a signed address
                self.send_response(302)
                self.send_header("Location", f"{remote.address}{STORAGE}{slug}")
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
            remote.ranges.append(self.headers.get("Range"))
            if content is None:
                return self._json(404, {"code": 404, "message": "Not found"})
            resume = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            first = int(resume[1]) if resume else 0
            self.send_response(206 if resume else 200)
            self.send_header("Content-Type", "application/zip")
            self.send_header("Content-Length", str(remote.claims or len(content) - first))
            self.send_header("Last-Modified", "Sat, 24 Mar 2018 19:41:59 GMT")
            self.send_header("ETag", f'"{len(content)}"')
            self.send_header("Accept-Ranges", "bytes")
            if resume:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            body = content[first:]
            if remote.cuts:
                self.wfile.write(body[: remote.cuts.pop(0)])
                self.close_connection = True
                return None
            if remote.stall is not None:
                self.wfile.write(body[: remote.stall])
                body, remote.stall = body[remote.stall :], None
                remote.go.wait()
            self.wfile.write(body)
            return None

        def finish(self) -> None:
            with suppress(ConnectionError):
                super().finish()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        remote.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield remote
        finally:
            remote.go.set()
            server.shutdown()
            thread.join()


def fetch(
    remote: Remote,
    *arguments: object,
    folder: Path,
    md5: str = "",
    most_bytes: int = 0,
    before: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start `python -m pneumo.data fetch ...` in a folder that is also the user's home, without credentials.

    Args:
        remote: The server to download from.
        arguments: The arguments after `fetch`.
        folder: The current folder of the process.
        md5: Checksum of the file that the server has as PneumoniaMNIST at 28 pixels.
        most_bytes: Largest size of a file that the process can write; 0 for no limit.
        before: A command that runs this one.
        environment: Further environment variables.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("KAGGLE_", "PNEUMO_"))}
    clean |= {"HOME": str(folder), "PNEUMO_MEDMNIST_URL": f"{remote.address}/records", **(environment or {})}
    command = [sys.executable, "-c", LAUNCHER, remote.address, md5, str(most_bytes), "fetch", *map(str, arguments)]
    return subprocess.Popen(
        [*before, *command],
        cwd=folder,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
