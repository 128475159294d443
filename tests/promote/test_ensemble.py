"""Which runs become the members of an ensemble, from what they recorded about validation pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pneumo.evidence.metrics import operating_point
from pneumo.promote.nominee import Nominee, nominate
from pneumo.spec.errors import RequestError
from pneumo.tracking.models import remove
from pneumo.tracking.store import Store
from pneumo.tracking.study import trial_runs
from tests.support.new_stores import new_store
from tests.support.promotions import LABELS, NAMES, Recorded, context, record

SEEDS = (1_000_000, 1_000_001, 1_000_002)

GOOD = np.array([0.1, 0.2, 0.2, 0.7, 0.8, 0.9, 0.8, 0.9], np.float32)
"""Probabilities with one mistake, the fourth picture."""

OTHER = np.array([0.3, 0.1, 0.2, 0.1, 0.8, 0.9, 0.9, 0.2], np.float32)
"""Probabilities with another mistake, the last picture: the mean with `GOOD` has none."""

BAD = 1 - GOOD


def stressed(*rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.stack(rows).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with several studies. Plain and stressed predictions disagree about which runs are good."""
    folder = tmp_path_factory.mktemp("ensembles")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = new_store(folder)
        bad, good, other = stressed(BAD, BAD), stressed(GOOD, GOOD), stressed(OTHER, OTHER)
        runs = [
            Recorded(0, GOOD, bad, model=True, value=0.8),
            Recorded(1, BAD, good, model=True),
            Recorded(2, BAD, good, value=0.95),
            Recorded(1, BAD, other, model=True, seed=SEEDS[0]),
            Recorded(1, BAD, bad, model=True, seed=SEEDS[1]),
        ]
        record(store, "study", runs)
        yield store


def nominee(store: Store, study: str = "study", run_id: str | None = None, **promote: Any) -> Nominee:
    return nominate(context(store, study, run_id, **promote), trial_runs(store, study))


def members(nominee: Nominee) -> list[tuple[int, str, float]]:
    chosen = nominee.chosen
    seeds = [run.parameters["seed"] for run in chosen.runs]
    return list(zip((run.number for run in chosen.runs), seeds, chosen.weights, strict=True))


def test_the_members_are_picked_on_stressed_pictures_among_runs_with_models(store: Store) -> None:
    chosen = nominee(store, ensemble=2)
    assert members(chosen) == [(1, "0", 0.5), (1, str(SEEDS[0]), 0.5)]
    assert chosen.chosen.reason.startswith("an ensemble of 2 of 4 runs, log loss ")
    assert "on stressed validation pictures, its best member alone " in chosen.chosen.reason
    without, *listed = chosen.chosen.remarks
    assert without == "1 run of 5 cannot be members, because their models were not kept."
    assert [line.split(", log loss")[0] for line in listed] == [
        "  weight 0.500: trial 1",
        f"  weight 0.500: trial 1 with seed {SEEDS[0]}",
    ]
    assert members(nominee(store, ensemble=2, on="validation")) == [(0, "0", 1.0)]


def test_a_member_whose_image_size_was_inactive_has_the_tutorials(store: Store) -> None:
    record(store, "inactive", [Recorded(0, GOOD, stressed(GOOD), model=True, image_size=64)])
    (member,) = nominee(store, "inactive").decision.members
    assert (member.image_size, member.channels) == (64, 1)


def test_threshold_temperature_and_gain_are_those_of_the_mean(store: Store) -> None:
    chosen = nominee(store, ensemble=2)
    mean = np.mean([GOOD, OTHER], axis=0, dtype=np.float64).astype(np.float32)
    assert chosen.decision.threshold == operating_point(np.tile(LABELS, 2), np.tile(mean, 2))
    assert chosen.point.point.stress_accuracy == 1.0
    assert [(each.run_id, each.weight, each.image_size) for each in chosen.decision.members] == [
        (run.run_id, 0.5, 32) for run in chosen.chosen.runs
    ]
    best = chosen.best_member
    assert best is not None
    assert best.decision == nominee(store, run_id=chosen.run.run_id).decision
    assert nominee(store).best_member is None


def test_a_pick_may_repeat_and_its_weight_grows(store: Store) -> None:
    weights = members(nominee(store, ensemble=3))
    assert [weight for *_, weight in weights] == pytest.approx([2 / 3, 1 / 3])
    assert nominee(store, ensemble=3).decision == nominee(store, ensemble=3).decision


