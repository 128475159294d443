"""All services together: a search, a promotion, a prediction and a replay with an MLflow server and PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from tests.support.pictures import encoded
from tests.support.postgres import Postgres
from tests.support.program import called, search, write

pytestmark = pytest.mark.slow


def test_a_search_on_a_server_and_postgresql(postgres: Postgres, mlflow_server: str, tmp_path: Path) -> None:
    storage = postgres.create("searched")
    experiment = write(tmp_path, name="stack", search={"trials": 2}, hyperparameters={"layers": [1, 2]})
    arguments = [experiment, "--storage", storage]
    done = search(*arguments, folder=tmp_path, MLFLOW_TRACKING_URI=mlflow_server)
    assert done.returncode == 0, done.stderr
    assert f"or open {mlflow_server}/#/experiments/" in done.stdout
    assert postgres.password not in done.stdout + done.stderr
    assert not (tmp_path / "mlflow.db").exists()

    store = MlflowClient(mlflow_server)
    mlflow_experiment = store.get_experiment_by_name("stack")
    assert mlflow_experiment is not None
    runs = store.search_runs([mlflow_experiment.experiment_id], "tags.`pneumo.role` = 'trial'")
    assert {run.data.tags["pneumo.state"] for run in runs} == {"complete"}
    for run in runs:
        plots = {file.path for file in store.list_artifacts(run.info.run_id, "plots")}
        assert plots == {f"plots/{name}.png" for name in run.data.tags["pneumo.plots"].split(", ")} >= {"plots/roc.png"}
    assert len(optuna.load_study(study_name="stack", storage=storage).trials) == 2

    resumed = search(*arguments, "--trials", 3, folder=tmp_path, MLFLOW_TRACKING_URI=mlflow_server)
    assert resumed.returncode == 0, resumed.stderr
    assert len(store.search_runs([mlflow_experiment.experiment_id], "tags.`pneumo.role` = 'trial'")) == 3

    promoted = called("promote", "stack", "--force", "a test", folder=tmp_path, MLFLOW_TRACKING_URI=mlflow_server)
    assert promoted.returncode == 0, promoted.stderr
    version = store.get_model_version_by_alias("stack", "champion")
    assert "phantoms" in str(version.description)
    (tmp_path / "scan.jpeg").write_bytes(encoded())
    options = ["--model", "models:/stack@champion", "--format", "csv"]
    predicted = called("predict", "scan.jpeg", *options, folder=tmp_path, MLFLOW_TRACKING_URI=mlflow_server)
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout.startswith("name,probability,label,threshold\nscan.jpeg,0.")
    replayed = called("replay", version.tags["pneumo.run"], folder=tmp_path, MLFLOW_TRACKING_URI=mlflow_server)
    assert replayed.returncode == 0, replayed.stdout
    assert "Every metric is equal to the last bit." in replayed.stdout
