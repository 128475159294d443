"""Runs in MLflow (mlflow lives only here).

store.py   which MLflow, and whether it answers
study.py   the driver's side: a study's run, a run for each trial
models.py  the models that trials logged, and removing one
views.py   what MLflow's pages show of a study
trial.py   a worker's side: metrics, artifacts, the model, system metrics
outbox.py  where all that both write waits on disk; sender.py takes it to MLflow, delivery.py says how
"""

import os

# MLflow reads these when it is imported or at each call, in this process and in the workers that it spawns; what the
# user has set stands.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a search on patients' pictures calls nobody but its own store
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # others may be able to write where models lie
    # By default a call to a server that is gone takes four minutes to fail, and one that hangs fourteen; with these a
    # quarter of a minute and one.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}.items():
    os.environ.setdefault(_name, _value)