def test_seeds_takes_the_confirmations_of_the_best_trial_in_equal_parts(store: Store) -> None:
    chosen = nominee(store, ensemble="seeds", max="val_auc", subject_to={"parameters": {"max": 1000}})
    assert members(chosen) == [(1, str(SEEDS[0]), 0.5), (1, str(SEEDS[1]), 0.5)]
    assert chosen.chosen.reason.startswith("an ensemble of 2 confirmations, log loss ")


def test_an_ensemble_of_one_is_that_run(store: Store) -> None:
    record(store, "one", [Recorded(0, GOOD, stressed(GOOD), model=True), Recorded(1, BAD, stressed(BAD), model=True)])
    chosen, single = nominee(store, "one", ensemble=5), nominee(store, "one")
    assert chosen.chosen.reason.startswith("trial 0 alone, since no other lowers the loss, log loss ")
    assert chosen.decision == single.decision
    source = context(store, "one").source
    assert chosen.key(source) == single.key(source), "promoted alone or as an ensemble of one, it is the same model"
    run = next(run for run in trial_runs(store, "one") if run.number == 1)
    remove(store, run.run_id, "not among the best 1")
    chosen = nominee(store, "one", ensemble=5)
    assert "trial 0 alone, since no other can be a member" in chosen.chosen.reason
    assert chosen.chosen.remarks == ("1 run of 2 cannot be members, because their models were not kept.",)


def test_runs_without_stress_predictions_are_left_out_or_the_plain_ones_decide(store: Store) -> None:
    runs = [
        Recorded(0, GOOD, model=True),
        Recorded(1, OTHER, stressed(OTHER), model=True),
        Recorded(2, GOOD, stressed(GOOD), model=True),
    ]
    record(store, "some", runs)
    some = nominee(store, "some", ensemble=2)
    assert sorted(run.number for run in some.chosen.runs) == [1, 2]
    assert some.chosen.remarks[0] == (
        "1 run of 3 cannot be members: no predictions under the stress suite were recorded for them."
    )
    record(store, "none", [Recorded(0, GOOD, model=True), Recorded(1, OTHER, model=True)])
    none = nominee(store, "none", ensemble=2)
    assert len(none.chosen.runs) == 2
    assert none.chosen.remarks[0] == (
        "The members are chosen on plain validation pictures, because no predictions under the stress suite were recorded."
    )
    assert none.point.lacks_stress


def test_stressed_pictures_that_only_some_runs_were_judged_on_are_left_out(store: Store) -> None:
    few = [0, 3, 4, 7]
    runs = [
        Recorded(0, GOOD, stressed(GOOD), model=True),
        Recorded(1, OTHER, stressed(OTHER), model=True, stressed_pictures=few),
    ]
    record(store, "fewer", runs)
    chosen = nominee(store, "fewer", ensemble=2)
    mean = np.asarray(np.mean([GOOD, OTHER], axis=0, dtype=np.float64), np.float32)[few]
    assert len(chosen.chosen.runs) == 2
    assert chosen.decision.threshold == operating_point(LABELS[few], mean)


def test_what_cannot_be_an_ensemble_is_one_line(store: Store) -> None:
    run_id = trial_runs(store, "study")[0].run_id
    refusals = {
        "takes runs of the whole study, not one that is named; give the study study, or --set promote.ensemble=null": (
            "study",
            run_id,
            3,
        ),
        "seeds takes the confirmations of the best trial, 0, and it has none; search.confirm trains them": (
            "other",
            None,
            "seeds",
        ),
        "trial 1 was judged on other validation pictures than trial 0": ("other", None, 2),
        "none of 1 run has a model any more": ("lost", None, 2),
    }
    record(store, "lost", [Recorded(0, GOOD, stressed(GOOD))])
    names = [f"{name}, another" for name in NAMES]
    runs = [
        Recorded(0, GOOD, stressed(GOOD), model=True),
        Recorded(1, OTHER, stressed(OTHER), model=True, value=0.5, names=names),
    ]
    record(store, "other", runs)
    for message, (study, named, ensemble) in refusals.items():
        with pytest.raises(RequestError) as error:
            nominee(store, study, named, ensemble=ensemble)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [1, 0, 51, True, 2.5, "all", []])
def test_a_wrong_setting_is_refused(store: Store, value: object) -> None:
    with pytest.raises(RequestError, match=r"promote\.ensemble: needs a number from 2 to 50, seeds or null, got "):
        context(store, "study", ensemble=value)
