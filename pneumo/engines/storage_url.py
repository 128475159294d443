"""Database URLs: parsing them, and errors that name them without their passwords."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from pneumo.spec.databases import check_stored, missing_package
from pneumo.spec.errors import RequestError

_EXPECTED = "needs a database URL such as sqlite:///mlruns/studies.db"


def parse_storage_url(storage: str) -> URL:
    """Parse a database URL.

    Raises:
        RequestError: It is not one, its database is unknown or in memory, or the package for it is not installed.
    """
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):
        raise RequestError(f"--storage: {_EXPECTED}") from None
    check_stored(url, "--storage")
    try:
        url.get_dialect().import_dbapi()
    except NoSuchModuleError:
        raise RequestError(
            f"--storage: {url.drivername}:// is no database that is known; --storage {_EXPECTED}"
        ) from None
    except ImportError as error:
        raise RequestError(f"--storage: {missing_package(url, error.name or str(error))}") from None
    return url


def storage_error(url: URL, error: Exception) -> RequestError:
    """Return the error of a storage that cannot be used, as one line that contains no password."""
    reason = str(getattr(error, "orig", None) or getattr(error, "strerror", None) or error).splitlines()[0]
    password_keys = {key for key in url.query if "password" in key.lower()}
    for secret in (url.password, *(url.query[key] for key in password_keys)):
        if secret:
            reason = reason.replace(str(secret), "***")
    address = url.difference_update_query(password_keys).render_as_string(hide_password=True)
    return RequestError(f"--storage: {address}: {reason}")
