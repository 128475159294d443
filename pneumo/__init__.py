"""pneumo: hyperparameter search for chest X-ray classifiers, every trial an MLflow run.

search.py    python -m pneumo.search; command.py what every verb shares, checks.py what a search refuses, ending.py how it ends
study.py     the loop: ask, train, tell; screen.py what it shows, record.py what it leaves in MLflow; sending.py waits for that
checkpoints.py  where a trial leaves what it or a later one goes on from
retention.py  which models stay; room.py whether all of it fits on the disk
confirm.py   the best trials trained again over other seeds
trial.py     one trial, the only code that a worker process enters; provenance.py by what it was trained
promote.py   python -m pneumo.promote; promotion.py its steps, pick.py which run, judging.py on the test pictures, card.py
predict.py   python -m pneumo.predict; listing.py its rows as a table, CSV or JSON
replay.py    python -m pneumo.replay: a recorded trial trained again; difference.py compares
integrity.py whether a study's record is whole: its engine's against MLflow's
spec/        pure values and decisions: experiment, space, algorithms, candidate, result, objective, which trial is best
engines/     who proposes: Optuna, Keras Tuner
data/        where pictures come from, who is a patient, the split, the cache; python -m pneumo.data: fetch, audit
cnn/         the base network and its variations, where it looks, its export (tensorflow lives only here)
evidence/    metrics, intervals, the gate, plots, tables: arrays in, numbers and figures out
tracking/    runs, the registry, the model that takes pictures (mlflow lives only here)
compute/     where trials run: worker processes of this machine
"""

__version__ = "0.1.0"
