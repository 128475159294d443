"""Downloads pictures: the archive from Kaggle, PneumoniaMNIST from Zenodo.

A file is moved to its final path only when it is complete and checked. The beginning of an interrupted download of the archive
is kept in a hidden folder beside it, and the next download resumes from there.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pneumo.data.archive import printable
from pneumo.spec.errors import RequestError

SLUG = "paultimothymooney/chest-xray-pneumonia"

MEDMNIST = "https://zenodo.org/records/10519652/files"
"""Where the MedMNIST authors publish their files. `PNEUMO_MEDMNIST_URL` names a mirror."""

MD5 = {
    28: "28209eda62fecd6e6a2d98b1501bb15f",
    64: "8f4eceb4ccffa70c672198ea285246c6",
    128: "05b46931834c231683c68f40c47b2971",
    224: "d6a3c71de1b945ea11211b03746c1fe1",
}
"""Checksums of PneumoniaMNIST by the size of its pictures in pixels, from medmnist 3.0.2, INFO["pneumoniamnist"]."""

CREDENTIALS = """\
Kaggle needs a login. Create a token at https://www.kaggle.com/settings/api
and set it as KAGGLE_API_TOKEN, or put it into the file ~/.kaggle/access_token.
Without a token, python -m pneumo.data fetch medmnist downloads smaller pictures of the same patients."""
"""The advice for a user without Kaggle credentials."""

_REFUSED = {
    401: "the credentials are refused",
    403: "access is refused: accept the dataset's terms, or check the token",
}


_BLOCK = 2**20
"""Bytes of a zip's file that are read at a time."""


ShowCheck = Callable[[], contextlib.AbstractContextManager[Callable[[int, int], None]]]


class NoCredentialsError(Exception):
    """There are no Kaggle credentials; the message is `CREDENTIALS`, three lines."""


def fetch_kaggle(slug: str, folder: Path, show_check: ShowCheck = lambda: contextlib.nullcontext(_ignore)) -> Path:
    """Download a Kaggle dataset (`owner/name`) as `folder/name.zip` and return its path.

    A zip that is there already is not downloaded again if the checksum of each of its files is right. A damaged one is named
    on standard error, and replaced once the new download is complete.

    Args:
        slug: The dataset.
        folder: Where the zip goes.
        show_check: Opens what shows the check of a zip. Its context gives a function that takes the number of bytes read so
            far, and of all bytes.

    Raises:
        NoCredentialsError: There are no Kaggle credentials.
        RequestError: The download failed in another way.
    """
    if not re.fullmatch(r"[\w-]+/[\w-]+", slug):
        raise RequestError(f"{slug}: expected owner/name, as in {SLUG}")
    name = slug.rsplit("/", 1)[1]
    path, partial = folder / f"{name}.zip", folder / f".{name}"
    if path.is_file():
        damage = _damage(path, show_check)
        if damage is None:
            return path
        print(f"{path}: damaged ({printable(damage)}); it is downloaded again", file=sys.stderr)
    with _request_errors(f"https://www.kaggle.com/datasets/{slug}", folder):
        api = _kaggle_api()
        partial.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()):  # hides the messages that kaggle prints
            api.dataset_download_files(slug, path=str(partial), quiet=not sys.stderr.isatty())
        downloaded = partial / f"{name}.zip"
        _check_zip(downloaded, slug, show_check)
        downloaded.replace(path)
        shutil.rmtree(partial)
    return path


def fetch_medmnist(size: int, folder: Path) -> Path:
    """Download PneumoniaMNIST of `size` pixels (a key of `MD5`) into `folder` and return its path.

    A complete file that is there already is not downloaded again. Raises `RequestError`.
    """
    import pooch

    name = "pneumoniamnist.npz" if size == 28 else f"pneumoniamnist_{size}.npz"
    url = f"{(os.environ.get('PNEUMO_MEDMNIST_URL') or MEDMNIST).rstrip('/')}/{name}"
    pooch.get_logger().setLevel(logging.ERROR)
    with _request_errors(url, folder):
        folder.mkdir(parents=True, exist_ok=True)
        downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty())
        pooch.retrieve(url, known_hash=f"md5:{MD5[size]}", fname=name, path=folder, downloader=downloader)
    return folder / name


