"""python -m pneumo.promote on stressed validation pictures: what the card, the record and the output say of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.support.networks import brightness_network
from tests.support.new_stores import new_store
from tests.support.promotions import PLAIN, STRESSED, Promote, Recorded, openings, promotion_runs, record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a study of two networks that recorded stress predictions, and one of an earlier version."""
    folder = tmp_path_factory.mktemp("stressed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = new_store(folder)
        baseline, other = brightness_network(2.0, channels=1), brightness_network(channels=1)
        for name, stressed in (("stressed", STRESSED), ("earlier", None)):
            runs = [Recorded(0, PLAIN, stressed, baseline, value=0.8), Recorded(1, PLAIN, stressed, other)]
            record(store, name, runs)
        yield folder


def promoted(folder: Path, study: str) -> tuple[Run, dict[str, object], str]:
    """Return the run of the last promotion, what its `gate.json` says of the operating point, and its card."""
    run, store = promotion_runs(folder, study)[-1], MlflowClient()
    gate, card = (
        Path(store.download_artifacts(run.info.run_id, name)).read_text() for name in ("gate.json", "card.md")
    )
    return run, json.loads(gate)["operating_point"], card


def test_the_record_says_where_the_point_was_chosen_and_its_price(folder: Path, promote: Promote) -> None:
    status, output = promote("stressed")
    assert status == 0
    run, gate, card = promoted(folder, "stressed")
    lines = [line for line in output.splitlines() if "validation pictures" in line]
    assert len(lines) == 2
    assert all(line in card for line in lines)
    threshold = float(run.data.params["threshold"])
    assert (run.data.params["threshold_on"], gate["on"]) == ("stress", "stress")
    expected = {
        "operating_point_accuracy": np.mean((threshold <= PLAIN) == (PLAIN > 0.5)),
        "operating_point_stress_accuracy": np.mean((threshold <= STRESSED) == (PLAIN > 0.5)),
        "other_point_threshold": 0.5,
        "other_point_accuracy": 1.0,
        "other_point_stress_accuracy": np.mean((STRESSED >= 0.5) == (PLAIN > 0.5)),
    }
    assert {name: run.data.metrics[name] for name in expected} == pytest.approx(expected)
    version = MlflowClient().get_model_version_by_alias("stressed", "champion")
    assert (version.tags["pneumo.threshold_on"], version.tags["pneumo.threshold"]) == ("stress", repr(threshold))

    assert "Already promoted" in promote("stressed")[1]
    assert len(openings(folder, "stressed")) == 1
    assert "Already promoted" not in promote("stressed", "--set", "promote.on=validation")[1]
    assert promotion_runs(folder, "stressed")[-1].data.params["threshold_on"] == "validation"
    assert len(openings(folder, "stressed")) == 2


def test_a_study_of_an_earlier_version_is_promoted_at_the_plain_point_and_says_so(
    folder: Path, promote: Promote
) -> None:
    output = promote("earlier")[1]
    run, gate, card = promoted(folder, "earlier")
    said = "because no predictions under the stress suite were recorded"
    assert sum(said in line for line in output.splitlines()) == 2, (
        "expected a line for the model and one for the baseline"
    )
    assert card.count(said) == 2
    assert (gate["on"], gate["lacks_stress"], run.data.params["threshold_on"]) == ("validation", True, "validation")
    assert "Already promoted" in promote("earlier", "--set", "promote.on=validation")[1]
