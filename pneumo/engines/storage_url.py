"""Database URLs: parsing them, and errors that name them without their passwords."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from pneumo.spec.errors import RequestError


def parse_storage_url(storage: str) -> URL:
    """Parse a database URL. Raise `RequestError` if it is not one."""
    try:
        return make_url(storage)
    except ArgumentError:
        raise RequestError("--storage: needs a database URL such as sqlite:///mlruns/studies.db") from None


def storage_error(url: URL, error: Exception) -> RequestError:
    """Return the error of a storage that cannot be used, as one line that contains no password."""
    reason = str(getattr(error, "orig", None) or getattr(error, "strerror", None) or error).splitlines()[0]
    password_keys = {key for key in url.query if "password" in key.lower()}
    for secret in (url.password, *(url.query[key] for key in password_keys)):
        if secret:
            reason = reason.replace(str(secret), "***")
    address = url.difference_update_query(password_keys).render_as_string(hide_password=True)
    return RequestError(f"--storage: {address}: {reason}")
