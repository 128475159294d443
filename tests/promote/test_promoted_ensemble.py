"""python -m pneumo.promote --set promote.ensemble=N: one registered model of several networks, and its record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from pneumo.data.sealed import open_sealed_test
from pneumo.data.sources import open_source
from pneumo.spec.errors import RequestError
from pneumo.tracking.models import remove
from pneumo.tracking.served import load_served
from pneumo.tracking.store import Store
from tests.support.networks import brightness_network
from tests.support.new_stores import new_store
from tests.support.pictures import encoded
from tests.support.promotions import Promote, Recorded, aliases, context, openings, promotion_runs, record

GOOD = np.array([0.1, 0.2, 0.2, 0.7, 0.8, 0.9, 0.8, 0.9], np.float32)
OTHER = np.array([0.3, 0.1, 0.2, 0.1, 0.8, 0.9, 0.9, 0.2], np.float32)
STUDY = "study"
ENSEMBLE = ("--set", "promote.ensemble=3")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, list[str]]]:
    """A study of three networks: the baseline, and two that complement each other, at different sizes."""
    folder = tmp_path_factory.mktemp("ensemble")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = new_store(folder)
        runs = [
            Recorded(0, 1 - GOOD, np.stack([1 - GOOD]), brightness_network(2.0, channels=1), value=0.8),
            Recorded(1, GOOD, np.stack([GOOD]), brightness_network(channels=1)),
            Recorded(2, OTHER, np.stack([OTHER]), brightness_network(8.0, channels=1, image_size=48), image_size=48),
        ]
        yield store, record(store, STUDY, runs)


def test_an_ensemble_is_promoted_as_one_model_with_its_members_and_its_gain(
    recorded: tuple[Store, list[str]], promote: Promote
) -> None:
    store, (_, first, second) = recorded
    folder = Path()
    status, output = promote(STUDY, *ENSEMBLE)
    assert status == 0
    for line in (
        "Study study: an ensemble of 2 of 3 runs, log loss ",
        "  weight 0.667: trial 1, ",
        "  weight 0.333: trial 2, ",
    ):
        assert line in output
    assert "Gain of the ensemble over its best member on the test pictures: AUC " in output
    assert len(openings(folder, STUDY)) == 1, "the best member was judged in an opening of its own"
    assert openings(folder, STUDY)[0]["run_id"] == f"{first}, {second}"

    (run,) = promotion_runs(folder, STUDY)
    version = MlflowClient().get_model_version_by_alias(STUDY, "champion")
    for tags in (run.data.tags, version.tags):
        assert tags["pneumo.members"] == f"{first} 0.666667, {second} 0.333333"
        assert tags["pneumo.run"] == first
    assert run.data.params["ensemble"] == "3"
    assert version.tags["pneumo.threshold"] == run.data.params["threshold"]
    gain = json.loads(Path(MlflowClient().download_artifacts(run.info.run_id, "gate.json")).read_text())["gain"]
    for name in ("auc", "accuracy"):
        ends = {"value": "", "low": "_low", "high": "_high"}
        recorded_gain = {end: run.data.metrics.get(f"ensemble_gain_{name}{suffix}") for end, suffix in ends.items()}
        assert recorded_gain == gain[name]
    card = version.description or ""
    assert "An ensemble of 2 convolutional networks of 200 parameters" in card
    assert f"| trial 1 | {first} | 0.667 |" in card
    assert f"| trial 2 | {second} | 0.333 |" in card
    assert "Gain of the ensemble over its best member" in card

    served = load_served(store, f"models:/{STUDY}@champion")
    assert [(member.run_id, member.image_size) for member in served.decision.members] == [(first, 32), (second, 48)]
    source = open_sealed_test(open_source(context(store, STUDY).experiment.data))
    picture = source.encoded(source.pictures[0])
    (mean,) = served.predict([picture])
    assert mean.probability is not None
    assert 0 < mean.probability < 1

    assert "Already promoted" in promote(STUDY, *ENSEMBLE)[1]
    assert "Already promoted" not in promote(first)[1]
    assert aliases(folder, STUDY) == {"champion": 2, "previous": 1}
    assert len(openings(folder, STUDY)) == 2
    alone = promotion_runs(folder, STUDY)[-1]
    for name in ("auc", "accuracy"):
        gained = run.data.metrics[f"test_{name}"] - alone.data.metrics[f"test_{name}"]
        assert gain[name]["value"] == pytest.approx(gained, abs=1e-12)


def test_the_models_of_members_are_not_removed(recorded: tuple[Store, list[str]], promote: Promote) -> None:
    store, run_ids = recorded
    promote(STUDY, *ENSEMBLE)
    for run_id in run_ids:
        remove(store, run_id, "not among the best 1")
    removed = ["pneumo.model_removed" in store.client.get_run(run_id).data.tags for run_id in run_ids]
    assert removed == [True, False, False]


def test_an_ensemble_of_a_named_run_is_refused(recorded: tuple[Store, list[str]], promote: Promote) -> None:
    with pytest.raises(RequestError, match="takes runs of the whole study, not one that is named"):
        promote(recorded[1][1], *ENSEMBLE)


def test_an_ensembles_probability_is_the_weighted_mean_of_its_members(
    recorded: tuple[Store, list[str]], promote: Promote
) -> None:
    store, run_ids = recorded
    promote(STUDY, *ENSEMBLE, "--model", "mean")
    promote(run_ids[1], "--model", "first")
    promote(run_ids[2], "--model", "second")
    source = open_source(context(store, STUDY).experiment.data)
    pictures = [source.encoded(picture) for picture in source.pictures[:4]]
    mean, first, second = (
        np.array([each.probability for each in load_served(store, f"models:/{name}@champion").predict(pictures)])
        for name in ("mean", "first", "second")
    )
    assert np.ptp(first - second) > 1e-3
    np.testing.assert_allclose(mean, 2 / 3 * first + 1 / 3 * second, rtol=1e-12)


def test_an_ensemble_is_explained_and_exported(
    recorded: tuple[Store, list[str]], promote: Promote, tmp_path: Path
) -> None:
    from pneumo.predict.__main__ import app

    promote(STUDY, *ENSEMBLE, "--model", "explained")
    picture = tmp_path / "picture.jpeg"
    picture.write_bytes(encoded(1))
    model = ("--model", "models:/explained@champion")
    app([str(picture), *model, "--explain", str(tmp_path / "overlays")], standalone_mode=False)
    assert [path.suffix for path in (tmp_path / "overlays").iterdir()] == [".png"]
    app([*model, "--export", "onnx", str(tmp_path / "it.onnx")], standalone_mode=False)
    assert (tmp_path / "it.onnx").exists()
