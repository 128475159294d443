"""Fetching pictures: the archive from Kaggle, PneumoniaMNIST from Zenodo.

A file comes into its place whole and checked, or not at all. What a cut download left of the archive waits in a hidden
folder beside it, and the next one goes on from there.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pneumo.data.archive import printable
from pneumo.spec.errors import RequestError

SLUG = "paultimothymooney/chest-xray-pneumonia"

MEDMNIST = "https://zenodo.org/records/10519652/files"
"""Where the MedMNIST authors publish; `PNEUMO_MEDMNIST_URL` names a mirror."""

MD5 = {
    28: "28209eda62fecd6e6a2d98b1501bb15f",
    64: "8f4eceb4ccffa70c672198ea285246c6",
    128: "05b46931834c231683c68f40c47b2971",
    224: "d6a3c71de1b945ea11211b03746c1fe1",
}
"""Of PneumoniaMNIST by its pictures' size in pixels, as published (medmnist 3.0.2, INFO["pneumoniamnist"])."""

CREDENTIALS = """\
Kaggle gives its data to those who are logged in. Get a token at https://www.kaggle.com/settings/api
and put it into the environment as KAGGLE_API_TOKEN, or into the file ~/.kaggle/access_token.
Without one: python -m pneumo.data fetch medmnist fetches the same patients' pictures, smaller."""

_REFUSED = {
    401: "the credentials are refused",
    403: "access is refused: accept the dataset's terms, or check the token",
}


class NoCredentialsError(Exception):
    """There are no Kaggle credentials; the message is `CREDENTIALS`, three lines."""


def fetch_kaggle(slug: str, folder: Path) -> Path:
    """Downloads a Kaggle dataset (`owner/name`) as `folder/name.zip`, and gives its path.

    A zip that is there already is not downloaded again. Raises `NoCredentialsError`, and `RequestError` for all else.
    """
    if not re.fullmatch(r"[\w-]+/[\w-]+", slug):
        raise RequestError(f"{slug}: wants owner/name, as {SLUG}")
    name = slug.rsplit("/", 1)[1]
    place, partial = folder / f"{name}.zip", folder / f".{name}"
    if zipfile.is_zipfile(place):
        return place
    with _one_line(f"https://www.kaggle.com/datasets/{slug}", folder):
        api = _kaggle()
        partial.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()):  # kaggle greets, and says what is said better here
            api.dataset_download_files(slug, path=str(partial), quiet=not sys.stderr.isatty())
        whole = partial / f"{name}.zip"
        _check_zip(whole, slug)
        whole.replace(place)
        shutil.rmtree(partial)
    return place


def fetch_medmnist(size: int, folder: Path) -> Path:
    """Downloads PneumoniaMNIST of `size` pixels (a key of `MD5`) into `folder`, and gives its path.

    A file that is there already and whole is not downloaded again. Raises `RequestError`.
    """
    import pooch

    name = "pneumoniamnist.npz" if size == 28 else f"pneumoniamnist_{size}.npz"
    url = f"{os.environ.get('PNEUMO_MEDMNIST_URL', MEDMNIST).rstrip('/')}/{name}"
    pooch.get_logger().setLevel(logging.ERROR)
    with _one_line(url, folder):
        folder.mkdir(parents=True, exist_ok=True)
        downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty())
        pooch.retrieve(url, known_hash=f"md5:{MD5[size]}", fname=name, path=folder, downloader=downloader)
    return folder / name


@contextlib.contextmanager
def _one_line(url: str, folder: Path) -> Iterator[None]:
    """Turns what a download may raise into a `RequestError` of one line, without credentials."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        what = "there is no such file or dataset" if status == 404 else _REFUSED.get(status, f"answers {status}")
        raise RequestError(f"{url}: {what}") from None
    except (requests.RequestException, EOFError) as error:
        raise RequestError(
            f"{url}: the connection failed ({type(error).__name__}); give the same command again"
        ) from None
    except ValueError as error:  # a checksum or a length that differs
        raise RequestError(f"{url}: came broken, nothing is kept: {' '.join(str(error).split())[:200]}") from None
    except OSError as error:
        full = " (the disk is full)" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        raise RequestError(f"{folder}: cannot be written: {error.strerror or error}{full}") from None


def _kaggle() -> Any:
    """Kaggle's own API, authenticated. Raises `NoCredentialsError`, and `RequestError` where what there is is refused."""
    with contextlib.redirect_stdout(io.StringIO()):  # the import authenticates and prints how
        from kaggle.api.kaggle_api_extended import KaggleApi

        class Api(KaggleApi):  # type: ignore[misc]
            def download_file(
                self, response: Any, outfile: str, http_client: Any, *given: Any, **settings: Any
            ) -> None:
                _check_space(response, Path(outfile))
                # It waits 2, 4, 8, ... s between its attempts, and after a full disk as after a cut connection.
                super().download_file(response, outfile, http_client, *given, max_retries=3, **settings)

        api = Api()
        try:
            api.authenticate()
        except SystemExit:
            if _credentials():
                raise RequestError(
                    "Kaggle refuses the credentials that are there; get a new token at https://www.kaggle.com/settings/api"
                ) from None
            raise NoCredentialsError(CREDENTIALS) from None
    return api


def _check_zip(path: Path, slug: str) -> None:
    """Reads a downloaded zip through, since Kaggle states no checksum; a broken one is deleted. Raises `RequestError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        broken = str(error)
    if broken is not None:
        path.unlink()
        raise RequestError(f"{slug}: came broken ({printable(broken)}), nothing is kept; give the same command again")


def _check_space(response: Any, file: Path) -> None:
    """Refuses a download that the disk cannot hold, before its first byte."""
    missing = int(response.headers.get("Content-Length") or 0) - (file.stat().st_size if file.exists() else 0)
    free = shutil.disk_usage(file.parent).free
    if missing > free:
        raise RequestError(
            f"{file.parent.parent}: {missing / 1e6:,.0f} MB to fetch, {free / 1e6:,.0f} MB free; give --to another"
        )


def _credentials() -> bool:
    home = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
    files = (home / "access_token", home / "kaggle.json")
    return any(os.environ.get(key) for key in ("KAGGLE_API_TOKEN", "KAGGLE_KEY")) or any(map(Path.exists, files))
