"""Where an operating point is chosen: on stressed or on plain validation pictures, from what the runs recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumo.evidence.metrics import operating_point
from pneumo.evidence.scaling import fit_temperature, scale_probabilities
from pneumo.promote.choose import Chosen
from pneumo.promote.nominee import Nominee, nominate
from pneumo.promote.reference import choose_reference
from pneumo.spec.errors import RequestError
from pneumo.tracking.store import Store
from pneumo.tracking.study import trial_runs
from tests.support.new_stores import new_store
from tests.support.promotions import LABELS, PLAIN, STRESSED, Recorded, context, record


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with a study that recorded stress predictions, one that recorded none, and one where both points are equal."""
    folder = tmp_path_factory.mktemp("points")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = new_store(folder)
        record(store, "stressed", [Recorded(0, PLAIN, STRESSED, value=0.8), Recorded(1, PLAIN, STRESSED)])
        record(store, "earlier", [Recorded(0, PLAIN, value=0.8), Recorded(1, PLAIN)])
        record(store, "mixed", [Recorded(0, PLAIN, value=0.8), Recorded(1, PLAIN, STRESSED)])
        record(store, "equal", [Recorded(0, PLAIN, np.stack([PLAIN]))])
        yield store


def nominee(store: Store, study: str, **promote: Any) -> Nominee:
    return nominate(context(store, study, **promote), trial_runs(store, study))


def pooled_threshold(rule: str = "youden", value: float | None = None, temperature: float = 1.0) -> float:
    probabilities = scale_probabilities(STRESSED.ravel(), temperature)
    return operating_point(np.tile(LABELS, 2), probabilities, rule, value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("threshold", "rule", "value"),
    [("youden", "youden", None), ("f1", "f1", None), ("sensitivity>=0.9", "sensitivity", 0.9)],
)
def test_each_rule_is_applied_to_the_pictures_that_are_asked_for(
    store: Store, threshold: str, rule: str, value: float | None
) -> None:
    stressed = nominee(store, "stressed", threshold=threshold)
    assert stressed.decision.threshold == pooled_threshold(rule, value)
    plain = nominee(store, "stressed", threshold=threshold, on="validation")
    assert plain.decision.threshold == pytest.approx(0.5)
    assert (stressed.point.other, plain.point.other) == (plain.point.point, stressed.point.point)


def test_the_temperature_is_fitted_on_the_same_pictures(store: Store) -> None:
    temperature = fit_temperature(np.tile(LABELS, 2), STRESSED.ravel())
    stressed = nominee(store, "stressed", calibration="temperature")
    assert stressed.decision.temperature == temperature
    assert stressed.decision.threshold == pooled_threshold(temperature=temperature)
    plain = nominee(store, "stressed", calibration="temperature", on="validation")
    assert plain.decision.temperature == fit_temperature(LABELS, PLAIN) != temperature


def test_the_price_is_said_for_both_points(store: Store) -> None:
    stressed, plain = nominee(store, "stressed"), nominee(store, "stressed", on="validation")
    threshold = pooled_threshold()
    accuracy = np.mean((threshold <= PLAIN) == LABELS), np.mean((threshold <= STRESSED) == LABELS)
    chosen = f"threshold {threshold:.4f}"
    price = f"accuracy {accuracy[0]:.4f} on plain, {accuracy[1]:.4f} on stressed validation pictures."
    alternative = (
        f"accuracy 1.0000 on plain, {np.mean((STRESSED >= 0.5) == LABELS):.4f} on stressed validation pictures."
    )
    assert stressed.point.sentences == (
        f"Operating point: {chosen} (youden on stressed validation pictures): {price}",
        f"The plain validation pictures would give threshold 0.5000: {alternative}",
    )
    assert plain.point.sentences == (
        f"Operating point: threshold 0.5000 (youden on plain validation pictures): {alternative}",
        f"The stressed validation pictures would give {chosen}: {price}",
    )
    assert json.loads(json.dumps(stressed.point.as_dict()))["chosen"]["stress_accuracy"] == accuracy[1]


@pytest.mark.parametrize("study", ["stressed", "earlier"])
def test_a_threshold_that_is_set_does_not_depend_on_it(store: Store, study: str) -> None:
    point = nominee(store, study, threshold=0.3).point
    assert point == nominee(store, study, threshold=0.3, on="validation").point
    assert (point.on, point.point.threshold, point.other, point.lacks_stress) == ("fixed", 0.3, None, False)
    assert point.sentences[0].startswith("Operating point: threshold 0.3000 (set by the experiment): accuracy ")
    fitted = nominee(store, study, threshold=0.3, calibration="temperature").point
    assert (fitted.on, fitted.lacks_stress) == (("stress", False) if study == "stressed" else ("validation", True))
    assert "set by the experiment; temperature fitted on" in fitted.sentences[0]


def test_a_run_without_stress_predictions_gets_the_plain_point_and_says_so(store: Store) -> None:
    point = nominee(store, "earlier").point
    assert point.point.threshold == pytest.approx(0.5)
    assert point.sentences == (
        "Operating point: threshold 0.5000 (youden on plain validation pictures, because no predictions under the stress "
        "suite were recorded): accuracy 1.0000 on plain validation pictures.",
    )
    assert point.as_dict()["lacks_stress"] is True
    asked = nominee(store, "earlier", on="validation").point
    assert "because" not in asked.sentences[0]


def test_a_baseline_without_stress_predictions_is_named(store: Store) -> None:
    references = {}
    for study in ("stressed", "mixed"):
        runs = trial_runs(store, study)
        references[study] = choose_reference(context(store, study), runs, Chosen.single(runs[1], "the test"), None)
    assert references["stressed"].description == "the study's baseline, trial 0"
    assert references["mixed"].description.endswith(
        "trial 0, with an operating point of the plain validation pictures, because no predictions under the stress suite "
        "were recorded"
    )


@pytest.mark.parametrize("study", ["stressed", "earlier"])
def test_what_an_earlier_version_promoted_is_recognised_by_its_key(store: Store, study: str) -> None:
    source = context(store, study).source
    plain = nominee(store, study, on="validation")
    decision = {
        "classes": ["NORMAL", "PNEUMONIA"],
        "threshold": plain.decision.threshold,
        "temperature": 1.0,
        "image_size": 32,
        "channels": 1,
        "phantom": True,
    }
    document = json.dumps([plain.run.run_id, decision, source.test_digest], sort_keys=True)
    assert plain.key(source) == hashlib.sha256(document.encode()).hexdigest()[:32]
    assert (nominee(store, study).key(source) == plain.key(source)) == (study == "earlier")


def test_points_that_are_equal_by_chance_are_different_promotions(store: Store) -> None:
    source = context(store, "equal").source
    stressed, plain = nominee(store, "equal"), nominee(store, "equal", on="validation")
    assert stressed.decision == plain.decision
    assert stressed.key(source) != plain.key(source)


def test_damaged_stress_predictions_are_one_line(store: Store) -> None:
    (run_id,) = record(store, "damaged", [Recorded(0, PLAIN, STRESSED)])
    file = Path(store.client.download_artifacts(run_id, "stress_predictions.npz"))
    file.write_bytes(file.read_bytes()[:100])
    store.client.log_artifact(run_id, str(file))
    with pytest.raises(RequestError, match=rf"^{run_id}: its artifact stress_predictions\.npz is damaged: [^\n]*$"):
        nominee(store, "damaged")
