"""Studies to promote: one that `tests/promote/conftest.py` searches, and studies whose runs are recorded without a training."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from mlflow.entities import Run
from numpy.typing import NDArray

from pneumo.data.sources import open_source
from pneumo.evidence.stress import StressPredictions
from pneumo.evidence.tables import predictions_csv
from pneumo.promote.context import PromotionContext
from pneumo.spec.experiment_file import build_experiment
from pneumo.spec.hyperparameters import TUTORIAL
from pneumo.spec.names import Tags
from pneumo.tracking.promotions import find_request
from pneumo.tracking.store import Store
from pneumo.tracking.study import StudyRun, end_study, end_trial, start_trial
from pneumo.tracking.trial_log import TrialLog
from tests.support.outboxes import saved_model, send
from tests.support.program import PHANTOMS, called, client, runs
from tests.support.recorded import begun

if TYPE_CHECKING:
    import keras

Array = NDArray[Any]

NAMES = tuple(f"picture {row}" for row in range(8))
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])

PLAIN = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9], np.float32)
"""Probabilities that a threshold of 0.5 separates."""

STRESSED = np.stack([PLAIN / 2, PLAIN**2]).astype(np.float32)
"""Those of the same pictures under two changes, which make them less probable."""
"""Names and labels of the validation pictures of a recorded study."""

STUDY = "small"

Promote = Callable[..., tuple[int, str]]
"""Runs the verb in this process with the given arguments and `--force`. Returns the exit status and the output."""

PromoteHere = Callable[..., subprocess.CompletedProcess[str]]
"""Runs the verb in this process: takes what `promote` takes, and returns the same."""


def promote(folder: Path, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = called("promote", *arguments, folder=folder)
    assert done.returncode == status, (done.stdout, done.stderr)
    return done


def aliases(folder: Path, model: str = STUDY) -> dict[str, int]:
    return {alias: int(number) for alias, number in client(folder).get_registered_model(model).aliases.items()}


def promotion_runs(folder: Path, study: str = STUDY) -> list[Run]:
    store = client(folder)
    experiment = store.get_experiment_by_name(study)
    assert experiment is not None
    promotions = store.search_runs([experiment.experiment_id], "tags.`pneumo.role` = 'promotion'")
    return sorted(promotions, key=lambda run: run.info.start_time)


def openings(folder: Path, study: str = STUDY) -> list[dict[str, str]]:
    parent, _ = runs(folder, study)
    recorded = [json.loads(value) for key, value in sorted(parent.data.tags.items()) if "test_opening." in key]
    assert parent.data.metrics.get("test_openings", 0) == len(recorded)
    return recorded


@dataclass(frozen=True, eq=False)
class Recorded:
    """A complete run as a search records it, whose probabilities are given instead of trained.

    Attributes:
        number: Number of the trial.
        plain: Probabilities of the validation pictures, shape (n,).
        stressed: Probabilities under each change of the stress suite, shape (changes, n); None if there are none.
        network: The run's network, which is logged as its model.
        model: Whether the run has a model that no test loads.
        seed: The seed; another than 0 makes the run a confirmation.
        value: The value of the objective.
        names: Names of the validation pictures.
        image_size: Side of the network's input. The tutorial's, 64, is recorded as if the hyperparameter were inactive.
        stressed_pictures: Rows of the pictures that were predicted under the suite; None means all.
    """

    number: int
    plain: Array
    stressed: Array | None = None
    network: keras.Model | None = None
    model: bool = False
    seed: int = 0
    value: float = 0.9
    names: Sequence[str] = NAMES
    image_size: int = 32
    stressed_pictures: Sequence[int] | None = None


def record(store: Store, name: str, runs: Sequence[Recorded], promote: Mapping[str, object] | None = None) -> list[str]:
    """Record a study on phantoms in the current folder, and return the ids of its runs."""
    document = {"name": name, "data": PHANTOMS, "promote": dict(promote or {})}
    experiment = build_experiment(document, "the test")
    tags = {Tags.DATA_TEST: open_source(experiment.data).test_digest}
    study = begun(store, name, experiment_yaml=experiment.to_yaml(), tags=tags)
    keys = [_record_run(study, run) for run in runs]
    end_study(study, "FINISHED", metrics={}, artifacts={})
    send(study.outbox, store)
    ids = [study.outbox.run_id(key) for key in keys]
    assert None not in ids
    return [run_id for run_id in ids if run_id]


def _record_run(study: StudyRun, run: Recorded) -> str:
    parameters = {"channels": 1} | ({} if run.image_size == TUTORIAL.image_size else {"image_size": run.image_size})
    key = start_trial(study, run.number, parameters, run.seed, role="confirm" if run.seed else "trial")
    log = TrialLog(study.outbox, key)
    if run.network is not None:
        log.model(run.network, np.zeros((1, run.image_size, run.image_size, 1), np.uint8))
    elif run.model:
        saved_model(study.outbox, key)
    files: dict[str, str | bytes] = {}
    files["predictions.csv"] = predictions_csv(run.names, ["one"] * len(run.names), LABELS, run.plain)
    if run.stressed is not None:
        changes = tuple(f"change {row}" for row in range(len(run.stressed)))
        rows = list(run.stressed_pictures or range(len(run.names)))
        names, probabilities = np.array(run.names)[rows], np.asarray(run.stressed, np.float32)[:, rows]
        stress = StressPredictions("stress-1", changes, names, LABELS[rows], run.plain[rows], probabilities)
        files["stress_predictions.npz"] = stress.to_bytes()
    log.artifacts(files)
    log.finish({"best_val_auc": run.value, "parameters": 100})
    end_trial(study, key, "complete")
    return key


def context(store: Store, study: str, run_id: str | None = None, **promote: object) -> PromotionContext:
    """Return what `python -m pneumo.promote` makes of its command line, with other settings of the `promote` block."""
    request = find_request(store, run_id or study)
    document = yaml.safe_load(request.recorded.experiment_yaml or "")
    experiment = build_experiment(document | {"promote": document["promote"] | promote}, "the test")
    return PromotionContext(store, request, experiment, open_source(experiment.data), study, "champion")
