"""The best trial, the front and the mean over seeds, compared with independent computations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import create_trial
from pydantic import BaseModel, ValidationError

from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment_file import list_faults
from pneumo.spec.objective import OBJECTIVES, Direction
from pneumo.spec.result import State, Trial, TrialResult
from pneumo.spec.selection import (
    Bound,
    Confirmation,
    Rule,
    dominates,
    metric_value,
    pareto_front,
    rank_confirmations,
    rank_trials,
    t_quantile,
)

NAN, INF = float("nan"), float("inf")
TWO = ("val_auc", "parameters")


def _trial(
    number: int, value: float | None, metrics: Mapping[str, float] | None = None, state: State = "complete"
) -> Trial:
    return Trial(Candidate(number, {}), TrialResult(number, "run", state, value, metrics or {}))


def _numbers(trials: list[Trial]) -> list[int]:
    return [trial.number for trial in trials]


def _refusal(rule: Mapping[str, Any]) -> str:
    """Return the key and the message of the fault, as for an experiment file."""

    class File(BaseModel):
        promote: Rule

    with pytest.raises(ValidationError) as refused:
        File.model_validate({"promote": rule})
    (fault,) = list_faults(refused.value)
    return str(fault)


def test_a_rule_is_a_metric_with_a_direction_and_bounds() -> None:
    rule = Rule.model_validate({"max": "val_auc", "subject_to": {"parameters": {"max": 500000}}})
    assert (rule.metric, rule.direction) == ("val_auc", "maximize")
    assert rule.subject_to == {"parameters": Bound(max=500000)}
    assert (Rule(min="predict_ms").metric, Rule(min="predict_ms").direction) == ("predict_ms", "minimize")


def test_a_bound_contains_its_ends() -> None:
    assert [Bound(min=1, max=2).contains(value) for value in (0.9, 1, 1.5, 2, 2.1)] == [False, True, True, True, False]
    assert Bound(min=0).contains(INF)
    assert not Bound(max=0).contains(INF)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"max": "val_acu"}, "promote.max: there is no 'val_acu'; there is val_auc, val_accuracy, "),
        ({"max": "val_acu"}, "; did you mean 'val_auc'?"),
        ({"min": "time"}, "promote.min: there is no 'time'; there is "),
        (
            {"max": "val_auc", "subject_to": {"params": {"max": 1}}},
            "promote.subject_to: there is no 'params'; there is ",
        ),
        ({}, "promote.max: exactly one of max and min names a metric, as in {max: val_auc}"),
        ({"max": "val_auc", "min": "parameters"}, "promote.max: exactly one of max and min"),
        (
            {"max": "val_auc", "subject_to": {"parameters": {}}},
            "promote.subject_to.parameters.max: give min, max or both",
        ),
        (
            {"max": "val_auc", "subject_to": {"parameters": {"min": 3, "max": 2}}},
            "promote.subject_to.parameters.min: at most max, got min 3 and max 2",
        ),
        ({"max": "val_auc", "subject_to": {"parameters": {"max": INF}}}, "promote.subject_to.parameters.max: input"),
        ({"max": "val_auc", "most": 1}, "promote: there is no 'most'"),
    ],
)
def test_an_incomplete_or_contradictory_rule_is_refused(rule: dict[str, Any], message: str) -> None:
    assert message in _refusal(rule)


def test_the_first_objective_is_the_value_and_the_others_are_metrics() -> None:
    result = TrialResult(0, "run", "complete", 0.9, {"best_val_loss": 0.3, "parameters": 7, "train_seconds": NAN})
    assert [metric_value(result, metric, TWO) for metric in ("val_auc", "val_loss", "parameters")] == [0.9, 0.3, 7]
    assert [metric_value(result, metric, TWO) for metric in ("val_f1", "train_seconds")] == [None, None]
    assert metric_value(result, "val_loss", ("val_loss",)) == 0.9


def test_the_ranking_is_by_the_first_objective_and_has_complete_trials_only() -> None:
    trials = [
        _trial(4, 0.8),
        _trial(3, 0.9),
        _trial(0, None),
        _trial(1, 0.9),
        _trial(2, 0.99, state="pruned"),
        _trial(5, NAN),
        _trial(6, INF),
    ]
    assert _numbers(rank_trials(trials, ["val_auc"])) == [1, 3, 4]
    assert _numbers(rank_trials(trials, ["val_loss"])) == [4, 1, 3]
    assert rank_trials([], ["val_auc"]) == []


def test_a_rule_ranks_by_its_metric_those_that_keep_its_bounds() -> None:
    trials = [
        _trial(0, 0.97, {"parameters": 4e6, "best_val_loss": 0.1}),
        _trial(1, 0.95, {"parameters": 5e5, "best_val_loss": 0.3}),
        _trial(2, 0.96, {"parameters": 1e5, "best_val_loss": 0.2}),
        _trial(3, 0.99, {"best_val_loss": 0.0}),
        _trial(4, 0.5, {"parameters": 10}),
    ]
    small = {"parameters": Bound(max=5e5)}
    assert _numbers(rank_trials(trials, TWO, Rule(max="val_auc", subject_to=small))) == [2, 1, 4]
    assert _numbers(rank_trials(trials, TWO, Rule(min="val_loss", subject_to=small))) == [2, 1]
    good = {"val_auc": Bound(min=0.95)}
    assert _numbers(rank_trials(trials, TWO, Rule(min="parameters", subject_to=good))) == [2, 1, 0]
    assert rank_trials(trials, TWO, Rule(max="val_f1")) == []


def test_to_dominate_is_to_be_better_somewhere_and_worse_nowhere() -> None:
    directions: list[Direction] = ["maximize", "minimize"]
    assert dominates((0.9, 5), (0.8, 6), directions)
    assert dominates((0.9, 5), (0.9, 6), directions)
    assert not dominates((0.9, 5), (0.9, 5), directions)
    assert not dominates((0.9, 5), (0.8, 4), directions)
    assert not dominates((0.8, 6), (0.9, 5), directions)


def test_the_front_leaves_out_the_dominated_the_unknown_and_the_unfinished() -> None:
    trials = [
        _trial(7, 0.9, {"parameters": 50}),
        _trial(1, 0.8, {"parameters": 20}),
        _trial(2, 0.85, {"parameters": 60}),
        _trial(3, 0.8, {"parameters": 20}),
        _trial(4, 0.99),
        _trial(5, NAN, {"parameters": 1}),
        _trial(6, 1.0, {"parameters": 1}, "pruned"),
    ]
    assert _numbers(pareto_front(trials, TWO)) == [1, 3, 7]
    assert _numbers(pareto_front(trials, ["val_auc"])) == [4]
    assert pareto_front([], TWO) == []


few_values = st.sampled_from([0.0, 0.25, 0.5, 0.75])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(few_values, few_values, few_values), max_size=20))
def test_the_front_is_the_one_that_optuna_finds(rows: list[tuple[float, float, float]]) -> None:
    objectives = ("val_auc", "parameters", "val_loss")
    study = optuna.create_study(directions=[OBJECTIVES[objective] for objective in objectives])
    study.add_trials([create_trial(values=row) for row in rows])
    trials = [
        _trial(n, auc, {"parameters": parameters, "best_val_loss": loss})
        for n, (auc, parameters, loss) in enumerate(rows)
    ]
    assert _numbers(pareto_front(trials, objectives)) == sorted(trial.number for trial in study.best_trials)


def test_the_interval_is_that_of_a_published_example() -> None:
    # Student, The probable error of a mean, Biometrika 6 (1908): hours of sleep gained with one drug over another. The
    # interval is what R's documentation of t.test gives: t.test(extra ~ group, data = sleep, paired = TRUE).
    gained = Confirmation(0, (-1.2, -2.4, -1.3, -1.3, 0.0, -1.0, -1.8, -0.8, -4.6, -1.4), 0.0)
    assert gained.mean == pytest.approx(-1.58)
    assert gained.low == pytest.approx(-2.4598858, abs=5e-8)
    assert gained.high == pytest.approx(-0.7001142, abs=5e-8)


@pytest.mark.parametrize(("freedom", "published"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)])
def test_quantiles_are_those_of_a_published_table(freedom: int, published: float) -> None:
    # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, column 0.975.
    assert round(t_quantile(freedom), 3) == published


def test_quantiles_and_intervals_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")  # which scikit-learn brings
    for freedom in range(1, 200):
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-12)
    for values in ((0.98, 0.985), (0.987, 0.9851, 0.9889, 0.9866, 0.987), tuple(math.sin(n) for n in range(33))):
        low, high = stats.t.interval(0.95, len(values) - 1, loc=stats.tmean(values), scale=stats.sem(values))
        assert (Confirmation(0, values, 0.0).low, Confirmation(0, values, 0.0).high) == pytest.approx(
            (low, high), rel=1e-12
        )


def test_one_value_has_no_interval_and_none_is_refused() -> None:
    one = Confirmation(3, (0.9,), 0.95)
    assert (one.mean, one.low, one.high) == (0.9, None, None)
    equal = Confirmation(3, (0.5, 0.5), 0.5)
    assert (equal.low, equal.high) == (0.5, 0.5)
    with pytest.raises(ValueError, match="trial 3: a confirmation needs at least one value"):
        Confirmation(3, (), 0.9)


def test_luck_is_how_much_better_the_first_value_was() -> None:
    confirmed = Confirmation(0, (0.5, 0.75), 0.75)
    assert confirmed.luck("maximize") == 0.125
    assert confirmed.luck("minimize") == -0.125


@pytest.mark.parametrize(("direction", "order"), [("maximize", [2, 1, 4, 0, 3]), ("minimize", [0, 1, 4, 2, 3])])
def test_confirmed_trials_are_ranked_by_their_means(
    direction: Literal["maximize", "minimize"], order: list[int]
) -> None:
    confirmed = [
        Confirmation(4, (0.8, 0.8), 0.8),
        Confirmation(3, (0.9, NAN), 0.99),
        Confirmation(0, (0.1,), 0.99),
        Confirmation(1, (0.8, 0.8, 0.8, 0.8), 0.8),
        Confirmation(2, (0.9,), 0.1),
    ]
    assert [c.number for c in rank_confirmations(confirmed, direction)] == order
