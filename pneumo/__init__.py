"""pneumo: hyperparameter search for chest X-ray classifiers; every trial is an MLflow run.

The verbs, each with its command line in `__main__.py`:

search/      python -m pneumo.search    run a study, or resume one; check its record
promote/     python -m pneumo.promote   take the best trial to the MLflow model registry, if it deserves it
predict/     python -m pneumo.predict   predict pictures with a registered model
replay/      python -m pneumo.replay    train a recorded trial again and compare
data/        python -m pneumo.data      fetch, audit and prepare pictures; sources, patients, split, cache

What they share, from the top layer down (imports point down only):

training/    one trial: the only code that a worker process runs
console/     command lines, signals, what is shown on the screen
engines/     who proposes candidates: Optuna, Keras Tuner
cnn/         networks and their training (tensorflow lives only here)
evidence/    metrics, intervals, the gate, plots, tables: arrays in, numbers and figures out
tracking/    runs, the registry, served models (mlflow lives only here)
compute/     where trials run: worker processes of this machine; the disk
spec/        pure values and decisions: experiment, space, candidate, result, which trial is best
"""

__version__ = "0.1.0"
