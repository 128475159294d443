"""python -m pneumo.promote with an MLflow server that asks who its users are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.server.auth.client import AuthServiceClient

from tests.support.mlflow_server import Server
from tests.support.program import called, write

ADMIN, PASSWORD = "admin", "a-long-password-of-tests"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a server with basic authentication. Its users are the administrator, Ann and Bob."""
    folder = tmp_path_factory.mktemp("auth")
    settings = folder / "basic_auth.ini"
    settings.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = {ADMIN}\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "auth_cache_ttl_seconds = 600\n"  # without it each request hashes the password, for a second
    )
    store = ("--serve-artifacts", "--artifacts-destination", str(folder / "artifacts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(settings))
        patch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "a-secret-of-tests")
        patch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        server = Server(folder, "--app-name", "basic-auth", *store)
        try:
            server.start()
            users = AuthServiceClient(server.address)
            for name in ("ann", "bob"):
                users.create_user(name, PASSWORD)
            yield server.address
        finally:
            server.stop()


def signed_in(server: str, name: str) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_URI": server,
        "MLFLOW_TRACKING_USERNAME": name,
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    }


@pytest.mark.slow
def test_a_user_who_is_no_administrator_promotes_first_and_another_is_told_why_not(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = signed_in(server, "ann"), signed_in(server, "bob")
    experiment = write(tmp_path, search={"trials": 1})
    assert called("search", experiment, folder=tmp_path, **ann).returncode == 0
    done = called("promote", "--force", "the first", folder=tmp_path, **ann)
    assert done.returncode == 0, done.stderr
    assert "version 1 of small is champion" in done.stdout

    refused = called("promote", "--set", "promote.threshold=0.3", "--force", "mine", folder=tmp_path, **bob)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "MLflow does not let bob do this" in refused.stderr
    assert "run the same command again" not in refused.stdout
    assert PASSWORD not in refused.stdout + refused.stderr

    for name, value in bob.items():
        monkeypatch.setenv(name, value)
    assert MlflowClient().get_registered_model("small").aliases == {"champion": "1"}
