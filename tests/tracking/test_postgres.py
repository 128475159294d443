"""The stack of docker/compose.yaml without Docker: MLflow's server with the same options, Optuna, a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import requests
import yaml

from tests.conftest import ROOT
from tests.support.mlflow_server import serve
from tests.support.postgres import USER, Postgres

pytestmark = pytest.mark.slow

SERVICES = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]


def test_mlflow_server_of_the_compose_file_keeps_runs_in_postgresql(
    postgres: Postgres, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    postgres.create("mlflow")
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    options = dict(option.split("=", 1) for option in SERVICES["mlflow"]["command"])
    del options["--host"], options["--port"]
    options["--backend-store-uri"] = here(options["--backend-store-uri"], postgres)
    options["--artifacts-destination"] = str(project / "artifacts")

    with serve(project, *(f"{name}={value}" for name, value in options.items())) as address:
        client = MlflowClient(address)
        experiment = client.create_experiment("study")
        run = client.create_run(experiment).info.run_id
        client.log_metric(run, "val_auc", 0.9, step=1)
        (project / "history.csv").write_text("epoch,val_auc\n1,0.9\n")
        client.log_artifact(run, str(project / "history.csv"))
        client.set_terminated(run)

        stored = client.get_run(run)
        assert stored.info.status == "FINISHED"
        assert stored.data.metrics == {"val_auc": 0.9}
        assert [a.path for a in client.list_artifacts(run)] == ["history.csv"]

        # Host names: of another container of the stack, of a browser on the host, and of a stranger.
        url = f"{address}/api/2.0/mlflow/experiments/get?experiment_id={experiment}"
        hosts = ("mlflow:5000", "localhost:8080", "elsewhere.example")
        answers = {host: requests.get(url, headers={"Host": host}, timeout=30).status_code for host in hosts}
        assert answers == {"mlflow:5000": 200, "localhost:8080": 200, "elsewhere.example": 403}

    assert [p.read_text() for p in (project / "artifacts").rglob("history.csv")] == ["epoch,val_auc\n1,0.9\n"]
    with psycopg.connect(host=str(postgres.socket), user=USER, dbname="mlflow") as connection:
        assert connection.execute("SELECT run_uuid, status FROM runs").fetchall() == [(run, "FINISHED")]


def test_the_search_of_the_compose_file_finds_its_database(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    postgres.run((ROOT / "docker" / "databases.sql").read_text())
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    entrypoint = SERVICES["search"]["entrypoint"]
    storage = here(entrypoint[entrypoint.index("--storage") + 1], postgres)
    study = optuna.create_study(study_name="study", storage=storage)
    study.tell(study.ask(), 0.5)
    assert optuna.load_study(study_name="study", storage=storage).best_value == 0.5


def here(url: str, postgres: Postgres) -> str:
    """Return an address of the compose file, with the test's server in place of the host `postgres`."""
    scheme, separator, database = url.partition(f"://{USER}@postgres/")
    assert separator, f"{url} does not lead to the stack's PostgreSQL"
    return f"{scheme}://{USER}@/{database}?host={postgres.socket}"
