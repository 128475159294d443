"""Which errors of MLflow are final, and the reasons that people read."""

from __future__ import annotations

import socket

import pytest
import requests
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException

from pneumo.tracking.failures import failure_reason, is_final

SQLITE = "sqlite:///mlflow.db"
SERVER = "http://127.0.0.1:1"


def raised(message: str, code: str, cause: Exception | None = None) -> MlflowException:
    """Return an exception of MLflow that was raised from another."""
    from mlflow.protos.databricks_pb2 import ErrorCode

    error = MlflowException(message, error_code=ErrorCode.Value(code))
    error.__cause__ = cause
    return error


def answered(message: str, code: str) -> RestException:
    """Return the exception for an answer of an MLflow server."""
    return RestException({"error_code": code, "message": message})  # type: ignore[no-untyped-call]


def uploaded(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} Error", response=response)


@pytest.mark.parametrize(
    ("error", "uri", "final"),
    [
        (raised("no run", "RESOURCE_DOES_NOT_EXIST"), SQLITE, True),
        (raised("database is locked", "TEMPORARILY_UNAVAILABLE"), SQLITE, False),
        (raised("UNIQUE constraint failed", "BAD_REQUEST", sqlalchemy.exc.IntegrityError("", {}, Exception())), SQLITE, True),
        (raised("QueuePool limit", "BAD_REQUEST", sqlalchemy.exc.TimeoutError("QueuePool limit")), SQLITE, False),
        (raised("gone", "BAD_REQUEST", sqlalchemy.exc.InterfaceError("", {}, Exception())), SQLITE, False),
        (raised("lost", "BAD_REQUEST", sqlalchemy.exc.PendingRollbackError("reconnect", code="8s2b")), SQLITE, False),
        (raised("not an answer of a server", "BAD_REQUEST"), SERVER, False),
        (answered("no run", "RESOURCE_DOES_NOT_EXIST"), SERVER, True),
        (answered("QueuePool limit of size 1 overflow 1 reached", "BAD_REQUEST"), SERVER, False),
        (answered("it broke", "INTERNAL_ERROR"), SERVER, False),
        (uploaded(413), SERVER, True),
        (uploaded(503), SERVER, False),
    ],
)  # fmt: skip
def test_an_error_is_final_if_mlflow_itself_refuses(
    error: MlflowException | requests.HTTPError, uri: str, final: bool
) -> None:
    assert is_final(error, uri) is final


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (raised("failed", "INTERNAL_ERROR", requests.ReadTimeout("read")), "no answer in time"),
        (raised("failed", "BAD_REQUEST", sqlalchemy.exc.TimeoutError("QueuePool limit")), "no answer in time"),
        (Exception("connection failed: connection timeout expired"), "no answer in time"),
        (Exception("Max retries exceeded (too many 503 error responses)"), "HTTP 503"),
        (Exception("database is locked\n[SQL: UPDATE]"), "database is locked"),
        (Exception("http://someone:s3cret@host: no"), "http://***@host: no"),
    ],
)
def test_a_reason_is_one_line_without_passwords(error: Exception, reason: str) -> None:
    assert failure_reason(error) == reason


def test_a_closed_port_refuses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = MlflowClient(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(MlflowException) as raising:
            client.search_experiments()
    assert failure_reason(raising.value) == "connection refused"
    assert not is_final(raising.value, client.tracking_uri)
