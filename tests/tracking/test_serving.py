"""A real `mlflow models serve` on loopback: it answers as the model predicts offline, and no bad request ends it."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.support.mlflow_server import serve_model
from tests.support.pictures import encoded
from tests.support.served import Small

pytestmark = pytest.mark.slow

CLIENTS, REQUESTS = 4, 200
FULL_SIZE = (1300, 1000)


@pytest.fixture(scope="module")
def server(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a server of the small model's champion."""
    with serve_model("models:/small@champion", small.store.uri, tmp_path_factory.mktemp("serve")) as address:
        yield address


def ask(server: str, document: object) -> requests.Response:
    return send(server, json.dumps(document).encode())


def send(server: str, body: bytes) -> requests.Response:
    headers = {"Content-Type": "application/json"}
    return requests.post(f"{server}/invocations", body, headers=headers, timeout=60)


def text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def huge_png(side: int = 30_000) -> bytes:
    """Return a PNG whose header claims this size, and which has hardly any data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_four_clients_get_what_is_predicted_offline(server: str, small: Small) -> None:
    pictures = [encoded(seed, FULL_SIZE) for seed in range(20)]
    offline = [prediction.probability for prediction in small.served.predict(pictures)]

    def client(first: int) -> list[tuple[int, int, float]]:
        answers = []
        with requests.Session() as session:
            for number in range(first, REQUESTS, CLIENTS):
                which = number % len(pictures)
                answer = session.post(f"{server}/invocations", json={"inputs": [text(pictures[which])]}, timeout=60)
                (row,) = answer.json()["predictions"]
                answers.append((which, answer.status_code, row["probability"]))
        return answers

    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = [answer for each in clients.map(client, range(CLIENTS)) for answer in each]
    assert len(answers) == REQUESTS
    assert {which for which, *_ in answers} == set(range(len(pictures)))
    assert all((status, probability) == (200, offline[which]) for which, status, probability in answers)


def test_bad_pictures_get_an_error_and_the_server_goes_on(server: str, small: Small, tmp_path: Path) -> None:
    good = encoded(1, FULL_SIZE)
    secret = tmp_path / "of-the-server.jpeg"
    secret.write_bytes(good)
    bad = {
        "truncated": text(good[: len(good) // 2]),
        "neither a JPEG nor a PNG, TIFF, BMP, GIF, WebP or DICOM": text(b"a text file\n" * 50),
        "pixels": text(huge_png()),
        "an empty text": "",
        "not base64": str(secret),
        "not a picture but": {"not": "a picture"},
    }
    (offline,) = small.served.predict([good])
    answer = ask(server, {"inputs": [text(good), *bad.values(), text(good)]})
    assert answer.status_code == 200
    first, *rows, last = answer.json()["predictions"]
    assert first == last
    assert (first["probability"], first["label"], first["error"]) == (offline.probability, offline.label, None)
    assert first["threshold"] == small.served.decision.threshold
    for message, row in zip(bad, rows, strict=True):
        assert (row["probability"], row["label"]) == (None, None)
        assert message in row["error"]


@pytest.mark.parametrize("body", [b"", b"not JSON", b"{}", b'{"inputs": {"a": ["x"], "b": ["y"]}}', b"\xff\xfe"])
def test_a_bad_request_gets_status_400_and_the_server_goes_on(server: str, body: bytes) -> None:
    answer = send(server, body)
    assert answer.status_code == 400
    assert answer.json()["message"]
    assert ask(server, {"inputs": [text(encoded())]}).json()["predictions"][0]["error"] is None


def test_every_form_of_a_request_is_taken(server: str) -> None:
    picture = text(encoded(2))
    forms: list[dict[str, object]] = [
        {"inputs": [picture]},
        {"instances": [picture]},
        {"dataframe_split": {"columns": ["picture"], "data": [[picture]]}},
        {"dataframe_records": [{"picture": picture}]},
    ]
    answers = [ask(server, form) for form in forms]
    assert {answer.status_code for answer in answers} == {200}
    assert len({str(answer.json()["predictions"]) for answer in answers}) == 1
    pixels = ask(server, {"inputs": [[[0, 255, 0], [255, 0, 255]]]}).json()["predictions"]
    assert pixels[0]["error"] is None
