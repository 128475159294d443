"""What an exception of MLflow's client means: whether it is final, and a short reason for people.

MLflow gives an error code, or its exception was raised from one of requests, SQLAlchemy or Python that has a type. Words in a
message decide only if there is nothing else: an MLflow server's message about its own database, psycopg's about a timeout, and
urllib3's about its last retry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import requests
import sqlalchemy.exc
from mlflow.exceptions import MlflowException, RestException

from pneumo.spec.masking import mask_passwords

_REFUSAL_CODES = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST"})
"""MLflow's error codes of a request that fails however often it is sent."""

_REFUSAL_STATUSES = frozenset({400, 413, 422})
"""HTTP status codes of an upload that fails however often it is sent."""

_NOT_PERMITTED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED"})
"""MLflow's error codes of a server that does not let this user do something: HTTP status 403 and 401."""

_TIMEOUTS = (TimeoutError, requests.exceptions.Timeout, sqlalchemy.exc.TimeoutError)

_ROLLBACK_NEEDED = "8s2b"
"""SQLAlchemy's code of a session that lost its connection within a transaction."""

_DATABASE_WORDS = ("QueuePool limit", "InterfaceError", "reconnect")
"""In an MLflow server's message: SQLAlchemy has no connection to its database. The server calls it a bad request."""

_LONGEST_REASON = 200


def is_final(error: MlflowException | requests.HTTPError, tracking_uri: str) -> bool:
    """Return whether MLflow itself refused a request, so that sending it again is useless.

    False if something between here and MLflow answered, if nothing answered, or if MLflow's database was unreachable.
    """
    if isinstance(error, requests.HTTPError):
        return error.response is not None and error.response.status_code in _REFUSAL_STATUSES
    if error.error_code not in _REFUSAL_CODES:
        return False
    if isinstance(error, RestException):
        # The server sends the text of SQLAlchemy's exception, and neither its type nor its code.
        return not any(words in str(error) for words in _DATABASE_WORDS)
    return not tracking_uri.startswith("http") and not any(map(_is_lost_connection, _chain(error)))


def is_not_permitted(error: BaseException) -> bool:
    """Return whether MLflow's server does not let this user do what was asked."""
    return isinstance(error, MlflowException) and error.error_code in _NOT_PERMITTED


def is_timeout(error: BaseException) -> bool:
    """Return whether MLflow, or its database, did not answer in time."""
    if any(isinstance(cause, _TIMEOUTS) for cause in _chain(error)):
        return True
    # As text alone: an MLflow server's "QueuePool limit ... connection timed out", psycopg's "connection timeout expired".
    return "timeout" in str(error) or "timed out" in str(error)


def failure_reason(error: Exception) -> str:
    """Return why MLflow did not accept an operation, in one line without passwords."""
    if any(isinstance(cause, ConnectionRefusedError) for cause in _chain(error)):
        return "connection refused"
    if is_timeout(error):
        return "no answer in time"
    text = " ".join(mask_passwords(str(error) or type(error).__name__).split())
    # urllib3's ResponseError, raised after the last retry, has the status in its text alone.
    if status := re.search(r"too many (\d{3}) error responses", text):
        return f"HTTP {status[1]}"
    return text.partition(" [SQL")[0][:_LONGEST_REASON]


def _is_lost_connection(error: BaseException) -> bool:
    return isinstance(error, sqlalchemy.exc.TimeoutError | sqlalchemy.exc.InterfaceError) or (
        isinstance(error, sqlalchemy.exc.PendingRollbackError) and error.code == _ROLLBACK_NEEDED
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
