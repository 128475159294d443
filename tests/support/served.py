"""A small registered model: a network with weights from a seed, logged as a trial's and registered as a promoted one."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pneumo.data import decoding
from pneumo.spec.hyperparameters import Hyperparameters
from pneumo.tracking import registry
from pneumo.tracking.outbox import open_outbox
from pneumo.tracking.runs import model_of
from pneumo.tracking.served import Decision, Member, Served, load_served, log_served, model_folder, save_served
from pneumo.tracking.store import Store
from pneumo.tracking.study import start_trial
from pneumo.tracking.trial_log import TrialLog
from tests.support.new_stores import new_store
from tests.support.outboxes import sent
from tests.support.pictures import encoded
from tests.support.recorded import begun

SIDE = 32
DECODER = Path(decoding.__file__).parent
CLASSES = ("NORMAL", "PNEUMONIA")


@dataclass(frozen=True)
class Small:
    """A store with one registered model, `small`, whose version 1 is the champion; and the network's folder."""

    store: Store
    served: Served
    network: Path
    trial_run: str


def register(folder: Path, decision: Decision, name: str = "small", seed: int = 0) -> Small:
    """Create a store in a folder, a trial's run with its model, a version of a registered model, and its alias."""
    import numpy as np

    from pneumo.cnn.build import build

    store = new_store(folder)
    outbox = open_outbox(folder / "outbox")
    key = start_trial(begun(store, name, outbox), 0, {"layers": 1}, seed)
    (member,) = decision.members
    values = Hyperparameters.model_validate(
        {"image_size": member.image_size, "channels": member.channels, "filters": 4, "dense_units": 8}
    )
    TrialLog(outbox, key).model(
        build(values, seed=seed), np.zeros((1, member.image_size, member.image_size, member.channels), np.uint8)
    )
    run_id = sent(outbox, store, key)
    network = model_folder(store, f"models:/{model_of(store, run_id)}")
    to = folder / f"{name}-{seed}"
    save_served([network], DECODER, decision, base64.b64encode(encoded()).decode(), to)
    promotion = store.client.create_run(store.client.get_run(run_id).info.experiment_id).info.run_id
    model_id = log_served(store, promotion, to, {})
    tags = {"pneumo.data": "kaggle", "test_auc": "0.9 (0.8 to 0.95)", "pneumo.gate": "passed"}
    version = registry.create(store, name, model_id=model_id, run_id=run_id, tags=tags, card="A card.")
    registry.move(store, name, registry.CHAMPION, version.number)
    return Small(store, load_served(store, f"models:/{name}@champion"), network, run_id)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    """Yield one model for the session. Its threshold is within the range of its probabilities for noise."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # MLflow stores artifacts in the current folder
        yield register(folder, Decision(CLASSES, 0.5, 1.0, (Member("", 1.0, SIDE, 3),)))
