"""pneumo: hyperparameter search for chest X-ray classifiers. Every trial is an MLflow run.

The verbs. Each has its command line in `__main__.py`; `pneumo VERB` and `python -m pneumo.VERB` run it:

search/      run a study, resume it, or check its record
promote/     register a study's best trial as a model if it passes the gate
predict/     predict pictures with a registered model
replay/      train a recorded trial again and compare the metrics
report/      write a report of a study, or of several side by side, as one HTML page
ui/          show a study in MLflow's own pages
data/        download, audit and prepare pictures; sources, patients, split, cache

What the verbs share, from the top layer down (a module imports from lower layers only):

training/    one trial: the code that a worker process runs
console/     command lines, signals, output on the screen
engines/     Optuna and Keras Tuner, which propose candidates
cnn/         networks and their training (the only folder that imports TensorFlow)
evidence/    metrics, intervals, the gate, plots, tables: arrays in, numbers and figures out
tracking/    runs, the registry, served models (the only folder that imports MLflow)
compute/     worker processes on this machine, and the disk
spec/        values and decisions: experiment, space, candidate, result, which trial is best
"""

__version__ = "0.1.0"
