"""pneumo: hyperparameter search for chest X-ray classifiers, every trial an MLflow run.

search.py    python -m pneumo.search; command.py what every verb shares, checks.py what a search refuses, ending.py how it ends
study.py     the loop: ask, train, tell; screen.py what it shows, record.py what it leaves in MLflow; sending.py waits for that
rungs.py     which trial goes on from which
confirm.py   the best trials trained again over other seeds
trial.py     one trial, the only code that a worker process enters
spec/        pure values and decisions: experiment, space, algorithms, candidate, result, objective, which trial is best
engines/     who proposes: Optuna, Keras Tuner
data/        where pictures come from, who is a patient, the split, the cache; python -m pneumo.data: fetch, audit
cnn/         the base network and its variations (tensorflow lives only here)
evidence/    metrics, plots, tables: arrays in, numbers and figures out
tracking/    runs in MLflow (mlflow lives only here)
compute/     where trials run: worker processes of this machine
"""

__version__ = "0.1.0"
