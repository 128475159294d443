"""Everything that talks to MLflow. No other folder imports mlflow.

store         connect to MLflow
location      correct the addresses of artifacts in a folder that was copied or moved
study         the driver's runs: of a study, of its trials and confirmations
find          find a study whose MLflow experiment was renamed, or say that its run was deleted
runs          read and write a single run, whatever its role
trial_log     what a worker writes into a trial's run: metrics, artifacts, the model, system metrics
views         named views of a study in MLflow's pages
pages         serve those pages

outbox        queue on disk for everything that a study writes
operations    what can be queued
sender        thread that sends the queue to MLflow
delivery      execute a queued operation in MLflow
failures      whether an error of MLflow is final, and its reason for people

recorded      what a trial's run says about its training, for a replay
live          a study that may be running, for --watch
study_record  a whole study, for its report
inventory     everything that MLflow stores for a study, for --check

models        list, upload and remove the models of runs
promotions    a promotion's run, and the openings of the test pictures
registry      the model registry: versions and aliases
served        save, log and load a registered model that takes pictures
served_model  the code of such a model, which MLflow stores with it
"""

import os

# MLflow reads these variables when it is imported or at each call, in this process and in its workers. Values that the user
# has set are not changed.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a search on patients' pictures connects to its own store alone
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # others may be able to write to the folder of models
    # By default, a call fails after four minutes if the server is gone and after fourteen if it hangs. With these values it
    # is a quarter of a minute and one minute.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}.items():
    os.environ.setdefault(_name, _value)
