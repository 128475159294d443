"""A small local MLflow store with a study, written as a search writes it, without a training."""

from __future__ import annotations

from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pneumo.tracking.outbox import open_outbox
from pneumo.tracking.store import connect
from pneumo.tracking.study import end_study, end_trial, start_trial
from pneumo.tracking.trial_log import TrialLog
from tests.support.new_stores import new_database
from tests.support.outboxes import saved_model, sent
from tests.support.recorded import begun


@dataclass(frozen=True)
class Written:
    """What was written: the run of a study, and that of its trial, which has a model and `history.csv`."""

    study: str
    trial: str


def write_store(folder: Path, uri: str = "sqlite:///mlflow.db") -> Written:
    """Write a store with the study `small`, in the folder that a search would be started in."""
    folder.mkdir(parents=True, exist_ok=True)
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", absolute(uri))  # MLflow's registry reads it
        if not (file := Path(uri.removeprefix("sqlite:///"))).exists():
            new_database(file)
        store = connect(absolute(uri))
        study = begun(store, "small", open_outbox(Path("mlruns", "outbox", "small")))
        run = start_trial(study, 0, {"layers": 1}, 7, experiment_yaml="name: small\n")
        saved_model(study.outbox, run)
        TrialLog(study.outbox, run).artifacts({"history.csv": "epoch\n"})
        end_trial(study, run, "complete")
        end_study(study, "FINISHED", metrics={}, artifacts={"trials.csv": "trial\n"})
        trial = sent(study.outbox, store, run)
        client = store.client
        client.create_registered_model("small")
        (model,) = (str(logged.model_id) for logged in client.search_logged_models([study.experiment_id]))
        client.create_model_version("small", f"models:/{model}", run_id=trial, model_id=model)
    return Written(study.run_id, trial)


def absolute(uri: str) -> str:
    """Return an SQLite address with the absolute path of its file. MLflow remembers a store by its address."""
    file = uri.removeprefix("sqlite:///")
    return f"sqlite:///{Path(file).absolute()}".replace("%", "%25")  # SQLAlchemy decodes it


def addresses(uri: str, written: Written) -> set[str]:
    """Return what MLflow says about where the artifacts are: of the experiment, its runs, the model, and its version."""
    client = MlflowClient(absolute(uri))
    run = client.get_run(written.trial)
    assert run.outputs is not None
    model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    experiment = client.get_experiment(run.info.experiment_id)
    return {
        str(run.info.artifact_uri),
        str(client.get_run(written.study).info.artifact_uri),
        str(experiment.artifact_location),
        str(model.artifact_location),
        client.get_model_version_download_uri("small", "1"),
    }


def models(folder: Path) -> list[str]:
    """Return the ids of the models whose files are in a folder."""
    return sorted(path.parts[-3] for path in (folder / "mlruns").glob("*/models/*/artifacts/data"))