@contextlib.contextmanager
def _request_errors(url: str, folder: Path) -> Iterator[None]:
    """Turn what a download may raise into a `RequestError` of one line, without credentials."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        reason = "there is no such file or dataset" if status == 404 else _REFUSED.get(status, f"answers {status}")
        raise RequestError(f"{url}: {reason}") from None
    except (requests.RequestException, EOFError) as error:
        raise RequestError(
            f"{url}: the connection failed ({type(error).__name__}); run the same command again"
        ) from None
    except ValueError as error:  # the checksum or the length differs
        raise RequestError(
            f"{url}: the download is broken and was deleted: {' '.join(str(error).split())[:200]}"
        ) from None
    except OSError as error:
        full = " (the disk is full)" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        raise RequestError(f"{folder}: cannot be written: {error.strerror or error}{full}") from None


def _kaggle_api() -> Any:
    """Return Kaggle's own API, authenticated.

    Raises `NoCredentialsError` if there are no credentials, and `RequestError` if they are refused.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # the import prints how it authenticates
        from kaggle.api.kaggle_api_extended import KaggleApi

        class Api(KaggleApi):  # type: ignore[misc]
            def download_file(self, response: Any, outfile: str, http_client: Any, *args: Any, **kwargs: Any) -> None:
                _check_space(response, Path(outfile))
                # Kaggle waits 2, 4, 8, ... s between attempts, and retries even when the disk is full.
                super().download_file(response, outfile, http_client, *args, max_retries=3, **kwargs)

        api = Api()
        try:
            api.authenticate()
        except SystemExit:
            if _has_credentials():
                raise RequestError(
                    "Kaggle refuses the credentials; create a new token at https://www.kaggle.com/settings/api"
                ) from None
            raise NoCredentialsError(CREDENTIALS) from None
    return api


def _ignore(done: int, total: int) -> None:
    """Take progress that is not shown."""


def _check_zip(path: Path, slug: str, show_check: ShowCheck) -> None:
    """Check every file in a downloaded zip, because Kaggle publishes no checksum.

    A broken zip is deleted, and `RequestError` is raised.
    """
    damage = _damage(path, show_check)
    if damage is not None:
        path.unlink()
        raise RequestError(
            f"{slug}: the download is broken ({printable(damage)}) and was deleted; run the same command again"
        )


def _damage(path: Path, show_check: ShowCheck) -> str | None:
    """Read every file of a zip and return the first one whose size or checksum is wrong, or None."""
    name = ""
    try:
        with zipfile.ZipFile(path) as archive, show_check() as progress:
            entries = archive.infolist()
            done, total = 0, sum(entry.file_size for entry in entries)
            for entry in entries:
                name, end = entry.filename, done + entry.file_size
                with archive.open(entry) as file:
                    while block := file.read(_BLOCK):
                        done += len(block)
                        progress(done, total)
                if done != end:
                    return f"{name}: {entry.file_size - (end - done):,} of {entry.file_size:,} bytes"
    # What zipfile raises depends on where the zip is broken, and on Python's version.
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, IndexError, RuntimeError, ValueError) as error:
        reason = str(error) or type(error).__name__
        return reason if not name or name in reason else f"{name}: {reason}"
    return None


def _check_space(response: Any, file: Path) -> None:
    """Raise `RequestError` if the disk cannot hold the rest of the download."""
    remaining = int(response.headers.get("Content-Length") or 0) - (file.stat().st_size if file.exists() else 0)
    free = shutil.disk_usage(file.parent).free
    if remaining > free:
        raise RequestError(
            f"{file.parent.parent}: {remaining / 1e6:,.0f} MB to fetch, {free / 1e6:,.0f} MB free; "
            f"give another folder with --to"
        )


def _has_credentials() -> bool:
    """Return whether there are credentials in one of the places where Kaggle looks for them."""
    home = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
    files = (home / "access_token", home / "kaggle.json")
    return any(os.environ.get(key) for key in ("KAGGLE_API_TOKEN", "KAGGLE_KEY")) or any(map(Path.exists, files))
